"""Compiled simulations in project folders: used again only where this user's seal vouches for them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qhw import vouched
from qhw.errors import InputError
from qhw.outside import inside
from qhw.outside.text import read_json

_LARGEST_SEAL = 1 << 16


@dataclass(frozen=True)
class SealedProgram:
    """A program in a project's folder, with its seal beside it.

    Args:
        folder: the project's.
        path: the program's, relative to the folder.
        purpose: the seal's, so that no other program's fits.
        sources: every file that the compiler may read, relative to the folder.
        flags: of what compiles it.
    """

    folder: Path
    path: str
    purpose: str
    sources: Sequence[str]
    flags: Sequence[str]

    @property
    def file(self) -> Path:
        """The program; raises InputError where its path leaves the folder."""
        return inside(self.folder.absolute(), self.path)

    @property
    def seal_file(self) -> Path:
        """Its seal, and the version of its compiler."""
        return inside(self.folder, (Path(self.path).parent / "seal.json").as_posix())

    @cached_property
    def sources_hash(self) -> str:
        """SHA-256 over the flags, and every source's name and bytes."""
        digest = hashlib.sha256(" ".join(self.flags).encode())
        for name in self.sources:
            digest.update(f"\0{name}\0{_digest(self.folder / name)}".encode())
        return digest.hexdigest()

    def is_vouched_for(self, version: str) -> bool:
        """Whether this user compiled that program from these sources, and nothing changed it since.

        Args:
            version: the compiler's; where there is none, any version is good.
        """
        try:
            told = read_json(self.seal_file, "seal of a program", _LARGEST_SEAL)
            program = self.file
            by_this = told["compiler"] == version or not version
            content = (self.sources_hash, told["compiler"], _digest(program))
            runs = by_this and os.access(program, os.X_OK)
            return runs and vouched.vouches(told["seal"], self.purpose, *content)
        except (OSError, InputError, ValueError, TypeError, KeyError):
            return False

    def keep(self, built: Path, version: str) -> None:
        """Put a program that was just compiled in its place, and seal it.

        Args:
            built: the program, in a scratch folder on the same file system.
            version: the compiler's.
        """
        seal = vouched.seal(self.purpose, self.sources_hash, version, _digest(built))
        scratch = built.with_name("seal")
        scratch.write_text(json.dumps({"compiler": version, "seal": seal}))
        built.replace(self.file)
        scratch.replace(self.seal_file)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
