"""Project folders are written whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_beside(out: Path) -> Iterator[Path]:
    """An empty folder beside ``out``, which takes its place in the end.

    What is raised meanwhile, Ctrl-C too, passes on: ``out`` then stays as it was, and the other folder goes.
    """
    beside = out.with_name(out.name + ".partial")
    if beside.exists():
        shutil.rmtree(beside)
    beside.mkdir(parents=True)
    try:
        yield beside
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    if out.exists():
        shutil.rmtree(out)
    beside.rename(out)
