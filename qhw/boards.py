"""Boards: what a target offers, an FPGA board or a microcontroller, read from one TOML file each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from qhw.devices import Family, Kind, families, family_named
from qhw.errors import InputError, closest
from qhw.outside import shown
from qhw.outside.text import read_toml
from qhw.resources import resource_dir

KINDS: tuple[Kind, ...] = get_args(Kind)
"""The kinds of board; a file that states none is an FPGA board."""

_TEXTS = ("name", "title", "part", "family")
_LONGEST_TEXT = 80
_IDENTIFIER = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+-]{{0,{_LONGEST_TEXT - 1}}}")
_LARGEST_FILE = 1 << 16
_LARGEST_NUMBER = 10**9
_DEFAULT_CLOCK_MHZ = 200.0
_LARGEST_CLOCK_MHZ = 2000


@dataclass(frozen=True)
class Board:
    """A target and its resources: the whole device's, no shell or overlay taken off.

    Args:
        name, title: the short name, and the one in tables.
        part: the device's name in its vendor's tools.
        family: the device family; it lists the resources that are counted.
        capacity: the device's amount of each of the family's resources, by name.
        clock_mhz: a project's default clock.
        dram_mib: the memory beside the device.
        vivado_board: the name in Vivado's board files of a board whose device has a processing system (Zynq);
            empty elsewhere.
        sources: the document behind each field.
    """

    name: str
    title: str
    part: str
    family: str
    capacity: Mapping[str, int]
    clock_mhz: float = _DEFAULT_CLOCK_MHZ
    dram_mib: int = 0
    vivado_board: str = ""
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def kind(self) -> Kind:
        """The kind of its device family: ``fpga`` or ``microcontroller``."""
        return self.device.kind

    @property
    def device(self) -> Family:
        """The family of its device."""
        return family_named(self.family)

    @property
    def clock_period_ns(self) -> float:
        """The period of the target clock."""
        return 1e3 / self.clock_mhz

    def amounts(self, names: Iterable[str]) -> dict[str, int]:
        """How much it has of some resources; 0 of what its family has not."""
        return {name: self.capacity.get(name, 0) for name in names}

    def at_clock(self, clock_mhz: float) -> Board:
        """The same board with another clock; raises InputError for one that no device has."""
        if not 1 <= clock_mhz <= _LARGEST_CLOCK_MHZ:
            raise InputError(f"the clock is {clock_mhz} MHz", allowed=f"1 to {_LARGEST_CLOCK_MHZ} MHz")
        return replace(self, clock_mhz=float(clock_mhz))

    def having(self, **capacity: int) -> Board:
        """The same board with other amounts of some resources."""
        return replace(self, capacity={**self.capacity, **capacity})


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
    given = read_toml(path, "board file", _LARGEST_FILE, hint="see the known boards: qhw boards")
    base = given.pop("based_on", None)
    if base is not None:
        if not isinstance(base, str):
            raise InputError(f"{path}: based_on must be the name of a board, not {shown(base)}")
        given = _taken_over(_by_name(base), given) | given
    return _board(path, {"name": path.stem, "title": path.stem} | given)


def _taken_over(board: Board, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a known board that a file does not state itself."""
    known = {
        "kind": board.kind,
        "part": board.part,
        "family": board.family,
        **board.capacity,
        "clock_mhz": board.clock_mhz,
        "dram_mib": board.dram_mib,
    }
    if board.vivado_board and "part" not in given:
        known["vivado_board"] = board.vivado_board
    own = {"name", "title", *given}
    sources = {key: text for key, text in board.sources.items() if key not in own}
    return {key: value for key, value in known.items() if key not in own} | {"sources": sources}


def _board(path: Path, given: dict[str, Any]) -> Board:
    family = _family(path, given)
    resources = {resource.name: resource for resource in family.resources}
    known = ("kind", *_TEXTS, *resources, "clock_mhz", "dram_mib", "vivado_board", "sources")
    for key in given:
        if key not in known:
            raise InputError(
                f"{path}: unknown field {shown(key)} of a board with {family.title}",
                allowed=", ".join([*known, "based_on"]),
                hint=closest(key, known),
            )
    needed = [*_TEXTS, *(name for name, resource in resources.items() if not resource.optional)]
    if missing := [name for name in needed if name not in given]:
        raise _missing(path, missing)
    return Board(
        **{key: _text(path, key, given[key]) for key in _TEXTS},
        capacity={name: _whole(path, name, given.get(name, 0)) for name in resources},
        clock_mhz=_clock(path, given.get("clock_mhz", _DEFAULT_CLOCK_MHZ)),
        dram_mib=_whole(path, "dram_mib", given.get("dram_mib", 0)),
        vivado_board=_text(path, "vivado_board", given["vivado_board"]) if "vivado_board" in given else "",
        sources=_sources(path, given.get("sources", {})),
    )


def _missing(path: Path, fields: Iterable[str]) -> InputError:
    return InputError(
        f"{path}: missing field {', '.join(fields)}",
        hint='state it, or start from a known board: based_on = "ultra96"',
    )


def _family(path: Path, given: Mapping[str, Any]) -> Family:
    """The family that a file names; it must be one of the file's kind, and says which fields there are."""
    kind = given.get("kind", KINDS[0])
    if kind not in KINDS:
        raise InputError(
            f"{path}: unknown kind {shown(kind)}", allowed=", ".join(KINDS), hint=closest(str(kind), KINDS)
        )
    if "family" not in given:
        resources = [] if kind != KINDS[0] else ["lut", "ff", "dsp", "bram18"]
        raise _missing(path, (name for name in [*_TEXTS, *resources] if name not in given))
    name = _text(path, "family", given["family"])
    known = {family.name: family for family in families()}
    allowed = [family.name for family in known.values() if family.kind == kind]
    if name not in allowed:
        hint = f'state kind = "{known[name].kind}"' if name in known else closest(name, allowed)
        what = f"{path}: {shown(name)} is not a family of kind {kind!r}" if name in known else None
        raise InputError(
            what or f"{path}: unknown family {shown(name)}", allowed=", ".join(allowed), hint=hint
        )
    return known[name]


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{path}: {key} must be a text, not {shown(value)}")
    is_title = key == "title"
    right = value.isprintable() and len(value) <= _LONGEST_TEXT if is_title else _IDENTIFIER.fullmatch(value)
    if not right:
        # The name becomes a folder's name; the part is written into scripts for the vendor's tools.
        allowed = "printable characters" if is_title else "letters, digits, '.', '_', '+' and '-'"
        raise InputError(f"{path}: {key} is {shown(value)}", allowed=f"{allowed}, at most {_LONGEST_TEXT}")
    return value


def _whole(path: Path, key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_NUMBER:
        raise InputError(
            f"{path}: {key} must be a whole number from 0 to {_LARGEST_NUMBER}, not {shown(value)}"
        )
    return value


def _clock(path: Path, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= _LARGEST_NUMBER:
        raise InputError(
            f"{path}: clock_mhz must be a number from 1 to {_LARGEST_NUMBER}, not {shown(value)}"
        )
    return float(value)


def _sources(path: Path, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InputError(f"{path}: sources is {shown(value)}", allowed="a table of texts")
    for key, text in value.items():
        if not (isinstance(text, str) and text.isprintable() and key.isprintable()):
            raise InputError(
                f"{path}: sources, {shown(key)} is {shown(text)}", allowed="texts of printable characters"
            )
    return dict(value)
