"""Boards: what an FPGA board offers, read from one TOML file each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from qhw.errors import InputError, closest
from qhw.resources import resource_dir

FAMILIES = ("7series", "ultrascale-plus")
"""Device families that a cost model can speak about."""

RESOURCES = ("lut", "ff", "dsp", "bram18", "uram")
"""What a design uses of a board, in the order of every table."""

_LARGEST_FILE = 1 << 16
_LARGEST_NUMBER = 10**9


@dataclass(frozen=True)
class Board:
    """A board and its resources, all of the device (no shell or overlay taken off).

    Units: LUT and FF are counts, DSP is DSP48 slices, BRAM18 is blocks of 18 Kb, URAM blocks of 288 Kb.
    ``clock_mhz`` is the clock that a project targets unless told otherwise; ``dram_mib`` the memory
    beside the device. ``sources`` names the document behind each field.
    """

    name: str
    title: str
    part: str
    family: str
    lut: int
    ff: int
    dsp: int
    bram18: int
    uram: int = 0
    clock_mhz: float = 200.0
    dram_mib: int = 0
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def resources(self) -> dict[str, int]:
        """The counts of ``RESOURCES``, by name."""
        return {name: getattr(self, name) for name in RESOURCES}

    @property
    def clock_period_ns(self) -> float:
        """The period of the target clock."""
        return 1e3 / self.clock_mhz


def list_boards() -> tuple[str, ...]:
    """Names of the boards that come with the package."""
    return tuple(sorted(path.stem for path in resource_dir("boards").glob("*.toml")))


def load_board(name_or_path: str | Path) -> Board:
    """A board by its name, or a user's own TOML by its path.

    A file with ``based_on = "ultra96"`` takes over what it does not state itself.
    Raises InputError naming the file and field, or offering the closest known names.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        return _read(Path(name_or_path))
    return _by_name(text)


def _by_name(name: str) -> Board:
    known = list_boards()
    if name.lower() not in known:
        raise InputError(
            f"There is no board {name!r}",
            allowed=", ".join(known) + "; or the path of a TOML file",
            hint=closest(name.lower(), known),
        )
    return _read(resource_dir("boards") / f"{name.lower()}.toml")


def _read(path: Path) -> Board:
    given = _toml(path)
    base = given.pop("based_on", None)
    if base is not None:
        if not isinstance(base, str):
            raise InputError(f"{path}: based_on must be the name of a board, not {base!r}")
        given = _taken_over(_by_name(base), given) | given
    return _board(path, {"name": path.stem, "title": path.stem} | given)


def _taken_over(board: Board, given: Mapping[str, Any]) -> dict[str, Any]:
    own = {"name", "title", *given}
    taken = {item.name: getattr(board, item.name) for item in fields(Board) if item.name not in own}
    if "sources" in taken:
        taken["sources"] = {key: text for key, text in board.sources.items() if key not in own}
    return taken


def _toml(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _LARGEST_FILE else b""
    except OSError as error:
        raise InputError(
            f"Cannot read the board file {path}: {error.strerror}", hint="see the known boards: qhw boards"
        ) from error
    if size > _LARGEST_FILE:
        raise InputError(f"{path} has {size} bytes", allowed=f"a board file of at most {_LARGEST_FILE} bytes")
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a TOML file: {error}") from error


def _board(path: Path, given: dict[str, Any]) -> Board:
    known = {item.name: item for item in fields(Board)}
    for key in given:
        if key not in known:
            raise InputError(
                f"{path}: unknown field {key!r}",
                allowed=", ".join([*known, "based_on"]),
                hint=closest(key, known),
            )
    missing = [
        name
        for name, item in known.items()
        if item.default is MISSING and item.default_factory is MISSING and name not in given
    ]
    if missing:
        raise InputError(
            f"{path}: missing field {', '.join(missing)}",
            hint='state it, or start from a known board: based_on = "ultra96"',
        )
    return Board(**{key: _checked(path, key, value) for key, value in given.items()})


def _checked(path: Path, key: str, value: Any) -> Any:
    if key == "sources":
        if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
            raise InputError(f"{path}: [sources] must map fields to texts")
        return dict(value)
    if key in ("name", "title", "part", "family"):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{path}: {key} must be a text, not {value!r}")
        if key == "family" and value not in FAMILIES:
            raise InputError(f"{path}: unknown family {value!r}", allowed=", ".join(FAMILIES))
        return value
    whole = key != "clock_mhz"
    kind = "a whole number" if whole else "a number"
    right_type = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not right_type or not (0 if whole else 1) <= value <= _LARGEST_NUMBER:
        low = "0" if whole else "1"
        raise InputError(f"{path}: {key} must be {kind} from {low} to {_LARGEST_NUMBER}, not {value!r}")
    return value if whole else float(value)
