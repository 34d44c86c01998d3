"""Tables on the terminal and in notebooks."""

from __future__ import annotations

import io

import pytest
import rich.console

from qhw.doctor import diagnose
from qhw.report.boards import boards_tables
from qhw.report.tables import Table, cell_text, print_tables, size_text


@pytest.mark.parametrize(
    ("cell", "text"),
    [(None, ""), (1234567, "1,234,567"), (0.5, "0.5"), (12345.6, "12,346"), (True, "yes"), ("a", "a")],
)
def test_cells(cell: object, text: str) -> None:
    assert cell_text(cell) == text  # type: ignore[arg-type]


def test_sizes_are_exact_while_they_can_be_read() -> None:
    assert [size_text(9.0), size_text(3472), size_text(8.5e18)] == ["9", "3,472", "8.5e+18"]


def test_html_escapes_what_a_model_file_could_hold() -> None:
    table = Table("<script>", ("<b>",), (("<img src=x>",),), note="a & b")
    html = table.to_html()
    assert "<script>" not in html
    assert "<img" not in html
    assert "&lt;b&gt;" in html
    assert "a &amp; b" in html


def test_the_terminal_shows_square_brackets_as_they_are() -> None:
    console = rich.console.Console(file=io.StringIO(), width=80)
    console.print(Table("t", ("layer", "codes"), (("conv[0] [red]", 5),)).to_rich())
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "conv[0] [red]" in shown


def test_numbers_are_aligned_right() -> None:
    table = Table("t", ("n", "text"), ((1, "a"), (None, "b")))
    assert table.to_html().count("text-align:right") == 2


def test_missing_tools_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    diagnosis = diagnose()
    missing = {tool.name for tool in diagnosis.missing}
    assert {"g++", "Vitis HLS"} <= missing
    assert "hls4ml" not in missing
    assert "apt-get install g++" in diagnosis._repr_html_()


def on_a_terminal(table: Table, width: int) -> str:
    console = rich.console.Console(file=io.StringIO(), width=width)
    print_tables(console, [table])
    shown: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in shown.splitlines())
    return shown


LAYERS = Table(
    "Layers",
    ("layer", "operation", "LUT", "what it is"),
    (("block1.conv_long_name", "Conv", 1234567, "some words that may wrap anywhere"), ("b", "Add", 7, "few")),
    spare=("operation",),
)


def test_a_narrow_terminal_wraps_texts_and_breaks_no_number_or_name() -> None:
    wide, narrow, narrower = (on_a_terminal(LAYERS, width) for width in (100, 60, 45))
    assert "some words that may wrap anywhere" in wide
    assert "Conv" in narrow
    assert "Conv" not in narrower
    for shown in (wide, narrow, narrower):
        assert "block1.conv_long_name" in shown
        assert "1,234,567" in shown


def test_a_terminal_too_narrow_for_anything_still_shows_every_letter() -> None:
    shown = on_a_terminal(LAYERS, 24)
    assert set("1234567") <= set(shown)
    assert "anyw" in shown


@pytest.mark.parametrize("width", [80, 120])
def test_boards_are_told_whole(width: int) -> None:
    shown = on_a_terminal(boards_tables(None)[0], width)
    assert all(text in shown for text in ("ultra96-v2", "xcu250-figd2104-2L-e", "1,728,000", "12,288"))
    assert ("Avnet" in shown) == (width == 120)
