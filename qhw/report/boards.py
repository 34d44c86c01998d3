"""Boards as tables and JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from qhw.boards import Board, list_boards, load_board
from qhw.report.tables import Table


def boards_json(name: str | None) -> dict[str, Any]:
    """Every board, or one, with all fields."""
    if name is not None:
        return _fields(load_board(name))
    return {"boards": [_fields(load_board(known)) for known in list_boards()]}


def boards_tables(name: str | None) -> list[Table]:
    """A table of the boards, or one board with the sources of its numbers."""
    return [_one(load_board(name))] if name is not None else [_all()]


def _fields(board: Board) -> dict[str, Any]:
    return asdict(board) | {"sources": dict(board.sources)}


def _all() -> Table:
    boards = [load_board(name) for name in list_boards()]
    rows = tuple(
        (b.name, b.title, b.part, b.lut, b.ff, b.dsp, b.bram18, b.uram, int(b.clock_mhz)) for b in boards
    )
    columns = ("name", "board", "part", "LUT", "FF", "DSP", "BRAM18", "URAM", "MHz")
    note = "'qhw boards NAME' tells where each number comes from"
    return Table("Boards", columns, rows, note, spare=("board", "URAM"))


def _one(board: Board) -> Table:
    values = {key: value for key, value in _fields(board).items() if key != "sources"}
    rows = tuple(
        (name, str(value) if isinstance(value, str) else f"{value:,}", board.sources.get(name, ""))
        for name, value in values.items()
    )
    return Table(board.title, ("field", "value", "source"), rows)
