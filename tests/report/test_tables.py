"""Tables on the terminal and in notebooks."""

from __future__ import annotations

import io

import pytest
import rich.console

from qhw.doctor import diagnose
from qhw.report.tables import Table, cell_text


@pytest.mark.parametrize(
    ("cell", "text"),
    [(None, ""), (1234567, "1,234,567"), (0.5, "0.5"), (12345.6, "12,346"), (True, "yes"), ("a", "a")],
)
def test_cells(cell: object, text: str) -> None:
    assert cell_text(cell) == text  # type: ignore[arg-type]


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
