"""Reads formats from text, whatever classes of formats there are: each says how its own are written."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from qhw.errors import InputError, closest
from qhw.formats.base import Format
from qhw.formats.fixed import Fixed
from qhw.formats.integer import Integer
from qhw.formats.notation import OVERFLOWS, ROUNDINGS, Reader

LONGEST = 100
"""Characters of the longest text that is read."""


def format_classes() -> tuple[type[Format], ...]:
    """Every class of formats, in the order of their notations' names.

    A class is found by being there: in a file of this package, or defined anywhere else.
    """
    _import_package()
    return tuple(sorted(_concrete(Format), key=lambda found: found.notation().name))


@cache
def _import_package() -> None:
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")


def _concrete(parent: type[Any]) -> Iterator[type[Format]]:
    for child in parent.__subclasses__():
        if not inspect.isabstract(child):
            yield child
        yield from _concrete(child)


def parse_format(text: str) -> Format:
    """The format that a text stands for; ``str`` of it parses to the same again.

    Modes follow the numbers: ``fixed<8,3,TRN>`` saturates, ``fixed<8,3,TRN,WRAP>`` wraps;
    ``e4m3fn<TRN,SPECIAL>`` overflows to NaN.
    Raises InputError, saying where the text stops being a format and what could have followed.
    """
    if len(text) > LONGEST:
        raise InputError(
            f"{text[:LONGEST]!r}… is not a format: it has {len(text)} characters", allowed=examples()
        )
    reader = Reader(text, lambda: f"{examples()}\n{grammar()}")
    parsed = _read(reader)
    reader.end()
    return parsed


def _read(reader: Reader) -> Format:
    """The format whose class has the longest beginning in common with the text."""
    longest, reading = 0, None
    for kind in format_classes():
        found = reader.ahead(kind.notation().start)
        if found and found.end() > longest:
            longest, reading = found.end(), kind
    if reading is None:
        raise reader.error("a format", _hint(reader.text.strip()))
    start = reader.match(reading.notation().start)
    assert start is not None
    return reading.read(start, reader)


def _hint(text: str) -> str | None:
    notations = [kind.notation() for kind in format_classes()]
    for notation in notations:
        for prefix, hint in notation.foreign.items():
            if text.startswith(prefix):
                return hint
    if any(re.match(notation.start, text.lower(), re.ASCII) for notation in notations):
        return "write names in lower case, modes in upper case"
    start = re.match(r"[A-Za-z]+", text)
    return closest(start[0], [word for notation in notations for word in notation.words]) if start else None


def examples() -> str:
    """One example of each form of each class, for messages."""
    return ", ".join(example for kind in format_classes() for example in kind.notation().examples)


def grammar() -> str:
    """The whole notation, for messages."""
    notations = [kind.notation() for kind in format_classes()]
    rules = {
        "format": " | ".join(notation.name for notation in notations),
        **{notation.name: notation.rule for notation in notations},
        "rounding": " | ".join(ROUNDINGS),
        "overflow": " | ".join(OVERFLOWS),
    }
    width = max(map(len, rules))
    margin = "\n" + " " * (width + 5)
    return "\n".join(f"  {name:<{width}} = {margin.join(rule.splitlines())}" for name, rule in rules.items())


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
