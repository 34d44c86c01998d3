"""The text form of formats: what a class declares of its own, and the reader that every class is given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from qhw.errors import InputError, closest
from qhw.formats.modes import Overflow, Rounding

ROUNDINGS = {mode.value: mode for mode in Rounding}
OVERFLOWS = {mode.value: mode for mode in Overflow}
ENDS = ("SAT", "SPECIAL")
"""The words for overflow: to the nearest bound, or to infinity or NaN."""


@dataclass(frozen=True)
class Notation:
    """How the formats of one class are written.

    Args:
        name: their name in the grammar.
        start: the beginning of their texts, a regular expression; where several classes' match a text,
            the longest match says which class reads it.
        rule: the grammar of their texts, for messages.
        examples: an example of each form, for messages.
        words: the names that a misspelt one may have meant.
        foreign: the texts to write instead of other tools' names, by the beginning of those.
    """

    name: str
    start: str
    rule: str
    examples: tuple[str, ...]
    words: tuple[str, ...] = ()
    foreign: Mapping[str, str] = field(default_factory=dict)


class Reader:
    """A text and how far it has been read.

    Args:
        notation: says all that could have been written, for messages.
    """

    def __init__(self, text: str, notation: Callable[[], str]):
        self.text = text
        self.place = 0
        self._notation = notation

    def match(self, pattern: str) -> re.Match[str] | None:
        """Read what matches, and the space in front of it."""
        found = self.ahead(pattern)
        if found:
            self.place = found.end()
        return found

    def ahead(self, pattern: str) -> re.Match[str] | None:
        """The text that :meth:`match` would read, which stays unread."""
        return re.compile(rf"\s*(?:{pattern})", re.ASCII).match(self.text, self.place)

    def take(self, sign: str) -> bool:
        """Read a sign, if it comes next."""
        return self.match(re.escape(sign)) is not None

    def expect(self, sign: str, expected: str | None = None) -> None:
        """Read a sign; raises InputError where another comes next."""
        if not self.take(sign):
            raise self.error(expected or repr(sign))

    def optional_number(self) -> int | None:
        """Read a whole number of up to four digits, if one comes next."""
        found = self.match(r"[+-]?\d{1,4}(?!\d)")
        return int(found[0]) if found else None

    def number(self, what: str) -> int:
        """Read a whole number; ``what`` names it in the message if there is none."""
        number = self.optional_number()
        if number is None:
            raise self.error(f"{what}, a number,")
        return number

    def word(self, expected: str, known: Iterable[str]) -> str:
        """Read one of the known words; ``expected`` says what they are."""
        known, start = list(known), self.place
        found = self.match(r"[A-Za-z]\w*")
        name = found[0].strip() if found else ""
        if name not in known:
            self.place = start
            raise self.error(f"{expected} ({', '.join(known)})", closest(name, known) if name else None)
        return name

    def bias(self) -> int | None:
        """Read ``@`` and an exponent bias, if they come next."""
        return self.number("the bias") if self.take("@") else None

    def options(self, *groups: Iterable[str]) -> set[str]:
        """Read words between commas, at most one of each group, and the closing bracket."""
        left, options = [list(group) for group in groups], set()
        while left:
            options.add(self.word("an option", [word for group in left for word in group]))
            left = [group for group in left if not options & set(group)]
            if not left or not self.take(","):
                break
        self.expect(">", "',' or '>'" if left else "'>'")
        return options

    def further_options(self, *groups: Iterable[str]) -> set[str]:
        """Read a comma and options, or the closing bracket alone."""
        if self.take(","):
            return self.options(*groups)
        self.expect(">", "',' or '>'")
        return set()

    def end(self, expected: str = "the end") -> None:
        """Raise InputError unless everything has been read."""
        if self.text[self.place :].strip():
            raise self.error(expected)

    def error(self, expected: str, hint: str | None = None) -> InputError:
        """The text found where ``expected`` should stand."""
        rest = self.text[self.place :]
        place = self.place + len(rest) - len(rest.lstrip())
        found = f"character {place + 1} is {self.text[place]!r}" if rest.strip() else "the text ends"
        # The pointer needs one line: a tab or line break in the text shows as a space.
        line = re.sub(r"\s", " ", self.text)
        return InputError(
            f"{self.text!r} is not a format: {found} where {expected} should be\n  {line}\n  {' ' * place}^",
            allowed=self._notation(),
            hint=hint,
        )


def rounding_among(options: Iterable[str]) -> Rounding:
    """The rounding mode that options name; to nearest even where they name none."""
    return next((ROUNDINGS[word] for word in options if word in ROUNDINGS), Rounding.RND_CONV)
