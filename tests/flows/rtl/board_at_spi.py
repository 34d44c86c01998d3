"""A written project's board at SPI, in Verilator, behind a stand-in for spidev."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

HARNESS = Path(__file__).with_suffix(".cpp")


class SpiDev:
    """What :mod:`spidev` is, as far as a host uses it: ``xfer2`` is a transfer with ``cs`` low throughout."""

    board: ClassVar[subprocess.Popen[bytes] | None] = None
    opened: ClassVar[list[SpiDev]] = []

    seconds: ClassVar[float] = 0.0
    """What the clock has taken so far: the board's time, however fast it is simulated."""

    def __init__(self) -> None:
        self.max_speed_hz, self.mode, self.closed = 0, 3, False
        self.path = ""
        self.opened.append(self)

    def open_path(self, path: str) -> None:
        if self.board is None:
            raise FileNotFoundError(2, "No such file or directory")
        self.path = path

    def close(self) -> None:
        self.closed = True

    def xfer2(self, content: list[int]) -> list[int]:
        assert self.board is not None
        assert self.board.stdin is not None
        assert self.board.stdout is not None
        if len(content) > 4096:
            raise OverflowError("Argument list size exceeds 4096 bytes.")
        assert self.mode == 0
        SpiDev.seconds += 8 * len(content) / self.max_speed_hz
        self.board.stdin.write(len(content).to_bytes(4, "little") + bytes(content))
        self.board.stdin.flush()
        return list(self.board.stdout.read(len(content)))


def monotonic() -> float:
    """Seconds, in place of those of :mod:`time`."""
    return SpiDev.seconds


@contextmanager
def connected(program: Path, project: Path, half: int) -> Iterator[None]:
    """The board at every SPI device that is opened; half a bit takes ``half`` cycles of the board's clock."""
    with subprocess.Popen(
        [str(program), str(half)], cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        SpiDev.board = process
        try:
            yield
        finally:
            SpiDev.board = None
            process.terminate()
