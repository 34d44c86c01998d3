"""Builds the C++ tests of the header library, and writes the vectors that they read."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qhw.formats.base import as_mantissas
from qhw.formats.modes import IntArray
from qhw.resources import resource_dir

HERE = Path(__file__).parent

Completed = subprocess.CompletedProcess[str]


@dataclass
class Vectors:
    """The calls of ``cases.h``, and the integers that every one of them reads."""

    cases: list[str] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)

    def case(self, function: str, name: object, *parameters: object) -> None:
        """A call of a C++ template with those parameters; ``name`` is what it reports."""
        self.cases.append(f'{function}<{", ".join(map(str, parameters))}>(vectors, "{name}");')

    def numbers(self, numbers: Any, width: int = 64) -> None:
        """Signed integers of that width, in words of 64 bits."""
        flat = as_mantissas(np.asarray(numbers)).reshape(-1)
        words = -(-width // 64)
        if words == 1:
            self.parts.append(flat.astype(np.int64).tobytes())
        else:
            self.parts.append(b"".join(int(v).to_bytes(8 * words, "little", signed=True) for v in flat))

    def codes(self, codes: IntArray, width: int) -> None:
        """How many, then unsigned integers of that width."""
        self.numbers([len(codes)])
        self.numbers(codes, width + 1)

    def write(self, folder: Path) -> Path:
        (folder / "cases.h").write_text("\n".join(self.cases) + "\n")
        path = folder / "vectors.bin"
        path.write_bytes(b"".join(self.parts))
        return path


def bits(numbers: Any) -> int:
    """Bits that hold integers in two's complement; at least one."""
    flat = [int(v) for v in np.asarray(numbers).flat]
    return max(max((v if v >= 0 else ~v).bit_length() for v in flat) + 1, 1)


def ap_types() -> Path:
    """The ap_types that hls4ml ships, without importing it."""
    spec = importlib.util.find_spec("hls4ml")
    if spec is None or spec.origin is None or shutil.which("g++") is None:
        pytest.skip("hls4ml's ap_types or g++ are not installed")
    return Path(spec.origin).parent / "templates" / "vivado" / "ap_types"


def compiled(source: str, folder: Path, types: Path | None = None, *flags: str) -> Completed:
    """A test of this folder with the ``cases.h`` of ``folder``, compiled to a program there.

    ``types`` stand in for ``ap_types()``.
    """
    types = types or ap_types()
    paths = (types, folder, HERE, resource_dir("hls") / "include", ap_types().parent)
    command = ["g++", "-std=c++17", "-O1", "-w", *flags, *(f"-I{path}" for path in paths)]
    command += [str(HERE / source), "-o", str(folder / Path(source).stem)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def built(source: str, folder: Path, types: Path | None = None) -> Path:
    """The compiled program; the test fails with the compiler's words."""
    done = compiled(source, folder, types)
    assert done.returncode == 0, done.stderr[:4000]
    return folder / Path(source).stem


def run(program: Path, vectors: Path) -> Completed:
    return subprocess.run([program, vectors], capture_output=True, text=True, check=False)


def flip_bit(path: Path, byte: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(bytes(data))
