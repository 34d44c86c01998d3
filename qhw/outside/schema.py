"""Types of what was read, by JSON Schema: the first field that is wrong is named.

The schemas of qhw's own files have two more types, which look at a whole list at once: ``integers`` and
``texts``. An integer is written as one: 1.0 is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from qhw.errors import InputError

Schema = Mapping[str, Any]

_SHOWN = 300


def table(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The schema of a JSON object with these fields and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


def by_name(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a JSON object whose names are free."""
    return {"type": "object", "additionalProperties": schema}


def of_fields(kind: type, **instead: Any) -> dict[str, Any]:
    """The schema of a JSON object with a dataclass's fields: types as it annotates them, tuples as lists.

    Args:
        instead: schemas of fields, in place of what their annotations say.
    """
    hints = get_type_hints(kind)
    parts = {item.name: instead.get(item.name) or of_type(hints[item.name]) for item in fields(kind)}
    needed = {item.name for item in fields(kind) if item.default is MISSING is item.default_factory}
    return table(
        {name: part for name, part in parts.items() if name in needed},
        {name: part for name, part in parts.items() if name not in needed},
    )


def of_type(kind: Any) -> dict[str, Any]:
    """The schema of an annotated type: plain ones, enumerations, tuples of one type, and what may be None."""
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    origin, parts = get_origin(kind), get_args(kind)
    if origin is tuple and parts[1:] == (...,):
        return {"type": "array", "items": of_type(parts[0])}
    if origin is UnionType and parts[1:] == (NoneType,):
        return {"anyOf": [of_type(parts[0]), {"type": "null"}]}
    raise TypeError(f"{kind} has no schema")


_PLAIN: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    tuple[int, ...]: "integers",
    tuple[str, ...]: "texts",
}


def check(value: Any, schema: Schema, where: str, hint: str | None = None) -> None:
    """Check a value read from a file.

    Args:
        where: the file, as the beginning of a message.

    Raises:
        InputError: names the field that is wrong.
    """
    from jsonschema.exceptions import best_match

    problem = best_match(_validator()(schema).iter_errors(value))
    if problem is not None:
        said = problem.message
        said = said if len(said) <= _SHOWN else f"{said[: _SHOWN // 2]} … {said[-_SHOWN // 2 :]}"
        raise InputError(f"{where}, at {problem.json_path[:_SHOWN]}: {said}", hint=hint)


@cache
def _validator() -> Any:
    """A validator that knows the types of whole lists."""
    from jsonschema import Draft202012Validator, validators

    def is_integer(_: Any, value: Any) -> bool:
        return type(value) is int

    def list_of(kind: type) -> Any:
        return lambda _, value: isinstance(value, list) and all(type(part) is kind for part in value)

    types = {"integer": is_integer, "integers": list_of(int), "texts": list_of(str)}
    checker = Draft202012Validator.TYPE_CHECKER.redefine_many(types)
    return validators.extend(Draft202012Validator, type_checker=checker)
