"""A build's progress on the terminal: one line per finished stage, a bar for the running one."""

from __future__ import annotations

from types import TracebackType

import rich.console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from qhw.errors import printable
from qhw.pipeline.stages import Outcome

_MARKS = {
    "done": "[green]✓[/green]",
    "skipped": "[dim]–[/dim]",
    "edited": "[yellow]![/yellow]",
    "failed": "[red]✗[/red]",
    "interrupted": "[yellow]■[/yellow]",
}
_REMARKS = {"skipped": "unchanged", "edited": "unchanged, but its files were edited by hand"}


def _plain(text: str) -> str:
    """A text that names of a model may be in, with nothing of it read as markup."""
    return escape(printable(text))


class LiveProgress:
    """An observer of :func:`qhw.pipeline.stages.run_stages`; use it as a context manager."""

    def __init__(self, console: rich.console.Console):
        self._console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[text]}[/dim]"),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None
        self._told = ""

    def __enter__(self) -> LiveProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars.live.is_started:
            self._bars.stop()

    def started(self, name: str) -> None:
        """A new bar."""
        self._bars.start()
        self._task = self._bars.add_task(name, total=None, text="")

    def progress(self, fraction: float | None, text: str) -> None:
        """Move the bar."""
        if not self._console.is_terminal:
            if fraction is not None:
                self._tell(text)
        elif self._task is not None:
            total = None if fraction is None else 1.0
            self._bars.update(self._task, total=total, completed=fraction or 0.0, text=_plain(text))

    def _tell(self, text: str) -> None:
        """Into a file or a pipe: a line where the text's first part is a new one, as with each epoch."""
        part = text.partition(", loss")[0]
        if part != self._told:
            self._told = part
            self._console.print(f"  {text}", highlight=False, markup=False)

    def finished(self, outcome: Outcome) -> None:
        """Replace the bar by a line."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        remark = _REMARKS.get(outcome.status) or _plain(str(outcome.facts.get("summary", "")))
        self._console.print(
            f"{_MARKS[outcome.status]} {outcome.name:<9} {outcome.seconds:6.1f} s  [dim]{remark}[/dim]",
            highlight=False,
        )
