"""The host's end of a board's serial line: images go in, codes come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from qhw.errors import CheckFailedError, InputError, ToolMissingError
from qhw.flows.base import BoardRun, Project, SerialLine
from qhw.flows.rtl.board_top import BAUD
from qhw.flows.rtl.project import (
    BOARD_SOURCE,
    MARK,
    Description,
    Travelling,
    checked_inputs,
    identity,
    itemsize,
    packed,
    read_description,
    unpacked,
)
from qhw.formats.modes import IntArray

if TYPE_CHECKING:
    import serial

IMAGE, ASK = b"\x01", b"\x02"
"""A message's first byte: an image follows; the design is asked for."""

_SPARE_SECONDS = 2.0
"""Waited for an answer beyond the time that it takes: the host's own delays."""


def run_on_board(
    project: Project,
    inputs: Mapping[str, IntArray],
    line: SerialLine,
    tell: Callable[[float | None, str], None],
) -> BoardRun:
    """Send input mantissas (N, *shape) to the board on a serial line, one image at a time; what it answers.

    Raises:
        ToolMissingError: pyserial is not installed.
        InputError: the project has no loader, the port is not there, or answers nothing or too little.
        CheckFailedError: the board holds another design.
    """
    description = read_description(project.folder)
    if not (project.folder / BOARD_SOURCE).is_file():
        raise InputError(
            f"{project.folder} has no {BOARD_SOURCE}: its design is behind no serial line",
            hint="build for a board with a pin file, e.g. ulx3s, a model with one input and one output",
        )
    (given,), (answered,) = description.inputs, description.outputs
    count = checked_inputs(description, inputs)
    images = _image_bytes(given, inputs[given.tensor])
    size = answered.words * answered.axis_bytes
    own = identity(project.folder)
    baud = line.baud or BAUD
    seconds = line.timeout or _SPARE_SECONDS + _needed(description, len(images[0]) + 1 + size, baud)
    with _Port(line.port, baud, seconds) as port:
        _identify(port, own, len(images[0]), project.folder)
        answers = []
        every = max(1, count // 10)
        started = time.perf_counter()
        for index, image in enumerate(images):
            port.write(IMAGE + image)
            answer = port.read(size)
            if len(answer) < size:
                raise InputError(
                    f"{line.port} answered sample {index} with {len(answer)} of {size} bytes, and no more in "
                    f"{seconds:.3g} s",
                    hint="check the cable, and the LED for a lost byte; the board's reset button begins anew",
                )
            answers.append(answer)
            if (index + 1) % every == 0:
                tell((index + 1) / count, f"{index + 1:,} of {count:,} samples")
        spent = time.perf_counter() - started
    codes = _codes(answered, b"".join(answers))
    return BoardRun({answered.tensor: answered.mantissas(codes)}, spent, own.removeprefix(MARK).hex())


def _needed(description: Description, size: int, baud: int) -> float:
    """Seconds of that many bytes, 10 bits each, and of an image in the design; twice that."""
    return 2 * (10 * size / baud + description.latency_cycles / description.clock_mhz / 1e6)


def _image_bytes(port: Travelling, mantissas: IntArray) -> list[bytes]:
    """The bytes of each image's words, in the order in which they are sent."""
    bits = 8 * port.axis_bytes
    words = packed(port.codes(np.asarray(mantissas)), port.element.width, bits)
    rows = np.frombuffer(words, dtype=np.uint8).reshape(-1, itemsize(bits))[:, : port.axis_bytes]
    return [image.tobytes() for image in rows.reshape(-1, port.words * port.axis_bytes)]


def _codes(port: Travelling, content: bytes) -> IntArray:
    """The codes (N * words, lanes) in a design's words, as they were received."""
    bits = 8 * port.axis_bytes
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, port.axis_bytes)
    spread = np.zeros((len(rows), itemsize(bits)), dtype=np.uint8)
    spread[:, : port.axis_bytes] = rows
    return unpacked(spread.tobytes(), port.element.width, port.lanes, bits)


def _identify(port: _Port, own: bytes, image_size: int, folder: Path) -> None:
    """Ask the board for its design, which must be the folder's."""
    found = port.ask(len(own))
    if not _is_identity(found, own):
        # A host that stopped within an image left the board waiting for the rest of it: this is no less.
        port.write(ASK * image_size)
        for _ in range(2 + image_size // 2048):
            if not port.read(4096):
                break
        found = port.ask(len(own))
    if not found:
        raise InputError(
            f"{port.name} does not answer within {port.seconds:.3g} s",
            hint="check the port and the cable, and that the board was given this folder's bitstream",
        )
    if not _is_identity(found, own):
        raise InputError(
            f"{port.name} answers {len(found)} bytes ({found.hex(' ')}) when it is asked for its design",
            allowed=f"{len(own)} bytes, of which the first are {MARK.hex(' ')}",
            hint=f"check the port and --baud (a board of qhw's has {BAUD}); load this folder's bitstream",
        )
    if found != own:
        theirs, ours = (design.removeprefix(MARK).hex() for design in (found, own))
        raise CheckFailedError(
            f"The board at {port.name} holds another design ({theirs}) than {folder} ({ours})",
            hint="load the bitstream of this folder; after a change build it again with --synth",
        )


def _is_identity(found: bytes, own: bytes) -> bool:
    return len(found) == len(own) and found.startswith(MARK)


class _Port:
    """A serial port whose faults are told as errors of the user's; a context manager."""

    def __init__(self, name: str, baud: int, seconds: float) -> None:
        self.name, self.baud, self.seconds = name, baud, seconds
        self._line: serial.Serial

    def __enter__(self) -> _Port:
        try:
            import serial
        except ImportError:
            raise ToolMissingError(
                "A board's serial port needs pyserial, which is not installed",
                hint="pip install 'qhw[synth]'",
            ) from None
        try:
            self._line = serial.Serial(
                self.name, self.baud, timeout=self.seconds, write_timeout=self.seconds, exclusive=True
            )
        except (OSError, ValueError, OverflowError) as error:
            raise InputError(
                f"The serial port {self.name} cannot be opened at {self.baud} baud: {_reason(error)}",
                allowed=_ports(),
                hint="plug the board in; on Linux a user of serial ports is in the group dialout",
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()

    def write(self, content: bytes) -> None:
        try:
            self._line.write(content)
        except OSError as error:
            self._lost(error)

    def read(self, size: int) -> bytes:
        """That many bytes, or those that came until the time was over."""
        try:
            return bytes(self._line.read(size))
        except OSError as error:
            self._lost(error)

    def ask(self, size: int) -> bytes:
        """What the board answers to the question for its design."""
        try:
            self._line.read(self._line.in_waiting)  # of a host before this one
        except OSError as error:
            self._lost(error)
        self.write(ASK)
        return self.read(size)

    def _lost(self, error: Exception) -> NoReturn:
        raise InputError(
            f"{self.name} is lost: {_reason(error)}",
            hint="plug the board in again; then run the same command",
        ) from None


def _reason(error: Exception) -> Any:
    return getattr(error, "strerror", None) or error


def _ports() -> str:
    """The serial ports of this machine."""
    from serial.tools import list_ports

    return ", ".join(sorted(port.device for port in list_ports.comports())) or "no serial port is here"
