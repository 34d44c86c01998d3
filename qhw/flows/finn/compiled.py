"""Compiled simulations of FINN layers, kept in the user's cache; equal sources share a program."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qhw import vouched
from qhw.errors import CheckFailedError, InputError, QhwError, ToolMissingError
from qhw.native import cache_folder, compiler_version, told_by
from qhw.outside import sha256
from qhw.outside.text import read_json

COMPILE_SECONDS = 900.0
_LARGEST_PROGRAM = 1 << 30
_PURPOSE = "finn program"


def default_cache() -> Path:
    """Where programs are kept: beside qhw's other compiled code."""
    return cache_folder() / "finn"


@dataclass(frozen=True)
class Programs:
    """Programs in a folder, each under the hash of all that it is made from.

    Args:
        folder: is made; what lies in it is trusted where it carries this user's seal.
    """

    folder: Path
    _locks: dict[str, threading.Lock] = field(default_factory=dict, repr=False, compare=False)

    def get(self, texts: Mapping[str, str], tools: Iterable[str], build: Callable[[Path], None]) -> Path:
        """The program that ``build`` makes of some texts, from the cache where it was made before.

        Args:
            texts: every file that the program is made from, by its name.
            tools: versions and flags of what makes it.
            build: gets a folder that holds the texts, and writes ``program`` into it.

        Raises ToolMissingError where the folder cannot be written; and what ``build`` raises.
        """
        key = hashlib.sha256(json.dumps([sorted(texts.items()), list(tools)]).encode()).hexdigest()[:20]
        with self._locks.setdefault(key, threading.Lock()):
            place = self.folder / key
            try:
                if not self._is_vouched_for(place):
                    self._make(place, texts, build)
            except OSError as error:
                raise ToolMissingError(
                    f"no simulation can be compiled in {self.folder}: {error.strerror or error}",
                    hint="set XDG_CACHE_HOME to a folder that can be written",
                ) from error
        return place / "program"

    def _is_vouched_for(self, place: Path) -> bool:
        try:
            told = read_json(place / "seal.json", "seal of a program", 1 << 16)
            digest = _digest(place / "program")
            runs = os.access(place / "program", os.X_OK)
            return runs and vouched.vouches(told["seal"], _PURPOSE, place.name, digest)
        except (InputError, TypeError, KeyError):
            return False

    def _make(self, place: Path, texts: Mapping[str, str], build: Callable[[Path], None]) -> None:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=place, prefix="build-") as name:
            scratch = Path(name).absolute()
            for file, text in texts.items():
                (scratch / file).parent.mkdir(parents=True, exist_ok=True)
                (scratch / file).write_text(text)
            build(scratch)
            seal = vouched.seal(_PURPOSE, place.name, _digest(scratch / "program"))
            (scratch / "seal.json").write_text(json.dumps({"seal": seal}))
            (scratch / "program").replace(place / "program")
            (scratch / "seal.json").replace(place / "seal.json")


def _digest(path: Path) -> str:
    return sha256(path, "program", _LARGEST_PROGRAM)


def compiler() -> str:
    """The path of g++; raises ToolMissingError where there is none."""
    found = shutil.which("g++")
    if found is None:
        raise ToolMissingError("g++ is not installed", hint="apt-get install g++")
    return found


def compiler_words() -> str:
    """What g++ says of its version."""
    return compiler_version(compiler()).decode(errors="replace")


def call(
    command: Sequence[str],
    folder: Path,
    what: str,
    *,
    failure: type[QhwError] = CheckFailedError,
    timeout: float = COMPILE_SECONDS,
    environment: Mapping[str, str] | None = None,
    given: str = "",
) -> str:
    """Run a program in a folder; what it printed.

    Args:
        what: what fails where it does, as the beginning of a message.
        failure: what is raised where it ends with an error.
        given: its standard input.
        environment: variables in addition to this process's.

    Raises:
        ToolMissingError: the program cannot be run.
        CheckFailedError: it takes longer than ``timeout`` seconds.
    """
    tool = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            input=given,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        raise ToolMissingError(f"{tool} cannot be run: {error.strerror} ({command[0]})") from None
    except subprocess.TimeoutExpired:
        raise CheckFailedError(f"{what}: {tool} was stopped after {timeout:g} s") from None
    if done.returncode:
        words = "\n".join(line for line in done.stderr.splitlines() if "rror" in line) or done.stderr
        raise failure(f"{what}: {tool} {told_by(done.returncode, words[:2000])}")
    return done.stdout
