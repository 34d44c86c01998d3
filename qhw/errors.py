"""The errors a user meets: what was given, where, what is allowed, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QhwError(Exception):
    """A problem that the user can act on, told in one message.

    Args:
        message: the value given and its place (node, layer, line or field).
        allowed: the values that would be accepted, if they can be listed.
        hint: a remedy.

    The command line prints ``str(error)`` without a traceback and exits with ``exit_code``.
    """

    exit_code = 2

    def __init__(self, message: str, *, allowed: str | None = None, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.allowed = allowed
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message]
        if self.allowed:
            lines.append(f"Allowed: {self.allowed}")
        if self.hint:
            lines.append(f"To do: {self.hint}")
        return "\n".join(lines)


class InputError(QhwError):
    """A value, file or array from the user is wrong."""


class UnsupportedError(QhwError):
    """The input is well formed, but holds something that qhw (or this flow) cannot carry exactly."""


class ToolMissingError(QhwError):
    """A program or optional package that this step needs is not installed."""


class CheckFailedError(QhwError):
    """A check ran and failed: codes differ, or a design does not fit its board."""

    exit_code = 1


def printable(text: str) -> str:
    """A text as a terminal may be given it: characters that would move, colour or hide others are spelt out.

    Names in a file from outside reach messages and tables; their escape sequences must not.
    """
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def closest(given: str, known: Iterable[str]) -> str:
    """A hint that offers the known names closest to the one given."""
    known = sorted(known)
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}"


LONGEST_LINE = 1000
LONGEST_MESSAGE = 4000
"""Characters of a message that are told; names in a file may have a hundred thousand."""


def brief(message: str) -> str:
    """A message with the middle of what is too long left out."""
    lines = (_shortened(line, LONGEST_LINE) for line in message.split("\n"))
    return _shortened("\n".join(lines), LONGEST_MESSAGE)


def _shortened(text: str, longest: int) -> str:
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"
