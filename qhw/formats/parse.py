"""The text notation of formats: ``fixed<8,3>``, ``int4``, ``e4m3fn``, ``khot<8,2,csd>``, ``binary``…"""

from __future__ import annotations

import re
from collections.abc import Iterable

from qhw.errors import InputError, closest
from qhw.formats.base import Format
from qhw.formats.few_valued import Binary, Ternary
from qhw.formats.fixed import Fixed
from qhw.formats.integer import Integer
from qhw.formats.khot import KHot
from qhw.formats.minifloat import Minifloat, Special
from qhw.formats.modes import Overflow, Rounding
from qhw.formats.power_of_two import PowerOfTwo

NOTATION = (
    "fixed<8,3>, ufixed<4,4>, fixed<8,3,RND_CONV,SAT>, fixed<8> (binary point learned), int8, uint4, "
    "e4m3, e4m3fn, e4m3fnuz, e5m2ieee, e4m3@7, khot<8,2>, khot<8,2,csd>, pow2<4>, binary, ternary"
)
"""One example of each form, for messages."""

GRAMMAR = f"""
  format    = fixed | integer | minifloat | khot | pow2 | "binary" | "ternary"
  fixed     = ["u"] "fixed<" width ["," integer bits] ["," rounding ["," overflow]] ">"
  integer   = ["u"] "int" width
  minifloat = "e" exponent bits "m" mantissa bits ["ieee" | "fn" | "fnuz"] ["@" bias]
              ["<" ("nosubnormal" | rounding | "SAT" | "SPECIAL") {{"," …}} ">"]
  khot      = "khot<" width "," ones ["," "csd"] ["," rounding] ">"
  pow2      = ["u"] "pow2<" width {{"," ("nozero" | "nan" | rounding | "SAT" | "SPECIAL")}} ">" ["@" bias]
              or "e8m0fnu", which is upow2<8,nozero,nan>
  rounding  = {" | ".join(mode.value for mode in Rounding)}
  overflow  = {" | ".join(mode.value for mode in Overflow)}"""
"""The whole notation, for messages."""

LONGEST = 100
"""Characters of the longest text that is read."""

_ROUNDINGS = {mode.value: mode for mode in Rounding}
_OVERFLOWS = {mode.value: mode for mode in Overflow}
_ENDS = ("SAT", "SPECIAL")
_NAMES = ("fixed", "ufixed", "int", "uint", "khot", "pow2", "upow2", "binary", "ternary")
_KNOWN = re.compile(rf"({'|'.join(_NAMES)}|e\d+m\d)")
_FLOATS = (
    "write the bits: float8_e4m3fn is e4m3fn, float8_e4m3 is e4m3ieee, float16 e5m10ieee, bfloat16 e8m7ieee"
)
_FOREIGN = {
    "float": _FLOATS,
    "bfloat": _FLOATS,
    "ap_": "write fixed<…> without the prefix; its modes default to RND_CONV and SAT",
    "ac_": "write fixed<…> without the prefix; its modes default to RND_CONV and SAT",
}
"""What other tools' names start with, and what to write."""


def parse_format(text: str) -> Format:
    """The format that a text stands for; ``str`` of it parses to the same again.

    Modes follow the numbers: ``fixed<8,3,TRN>`` saturates, ``fixed<8,3,TRN,WRAP>`` wraps;
    ``e4m3fn<TRN,SPECIAL>`` overflows to NaN.
    Raises InputError, saying where the text stops being a format and what could have followed.
    """
    if len(text) > LONGEST:
        raise InputError(
            f"{text[:LONGEST]!r}… is not a format: it has {len(text)} characters", allowed=NOTATION
        )
    reader = _Reader(text)
    parsed = _format(reader)
    reader.end()
    return parsed


def parse_fixed(text: str) -> Fixed:
    """A fixed-point format; an integer stands for one without fraction bits (``int8`` is ``fixed<8,8>``)."""
    parsed = parse_format(text)
    if isinstance(parsed, Fixed):
        return parsed
    if not isinstance(parsed, Integer):
        raise InputError(
            f"{text!r} is not a fixed-point format", allowed="fixed<8,3>, ufixed<4,4>, fixed<8>, int8, uint4"
        )
    return Fixed(parsed.width, parsed.width, parsed.signed)


class _Reader:
    """A text and how far it has been read."""

    def __init__(self, text: str):
        self.text = text
        self.place = 0

    def match(self, pattern: str) -> re.Match[str] | None:
        """Read what matches, and the space in front of it."""
        found = re.compile(rf"\s*(?:{pattern})", re.ASCII).match(self.text, self.place)
        if found:
            self.place = found.end()
        return found

    def take(self, sign: str) -> bool:
        return self.match(re.escape(sign)) is not None

    def expect(self, sign: str, expected: str | None = None) -> None:
        if not self.take(sign):
            raise self.error(expected or repr(sign))

    def optional_number(self) -> int | None:
        found = self.match(r"[+-]?\d{1,4}(?!\d)")
        return int(found[0]) if found else None

    def number(self, what: str) -> int:
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

    def end(self, expected: str = "the end") -> None:
        if self.text[self.place :].strip():
            raise self.error(expected)

    def error(self, expected: str, hint: str | None = None) -> InputError:
        """What stands where ``expected`` should."""
        rest = self.text[self.place :]
        place = self.place + len(rest) - len(rest.lstrip())
        found = f"character {place + 1} is {self.text[place]!r}" if rest.strip() else "the text ends"
        # The pointer needs one line: a tab or line break in the text shows as a space.
        line = re.sub(r"\s", " ", self.text)
        return InputError(
            f"{self.text!r} is not a format: {found} where {expected} should be\n  {line}\n  {' ' * place}^",
            allowed=f"{NOTATION}{GRAMMAR}",
            hint=hint,
        )


