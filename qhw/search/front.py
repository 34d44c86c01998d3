"""``front.json``: the points of a search that none beats, what each costs, and the command that builds it.

``front.schema.json``, beside this file, documents every key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from qhw.errors import InputError
from qhw.outside import inside, sha256
from qhw.outside.schema import check
from qhw.outside.text import read_json
from qhw.pipeline.stages import write_atomically

SCHEMA_VERSION = 1
FILE_NAME = "front.json"
POINTS = "points"
"""The folder of the points' models."""

_LARGEST_FILE = 1 << 24
_LARGEST_MODEL = 1 << 30

Front = dict[str, Any]
"""The JSON document, as ``front.schema.json`` says."""


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of front.json."""
    text = (files("qhw.search") / "front.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def write(front: Front, folder: Path) -> Path:
    """Check a front against its schema, and write it, all or nothing."""
    check(front, schema(), FILE_NAME)
    write_atomically(folder / FILE_NAME, json.dumps(front, indent=2) + "\n")
    return folder / FILE_NAME


def read(path: Path) -> Front:
    """A front that ``qhw search`` wrote.

    Raises:
        InputError: the file cannot be read, or is no such file; the field is named.
    """
    where = path / FILE_NAME if path.is_dir() else path
    found = read_json(where, "front", _LARGEST_FILE, hint="give the front.json that qhw search wrote")
    check(found, schema(), str(where), hint="give the front.json that qhw search wrote")
    assert isinstance(found, dict)
    return found


def find_design(text: str) -> tuple[Path, int]:
    """``FRONT.json#3`` as the file and the number; raises InputError for anything else."""
    place, mark, number = text.rpartition("#")
    if not (mark and place and number.isascii() and number.isdigit()):
        raise InputError(
            f"The design {text!r} is not a front with a number",
            allowed="FRONT.json#NUMBER, as in front.json#3",
        )
    return Path(place), int(number)


def build_options(text: str) -> dict[str, Any]:
    """The options of ``qhw build`` that a point of a front stands for.

    Args:
        text: ``FRONT.json#3``.

    Raises:
        InputError: there is no such file or point, or the point's model is not what was written.
    """
    path, number = find_design(text)
    front = read(path)
    folder = path if path.is_dir() else path.parent
    point = point_of(front, number, path)
    model = inside(folder, point["model"])
    if sha256(model, "model of the point", _LARGEST_MODEL) != point["sha256"]:
        raise InputError(
            f"{model} is not what qhw search wrote for point {number}", hint="run the same qhw search again"
        )
    said: Mapping[str, Any] = front["build"]
    options = {name: value for name, value in said.items() if value not in (None, "", [])}
    flow_options = options.pop("flow_options", {})
    return {**options, **flow_options, "model": str(model)}


def point_of(front: Front, number: int, path: Path) -> dict[str, Any]:
    """A point by its number; raises InputError where there is none."""
    for point in front["points"]:
        if point["number"] == number:
            found: dict[str, Any] = point
            return found
    numbers = [point["number"] for point in front["points"]]
    allowed = f"1 to {max(numbers)}" if numbers else "none: the front is empty"
    raise InputError(f"{path} has no point {number}", allowed=allowed)
