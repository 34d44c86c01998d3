"""Names out of a file on a terminal: no markup, no escape sequence, nothing hidden."""

from __future__ import annotations

import io
import logging
import sys

import pytest
import rich.console

from qhw.cli import main
from qhw.errors import printable
from qhw.pipeline.stages import Outcome
from qhw.report.progress import LiveProgress
from qhw.report.tables import Table, tables_html, tables_text

NAME = "[/x] [bold]a\x1b]0;title\x07\u202eb\r[red]<b>"
SPELT = "[/x] [bold]a\\x1b]0;title\\x07\\u202eb\\r[red]<b>"


@pytest.mark.parametrize("text", ["", "plain", "größe 重み", "two\nlines", "a\ttab"])
def test_what_a_terminal_shows_stays(text: str) -> None:
    assert printable(text) == text


def test_what_it_obeys_is_spelt_out() -> None:
    assert printable(NAME) == SPELT
    assert printable("\udcff\x9b\x00") == "\\udcff\\x9b\\x00"


def test_tables() -> None:
    table = Table(NAME, ("layer", "n"), ((NAME, 1),), NAME)
    text = tables_text([table])
    assert text.count(SPELT) == 3
    assert all(line.isprintable() for line in text.splitlines())
    assert "<b>" not in tables_html([table]).replace("<caption><b>", "")


def test_progress() -> None:
    file = io.StringIO()
    console = rich.console.Console(file=file, width=200, force_terminal=True, color_system=None)
    with LiveProgress(console) as progress:
        progress.started("lower")
        progress.progress(None, NAME)
        progress.finished(Outcome("lower", "done", 1.0, {"summary": NAME}))
    assert SPELT in file.getvalue()
    assert "\x1b]" not in file.getvalue()
    assert "\x07" not in file.getvalue()


def test_messages_and_warnings(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with pytest.raises(SystemExit):
        main(["boards", f"{NAME}.toml"])
    logging.getLogger("qhw").warning("the layer %s", NAME)
    sys.stderr.flush()
    err = capfd.readouterr().err
    assert f"the layer {SPELT}" in err
    assert "\x1b" not in err
    assert err.startswith("Error: The board file ")
