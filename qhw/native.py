"""Compiles C++ kernels with g++, once per source, flags, compiler and processor, into the user's cache.

Needs no torch. Whoever asks for a kernel has a slower form with the same bits for machines without g++.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qhw import vouched
from qhw.errors import InputError, ToolMissingError
from qhw.outside.text import read_json

logger = logging.getLogger(__name__)

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
TIMEOUT_SECONDS = 300
VERSION_SECONDS = 30


def told_by(code: int, words: str) -> str:
    """How a child process ended that did not succeed, and the end of what it said."""
    how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"{how}:\n{words.strip()[-2000:]}" if words.strip() else f"{how} and said nothing"


@dataclass(frozen=True)
class Library:
    """A compiled kernel.

    Args:
        path: the shared library.
        compile_seconds: g++'s time when the library was made.
        cached: whether the library was there already.
    """

    path: Path
    compile_seconds: float
    cached: bool

    def load(self) -> ctypes.CDLL:
        """The library, in this process.

        Raises:
            ToolMissingError: the library does not load on this machine.
        """
        try:
            return ctypes.CDLL(str(self.path))
        except OSError as error:
            raise ToolMissingError(f"{self.path} does not load: {error}", hint="delete it") from error


def cache_folder() -> Path:
    """The user's cache folder for qhw (XDG Base Directory Specification)."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(root) if os.path.isabs(root) else Path.home() / ".cache") / "qhw"
    except RuntimeError as error:  # no HOME, and a user whom the system does not know
        raise ToolMissingError(
            f"There is no cache folder: {error}", hint="set HOME or XDG_CACHE_HOME"
        ) from None


def compiled(source: Path, flags: Sequence[str] = ()) -> Library:
    """The shared library of a C++ file, compiled now if the cache does not have it.

    Args:
        flags: compiler flags in addition to ``FLAGS``.

    Raises:
        ToolMissingError: there is no g++, it failed, or the cache folder cannot be written.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise ToolMissingError("g++ is not installed", hint="install g++ (Debian: apt-get install g++)")
    try:
        folder = cache_folder() / "kernels" / _key(compiler, source, (*FLAGS, *flags))
        return _known(folder, source) or _compile(compiler, source, (*FLAGS, *flags), folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolMissingError(f"{source.name} could not be compiled: {error}") from error


def _key(compiler: str, source: Path, flags: Sequence[str]) -> str:
    """A hash of everything that the machine code depends on."""
    parts = [source.read_bytes(), compiler_version(compiler), " ".join(flags).encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def compiler_version(compiler: str) -> bytes:
    """The words of ``g++ --version``; raises ToolMissingError for a compiler that does not answer."""
    command = [compiler, "--version"]
    try:
        return subprocess.run(command, capture_output=True, timeout=VERSION_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ToolMissingError(
            f"g++ cannot be run: {reason} ({compiler})", hint="reinstall it (Debian: apt-get install g++)"
        ) from error


def _processor() -> str:
    """The processor's features, which ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _known(folder: Path, source: Path) -> Library | None:
    """The library of an earlier run, if it is what this user's compiler wrote there."""
    path, facts = folder / f"{source.stem}.so", folder / f"{source.stem}.json"
    if not (path.is_file() and facts.is_file()):
        return None
    try:
        told = read_json(facts, "note of a kernel", 1 << 16)
        seconds, seal = float(told["compile_seconds"]), told.get("seal")
    except (InputError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if not vouched.vouches(seal, "kernel", folder.name, _digest(path)):
        return None
    return Library(path, seconds, cached=True)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compile(compiler: str, source: Path, flags: Sequence[str], folder: Path) -> Library:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    logger.info("compiling %s (once, a few seconds)", source.name)
    path, facts = folder / f"{source.stem}.so", folder / f"{source.stem}.json"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built, told = Path(scratch, path.name), Path(scratch, facts.name)
        start = time.perf_counter()
        command = [compiler, str(source), "-o", str(built), *flags]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, check=False
        )
        if done.returncode != 0:
            words = told_by(done.returncode, done.stderr)
            raise ToolMissingError(f"g++ could not compile {source.name}: it {words}")
        seconds = time.perf_counter() - start
        seal = vouched.seal("kernel", folder.name, _digest(built))
        told.write_text(json.dumps({"compile_seconds": round(seconds, 3), "seal": seal}))
        os.replace(built, path)
        os.replace(told, facts)
    logger.info("compiled %s in %.1f s", source.name, seconds)
    return Library(path, seconds, cached=False)
