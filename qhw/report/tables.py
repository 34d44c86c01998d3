"""Tables that a terminal and a notebook both show."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qhw.errors import printable

if TYPE_CHECKING:
    import rich.console
    import rich.table

Cell = str | int | float | None

TEXT_WIDTH = 110
"""Columns of tables as plain text."""


@dataclass(frozen=True)
class Table:
    """Rows under column titles; numbers are aligned right, None is an empty cell.

    Args:
        title: shown above.
        columns: one title per column.
        rows: the rows, one cell per column.
        note: a line below: what kind of figures these are.
        spare: titles of columns that a terminal too narrow for the whole table does without.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    spare: tuple[str, ...] = ()

    def to_rich(self, width: int = TEXT_WIDTH) -> rich.table.Table:
        """The rows alone, for ``rich.console.Console.print`` on a console of that width.

        On a narrow one texts wrap at their spaces, then columns move closer, then spare columns go; numbers
        and names are broken only where that does not suffice.
        """
        import rich.box
        import rich.markup
        import rich.table

        shown = self if self._narrowest() <= width else self._without_spare()
        gap = 1 if shown._narrowest(1) <= width else 0
        fits = shown._narrowest(gap) <= width
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_header=any(shown.columns), padding=(0, gap))
        for index, (column, is_number) in enumerate(zip(shown.columns, shown._numeric(), strict=True)):
            whole = fits and shown._least(index) == shown._most(index)
            side: Literal["left", "right"] = "right" if is_number else "left"
            table.add_column(column, justify=side, overflow="fold", no_wrap=whole)
        for row in shown.rows:
            table.add_row(*(rich.markup.escape(cell_text(cell)) for cell in row))
        return table

    def _narrowest(self, gap: int = 0) -> int:
        """Characters of a line if texts are wrapped at every space, with ``gap`` more between columns."""
        count = len(self.columns)
        return sum(map(self._least, range(count))) + (2 * gap + 1) * count + 1

    def _least(self, index: int) -> int:
        """The longest word of a column."""
        return max((len(word) for text in self._texts(index) for word in text.split()), default=0)

    def _most(self, index: int) -> int:
        return max(map(len, self._texts(index)))

    def _texts(self, index: int) -> list[str]:
        return [self.columns[index], *(cell_text(row[index]) for row in self.rows)]

    def _without_spare(self) -> Table:
        kept = [index for index, column in enumerate(self.columns) if column not in self.spare]
        rows = tuple(tuple(row[index] for index in kept) for row in self.rows)
        return Table(self.title, tuple(self.columns[index] for index in kept), rows, self.note)

    def to_html(self) -> str:
        """An HTML table; every text is escaped."""
        numeric = self._numeric()
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "".join(f"<tr>{_html_cells(row, numeric)}</tr>" for row in self.rows)
        note = f"<p><small>{html.escape(self.note)}</small></p>" if self.note else ""
        caption = f"<caption><b>{html.escape(self.title)}</b></caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"

    def _numeric(self) -> list[bool]:
        return [
            all(isinstance(row[index], int | float | None) for row in self.rows)
            for index in range(len(self.columns))
        ]


class Shown:
    """Something that presents itself as tables, in a notebook and as text (mixed into the result objects)."""

    def tables(self) -> Sequence[Table]:
        """The tables that present this result."""
        return ()

    def __repr__(self) -> str:
        return tables_text(self.tables())

    def _repr_html_(self) -> str:
        return tables_html(self.tables())


def print_tables(console: rich.console.Console, tables: Iterable[Table]) -> None:
    """Tables on a console: title, rows, note, one below the other."""
    for table in tables:
        console.print(printable(table.title), style="bold", markup=False, highlight=False, soft_wrap=True)
        console.print(table.to_rich(console.width))
        if table.note:
            console.print(printable(table.note), style="dim", markup=False, highlight=False, end="\n\n")


def tables_text(tables: Iterable[Table]) -> str:
    """Several tables as plain text, one below the other."""
    import rich.console

    file = io.StringIO()
    console = rich.console.Console(
        file=file, width=TEXT_WIDTH, color_system=None, force_terminal=False, force_jupyter=False
    )
    print_tables(console, tables)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")


def tables_html(tables: Iterable[Table]) -> str:
    """Several tables, one below the other."""
    return "\n".join(table.to_html() for table in tables)


def size_text(count: float) -> str:
    """How many points a space has: 3,472, but 8.5e+18."""
    return f"{count:,.0f}" if count < 10_000_000 else f"{count:.3g}"


def cell_text(cell: Cell) -> str:
    """A cell as text: thousands separated, floats with four significant digits."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return printable(cell)


def _html_cells(row: tuple[Cell, ...], numeric: Sequence[bool]) -> str:
    styles = (' style="text-align:right"' if is_number else "" for is_number in numeric)
    return "".join(
        f"<td{style}>{html.escape(cell_text(cell))}</td>" for style, cell in zip(styles, row, strict=True)
    )