def _format(reader: _Reader) -> Format:
    if found := reader.match(r"(u?)fixed(?![A-Za-z0-9_])"):
        return _fixed(reader, not found[1])
    if found := reader.match(r"(u?)int(\d{1,4})(?!\d)"):
        return Integer(int(found[2]), not found[1])
    if reader.match(r"e8m0fnu(?!\w)"):
        return PowerOfTwo(8, is_signed=False, zero=False, nan=True)
    if found := reader.match(r"e(\d{1,3})m(\d{1,3})"):
        return _minifloat(reader, int(found[1]), int(found[2]))
    if reader.match(r"khot(?!\w)"):
        return _khot(reader)
    if found := reader.match(r"(u?)pow2(?!\w)"):
        return _power_of_two(reader, not found[1])
    if found := reader.match(r"(binary|ternary)(?!\w)"):
        return Binary() if found[1] == "binary" else Ternary()
    raise reader.error("a format", _hint(reader.text.strip()))


def _hint(text: str) -> str | None:
    for prefix, hint in _FOREIGN.items():
        if text.startswith(prefix):
            return hint
    if _KNOWN.match(text.lower()) and not _KNOWN.match(text):
        return "write names in lower case, modes in upper case"
    start = re.match(r"[A-Za-z]+", text)
    return closest(start[0], _NAMES) if start else None


def _fixed(reader: _Reader, signed: bool) -> Fixed:
    reader.expect("<")
    width, integer = reader.number("the width"), None
    more = reader.take(",")
    if more and (integer := reader.optional_number()) is not None:
        more = reader.take(",")
    rounding, overflow = Rounding.RND_CONV, Overflow.SAT
    if more:
        expected = "a mode of rounding" if integer is not None else "integer bits or a mode of rounding"
        rounding = _ROUNDINGS[reader.word(expected, _ROUNDINGS)]
        more = reader.take(",")
        if more:
            overflow = _OVERFLOWS[reader.word("a mode of overflow", _OVERFLOWS)]
    reader.expect(">", "'>'" if more else "',' or '>'")
    return Fixed(width, integer, signed, rounding, overflow)


def _minifloat(reader: _Reader, exponent_bits: int, mantissa_bits: int) -> Minifloat:
    found = reader.match(r"(ieee|fnuz|fn)(?!\w)")
    special = Special(found[1]) if found else Special.NONE
    bias = _bias(reader)
    options: set[str] = set()
    if reader.take("<"):
        options = _options(reader, ["nosubnormal"], _ROUNDINGS, _ENDS)
    elif bias is None:
        reader.end("'@', '<' or the end" if found else "'ieee', 'fn', 'fnuz', '@', '<' or the end")
    subnormals, saturate = "nosubnormal" not in options, "SPECIAL" not in options
    return Minifloat(exponent_bits, mantissa_bits, bias, special, subnormals, _rounding(options), saturate)


def _khot(reader: _Reader) -> KHot:
    reader.expect("<")
    width = reader.number("the width")
    reader.expect(",")
    k = reader.number("the most ones")
    options = _further_options(reader, ["csd"], _ROUNDINGS)
    return KHot(width, k, "csd" in options, _rounding(options))


def _power_of_two(reader: _Reader, signed: bool) -> PowerOfTwo:
    reader.expect("<")
    width = reader.number("the width")
    options = _further_options(reader, ["nozero"], ["nan"], _ROUNDINGS, _ENDS)
    zero, nan, saturate = "nozero" not in options, "nan" in options, "SPECIAL" not in options
    return PowerOfTwo(width, _bias(reader), signed, zero, nan, _rounding(options), saturate)


def _bias(reader: _Reader) -> int | None:
    return reader.number("the bias") if reader.take("@") else None


def _further_options(reader: _Reader, *groups: Iterable[str]) -> set[str]:
    if reader.take(","):
        return _options(reader, *groups)
    reader.expect(">", "',' or '>'")
    return set()


def _options(reader: _Reader, *groups: Iterable[str]) -> set[str]:
    """Words between commas, at most one of each group, and the closing bracket."""
    left, options = [list(group) for group in groups], set()
    while left:
        options.add(reader.word("an option", [word for group in left for word in group]))
        left = [group for group in left if not options & set(group)]
        if not left or not reader.take(","):
            break
    reader.expect(">", "',' or '>'" if left else "'>'")
    return options


def _rounding(options: Iterable[str]) -> Rounding:
    return next((_ROUNDINGS[word] for word in options if word in _ROUNDINGS), Rounding.RND_CONV)
