"""The bits behind the names of an emitted module: which register or constant each wire leads back to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

Bit: TypeAlias = "tuple[str, int] | bool"
"""A bit of a port or of an instance's output, by its name and place; a constant."""

_PORT = re.compile(r"^    (?:input|output) +\[(\d+):0\] (\w+)", re.MULTILINE)
_WIRE = re.compile(r"^    wire \[(\d+):0\] (\w+)(?: = (.*))?;$", re.MULTILINE)
_ASSIGN = re.compile(r"^    assign (\w+)(?:\[(\d+)\+:(\d+)\])? = (.*);$", re.MULTILINE)
_TOKEN = re.compile(r"\d+'[bh][0-9a-f]+|\w+(?:\[[^\]]*\])?|[{},]")


@dataclass(frozen=True)
class Module:
    """An emitted module.

    Args:
        text: its Verilog.
        known: what a bit of an instance's output is, where it is more than its name and place.
    """

    text: str
    known: Callable[[str, int], Bit] = lambda name, place: (name, place)

    @cached_property
    def widths(self) -> dict[str, int]:
        """Bits of every port and wire."""
        named = [*_PORT.findall(self.text), *((high, name) for high, name, _ in _WIRE.findall(self.text))]
        return {name: int(high) + 1 for high, name in named}

    @cached_property
    def _assigned(self) -> dict[str, list[tuple[int, str]]]:
        found: dict[str, list[tuple[int, str]]] = {}
        for _, name, text in _WIRE.findall(self.text):
            if text:
                found.setdefault(name, []).append((0, text))
        for name, low, _, text in _ASSIGN.findall(self.text):
            found.setdefault(name, []).append((int(low or 0), text))
        return found

    def bits(self, text: str) -> list[Bit]:
        """The bits of an expression, the lowest first."""
        tokens = _TOKEN.findall(text)
        found, rest = self._expression(tokens, 0)
        assert rest == len(tokens), text
        return found

    def _expression(self, tokens: list[str], place: int) -> tuple[list[Bit], int]:
        token = tokens[place]
        if token != "{":
            return self._name(token), place + 1
        place += 1
        if tokens[place].isdigit():  # copies: {n{...}}
            count = int(tokens[place])
            inner, place = self._expression(tokens, place + 1)
            return inner * count, place + 1
        parts: list[list[Bit]] = []
        while True:
            part, place = self._expression(tokens, place)
            parts.append(part)
            if tokens[place] == "}":
                return [bit for part in reversed(parts) for bit in part], place + 1
            place += 1

    def _name(self, token: str) -> list[Bit]:
        if "'" in token:
            width, digits = token.split("'")
            value = int(digits[1:], 2 if digits[0] == "b" else 16)
            return [bool(value >> place & 1) for place in range(int(width))]
        name, _, chosen = token.partition("[")
        low, high = _range(chosen.rstrip("]"), self.widths.get(name, 1))
        every = self._every(name)
        return every[low : high + 1]

    def _every(self, name: str) -> list[Bit]:
        if name not in self._cache:
            width = self.widths.get(name, 1)
            found: list[Bit] = [self.known(name, place) for place in range(width)]
            for low, text in self._assigned.get(name, ()):
                bits = self.bits(text)
                found[low : low + len(bits)] = bits
            self._cache[name] = found[:width]
        return self._cache[name]

    @cached_property
    def _cache(self) -> dict[str, list[Bit]]:
        return {}


def _range(text: str, width: int) -> tuple[int, int]:
    if not text:
        return 0, width - 1
    if "+:" in text:
        first, count = text.split("+:")
        low = 1
        for factor in first.split("*"):
            low *= int(factor)
        return low, low + int(count) - 1
    high, _, low_text = text.partition(":")
    return int(low_text or high), int(high)


def varying(bits: list[Bit]) -> Iterator[tuple[str, int]]:
    """Each bit once that is no constant."""
    yield from dict.fromkeys(bit for bit in bits if not isinstance(bit, bool))
