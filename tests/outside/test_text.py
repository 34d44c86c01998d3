"""Text, JSON, TOML and CSV: what a file may hold, and what is refused before it costs time or memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhw.errors import InputError
from qhw.outside.text import DEPTH_LIMIT, parse_json, read_csv, read_json, read_text, read_toml

LIMIT = 1 << 20

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(), parts, max_size=4),
    max_leaves=30,
)


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def seconds(read: Callable[[Path, str, int], Any], path: Path, said: str) -> float:
    """The time until a file is refused with these words."""
    start = time.perf_counter()
    with pytest.raises(InputError, match=said) as caught:
        read(path, "test file", LIMIT)
    assert len(str(caught.value)) < 600
    return time.perf_counter() - start


@given(VALUES)
def test_json_comes_back_as_it_was_written(value: Any) -> None:
    assert parse_json(json.dumps(value), "it") == value
    assert parse_json(json.dumps(value, ensure_ascii=False, indent=1), "it") == value


def nested(depth: int) -> str:
    return "[" * depth + '"[[\\"[[{"' + "]" * depth


def test_json_is_as_deep_as_allowed_and_no_deeper(tmp_path: Path) -> None:
    assert read_json(written(tmp_path, nested(DEPTH_LIMIT)), "test file", LIMIT)
    for depth in (DEPTH_LIMIT + 1, 100_000):
        assert seconds(read_json, written(tmp_path, nested(depth)), "nested too deeply") < 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[NaN]", "holds NaN"),
        ("[-Infinity]", "holds -Infinity"),
        ("[1e999]", "beyond the numbers"),
        ("[" + "9" * 1_000_000 + "]", "is not JSON"),
        ('{"a": 1, "b": {"x": 1, "x": 2}}', "the name 'x' is given twice"),
        ('["\\ud800"]', "surrogates not allowed"),
        (b'["\xff"]', "is no text: byte 2 is 0xff"),
        ('"' + "x" * 1000 + "\\", "is not JSON"),
        ("\\" * 1000, "is not JSON"),
    ],
)
def test_what_is_no_json(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert seconds(read_json, written(tmp_path, content), said) < 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = " + "{b=" * 100_000, "nested too deeply"),
        ("a" + ".a" * 100_000 + " = 1", "a key of too many parts"),
        ("[" + "a." * 100_000 + "a]", "a key of too many parts"),
        ('"a"' + ' . "a"' * 100_000 + " = 1", "a key of too many parts"),
        ("a = " + "9" * 1_000_000, "is not a TOML file"),
        ("[t]\na = 0x" + "f" * 100_000, "'t', 'a' is an integer of 400000 bits"),
        ("a = [inf]", "'a' is inf"),
        ("a = 1979-05-27", "'a' is a date"),
        ('a = "' + "x" * 5000 + '"', "'a' has 5,000 characters"),
        ('\\"' * 200_000, "is not a TOML file"),
        ("'''" * 99_999, "is not a TOML file"),
        ("a = 1\na = 2", "is not a TOML file"),
        (b"a = '\xff'", "is no text: byte 5 is 0xff"),
    ],
)
def test_what_is_no_toml(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert seconds(read_toml, written(tmp_path, content), said) < 3


def test_brackets_and_dots_in_toml_texts_and_comments_are_no_structure(tmp_path: Path) -> None:
    many = "[{" * 100 + "a." * 100
    text = f'# {many}\na = "{many}" # {many}\nb = \'{many}\'\nc = """\n"{many}"""\nd = \'\'\'{many}\'\'\'\n'
    found = read_toml(written(tmp_path, text), "test file", LIMIT)
    assert found == {"a": many, "b": many, "c": f'"{many}', "d": many}


def test_csv_and_text(tmp_path: Path) -> None:
    path = written(tmp_path, 'a,"b ""c"""\n1,ü\n')
    assert read_csv(path, "test file", LIMIT) == [["a", 'b "c"'], ["1", "ü"]]
    assert read_text(path, "test file", LIMIT).endswith("ü\n")
    with pytest.raises(InputError, match="is not a table"):
        read_csv(written(tmp_path, '"a'), "test file", LIMIT)
    with pytest.raises(InputError, match="is too large"):
        read_text(path, "test file", 1)
