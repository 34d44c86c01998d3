"""Text, JSON, TOML and CSV from outside: of bounded size and depth, and without what one of them leaves open.

The parsers of Python's library recurse with the nesting of a file, and TOML's takes quadratic time for a
long dotted key: both are looked at before a file is parsed.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import tomllib
from collections.abc import Iterable
from datetime import date, time
from itertools import accumulate
from pathlib import Path
from typing import Any

from qhw.errors import InputError
from qhw.outside import read_bytes, shown

DEPTH_LIMIT = 64
"""Lists and tables inside one another at most."""

TEXT_LIMIT = 1 << 12
"""Characters of a text in a TOML file at most: names, paths and sentences."""

_STEP = {0x5B: 1, 0x7B: 1, 0x5D: -1, 0x7D: -1}
_BRACKETS = bytes(_STEP)
_NO_BRACKET = bytes(set(range(256)) - set(_BRACKETS))
_NO_STRUCTURE = bytes(set(_NO_BRACKET) - set(b'"'))
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"?')
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

_TOML_ASIDE = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)|\'\'\'.*?(?:\'\'\'|\Z)'
    r'|"(?:\\.|[^"\\\n])*+"?|\'[^\'\n]*+\'?|#[^\n]*+',
    re.DOTALL,
)
"""TOML's strings and comments; one without an end goes on to the end, so that no byte is read twice."""

_TOML_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{DEPTH_LIMIT}}}")
_TOML_INTEGERS = range(-(1 << 63), 1 << 63)


def read_text(path: Path, what: str, limit: int, hint: str | None = None) -> str:
    """A file of UTF-8 text; arguments and errors as for :func:`qhw.outside.opened`."""
    return _decoded(read_bytes(path, what, limit, hint), f"The {what} {shown(str(path))}", hint)


def _decoded(content: bytes, where: str, hint: str | None = None) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} is no text: byte {error.start} is 0x{content[error.start]:02x}",
            allowed="UTF-8",
            hint=hint,
        ) from None


def read_json(path: Path, what: str, limit: int, hint: str | None = None) -> Any:
    """The value in a JSON file; see :func:`parse_json`."""
    return parse_json(read_text(path, what, limit, hint), f"The {what} {shown(str(path))}", hint)


def parse_json(text: str, where: str, hint: str | None = None) -> Any:
    """The value that a JSON text holds: every number finite, no name twice in an object, all of it UTF-8.

    Args:
        where: the text's place, as the beginning of a message.

    Raises:
        InputError: it is no such text, or nested more than :data:`DEPTH_LIMIT` deep.
    """
    _check_depth(_json_depths(text.encode("utf-8", "replace")), where, hint)
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_object
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:  # also of a number with thousands of digits, or half a surrogate pair
        raise InputError(f"{where} is not JSON: {error}", hint=hint) from None
    return value


def _json_depths(content: bytes) -> Iterable[int]:
    """How deep each bracket outside of strings stands: everything else is deleted first, in C."""
    if b"\\" in content:
        content = _ESCAPE.sub(b"", content)
    return _depths(_STRING.sub(b"", content.translate(None, _NO_STRUCTURE)))


def _depths(brackets: bytes) -> Iterable[int]:
    return accumulate(map(_STEP.__getitem__, brackets))


def _check_depth(depths: Iterable[int], where: str, hint: str | None) -> None:
    if max(depths, default=0) > DEPTH_LIMIT:
        raise InputError(
            f"{where} is nested too deeply",
            allowed=f"{DEPTH_LIMIT} lists and tables in one another",
            hint=hint,
        )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is beyond the numbers of 64-bit floating point")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {shown(next(n for n in names if names.count(n) > 1))} is given twice")
    return found


def read_toml(path: Path, what: str, limit: int, hint: str | None = None) -> dict[str, Any]:
    """The table in a TOML file: texts, finite numbers (integers of 64 bits), true and false.

    Raises:
        InputError: it is no such file, or nested more than :data:`DEPTH_LIMIT` deep.
    """
    where = f"The {what} {shown(str(path))}"
    text = read_text(path, what, limit, hint)
    bare = _TOML_ASIDE.sub(lambda found: "" if found[0].startswith("#") else "x", text)
    _check_depth(_depths(bare.encode().translate(None, _NO_BRACKET)), where, hint)
    if _TOML_LONG_KEY.search(bare):
        raise InputError(f"{where} has a key of too many parts", allowed=f"{DEPTH_LIMIT} parts", hint=hint)
    try:
        value = tomllib.loads(text)
    except ValueError as error:  # also of a number with thousands of digits
        raise InputError(f"{where} is not a TOML file: {error}", hint=hint) from None
    _check_values(value, where)
    return value


def _check_values(value: Any, where: str) -> None:
    """TOML's integers have 64 bits, which its parser does not say; a longer one cannot even be quoted."""
    if isinstance(value, dict):
        for name, part in value.items():
            _check_values(part, f"{where}, {shown(name)}")
    elif isinstance(value, list):
        for part in value:
            _check_values(part, where)
    elif isinstance(value, str) and len(value) > TEXT_LIMIT:
        raise InputError(f"{where} has {len(value):,} characters", allowed=f"at most {TEXT_LIMIT:,}")
    elif isinstance(value, date | time):
        raise InputError(f"{where} is a date or a time", allowed="texts, numbers, true and false")
    elif isinstance(value, int) and value not in _TOML_INTEGERS:
        raise InputError(f"{where} is an integer of {value.bit_length()} bits", allowed="64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} is {value}", allowed="finite numbers")


def read_csv(path: Path, what: str, limit: int, hint: str | None = None) -> list[list[str]]:
    """The rows of a CSV file; arguments and errors as for :func:`read_text`."""
    text = read_text(path, what, limit, hint)
    try:
        return list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise InputError(f"The {what} {shown(str(path))} is not a table (CSV): {error}", hint=hint) from None
