"""Messages as a terminal gets them."""

from __future__ import annotations

from qhw.errors import LONGEST_LINE, LONGEST_MESSAGE, brief, printable


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert printable("a\x1b[31mb\0\x7f\u202e\udcff\x9b") == r"a\x1b[31mb\x00\x7f\u202e\udcff\x9b"
    assert printable("größe 重み\n\tµs") == "größe 重み\n\tµs"


def test_the_middle_of_what_is_too_long_is_left_out() -> None:
    line = brief("first" + "n" * 100_000 + "last")
    assert line.startswith("firstnnn")
    assert line.endswith("nnlast")
    assert len(line) < LONGEST_LINE + 10
    assert len(brief("n\n" * 100_000)) < LONGEST_MESSAGE + 10
    assert brief("n" * LONGEST_LINE) == "n" * LONGEST_LINE
