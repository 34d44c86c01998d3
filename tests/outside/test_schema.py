"""Types of what was read: the field that is wrong is named, and lists are looked at as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest

from qhw.errors import InputError
from qhw.outside.schema import by_name, check, of_fields, of_type, table


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Part:
    name: str
    sizes: tuple[int, ...]
    words: tuple[str, ...]
    colour: Colour
    scale: float = 1.0
    limit: int | None = None
    nested: tuple[tuple[int, ...], ...] = field(default=())
    on: bool = False


GOOD: dict[str, Any] = {"name": "a", "sizes": [1, 2], "words": ["x"], "colour": "red"}
WHOLE = GOOD | {"scale": 2, "limit": None, "nested": [[1], []], "on": True}


@pytest.mark.parametrize("value", [GOOD, WHOLE])
def test_what_a_dataclass_takes(value: dict[str, Any]) -> None:
    check(value, of_fields(Part), "file")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 1}, r"file, at \$\.name: 1 is not of type 'string'"),
        ({"sizes": [1, True]}, r"\$\.sizes: \[1, True\] is not of type 'integers'"),
        ({"sizes": [1.0]}, r"\$\.sizes"),
        ({"sizes": 1}, r"\$\.sizes"),
        ({"words": ["a", 1]}, r"\$\.words"),
        ({"colour": "blue"}, r"\$\.colour: 'blue' is not one of \['red'\]"),
        ({"scale": True}, r"\$\.scale"),
        ({"limit": 1.0}, r"\$\.limit"),
        ({"nested": [[1], ["a"]]}, r"\$\.nested\[1\]"),
        ({"on": 1}, r"\$\.on"),
        ({"other": 1}, r"file, at \$: .*'other' was unexpected"),
        ({"name": "y" * 10_000, "sizes": "z" * 10_000}, r"\$\.sizes: 'zzz.* … .*zzz' is not of type"),
    ],
)
def test_what_it_does_not_take(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        check(GOOD | change, of_fields(Part), "file", "to do")
    assert len(str(caught.value)) < 500
    assert caught.value.hint == "to do"


def test_what_is_missing_and_what_stands_in_its_place() -> None:
    schema = of_fields(Part, sizes={"type": "string"})
    check(GOOD | {"sizes": "3x3"}, schema, "file")
    with pytest.raises(InputError, match="'colour' is a required property"):
        check({"name": "a", "sizes": "", "words": []}, schema, "file")


def test_names_that_are_free() -> None:
    schema = by_name(table({"a": {"type": "integer"}}))
    check({"x": {"a": 1}, "y [0]": {"a": 2}}, schema, "file")
    with pytest.raises(InputError, match=r"y \[0\]"):
        check({"x": {"a": 1}, "y [0]": {"a": 2.0}}, schema, "file")


def test_a_type_without_a_schema_is_a_fault_of_the_caller() -> None:
    with pytest.raises(TypeError, match="has no schema"):
        of_type(complex)
