"""What a model of the zoo is: where it comes from, what it is, and how its file is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["CNN", "MLP", "float", "other"]
"""A quantised convolutional or fully connected network; a file without any quantiser; anything else."""

Make = Callable[[Path], Path]
"""Writes a model's file into a folder, or names the file where it lies."""


@dataclass(frozen=True)
class Entry:
    """A model.

    Args:
        name: unique, ``group/model``.
        kind: what it is counted as.
        make: None where there is no file to be had; ``note`` then says why.
        image: its inputs are images (smooth ones are made), 8-bit integers or integers over 255.
        samples: how many inputs are compared.
        exported: its file is written by qhw itself, so a kept one says nothing about today's qhw.
        data: the data set that it was trained on, whose test samples it is compared on; "": made-up inputs.
        note: what a reader of the table has to know.
    """

    name: str
    kind: Kind
    make: Make | None
    image: bool = False
    samples: int = 4
    note: str = ""
    exported: bool = False
    data: str = ""

    @property
    def group(self) -> str:
        """Where it comes from."""
        return self.name.split("/")[0]


class AbsentError(Exception):
    """A model cannot be had here: a package or a download is missing."""
