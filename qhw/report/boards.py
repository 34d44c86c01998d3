"""Boards as tables and JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from qhw.boards import KINDS, Board, list_boards, load_board
from qhw.devices import Kind
from qhw.report.tables import Table


def boards_json(name: str | None) -> dict[str, Any]:
    """Every board, or one, with all fields."""
    if name is not None:
        return _fields(load_board(name))
    return {"boards": [_fields(load_board(known)) for known in list_boards()]}


def boards_tables(name: str | None) -> list[Table]:
    """A table of the boards, or one board with the sources of its numbers."""
    return [_one(load_board(name))] if name is not None else _tables()


def _fields(board: Board) -> dict[str, Any]:
    """The board's fields as in its file."""
    fields = {key: value for key, value in asdict(board).items() if key not in ("capacity", "sources")}
    if not board.vivado_board:
        del fields["vivado_board"]
    return {"kind": board.kind} | fields | dict(board.capacity) | {"sources": dict(board.sources)}


def _tables() -> list[Table]:
    """A table for each kind of board."""
    boards = [load_board(name) for name in list_boards()]
    kinds = [kind for kind in KINDS if any(board.kind == kind for board in boards)]
    return [_all(kind, [board for board in boards if board.kind == kind]) for kind in kinds]


def _all(kind: Kind, boards: list[Board]) -> Table:
    resources = {r.name: r for board in boards for r in board.device.resources}
    rows = tuple(
        (b.name, b.title, b.part, *(b.capacity.get(name) for name in resources), int(b.clock_mhz))
        for b in boards
    )
    columns = ("name", "board", "part", *(r.title for r in resources.values()), "MHz")
    note = "'qhw boards NAME' tells where each number comes from"
    spare = ("board", *(r.title for r in resources.values() if r.optional))
    titles = {"fpga": "FPGA boards", "microcontroller": "Microcontrollers (no flow builds for them yet)"}
    return Table(titles[kind], columns, rows, note, spare=spare)


def _one(board: Board) -> Table:
    values = {key: value for key, value in _fields(board).items() if key != "sources"}
    rows = tuple(
        (name, str(value) if isinstance(value, str) else f"{value:,}", board.sources.get(name, ""))
        for name, value in values.items()
    )
    return Table(board.title, ("field", "value", "source"), rows)
