"""The host's end of a board's loader: weights and images go in, codes come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from qhw.errors import CheckFailedError, InputError
from qhw.flows.base import BoardRun, Project, SerialLine
from qhw.flows.rtl.board_top import BAUD
from qhw.flows.rtl.host_ports import SPI_PREFIX, HostPort, SerialPort, SpiPort
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
    weights_image,
)
from qhw.formats.modes import IntArray

IMAGE, ASK, WEIGHTS = b"\x01", b"\x02", b"\x03"
"""A message's first byte: an image follows; the design is asked for; weights follow."""

_SPARE_SECONDS = 2.0
"""Waited for an answer beyond the time that it takes: the host's own delays."""


def run_on_board(
    project: Project,
    inputs: Mapping[str, IntArray],
    line: SerialLine,
    tell: Callable[[float | None, str], None],
) -> BoardRun:
    """Send input mantissas (N, *shape) to the board at a port, one image at a time; what it answers.

    Where the design's weights are loaded, the project's are sent first.

    Args:
        line: a serial port, or ``spi:`` and an SPI device.

    Raises:
        ToolMissingError: pyserial or spidev is not installed.
        InputError: the project has no loader, the port is not there, or answers nothing or too little.
        CheckFailedError: the board holds another design.
    """
    description = read_description(project.folder)
    if not (project.folder / BOARD_SOURCE).is_file():
        raise InputError(
            f"{project.folder} has no {BOARD_SOURCE}: its design is behind no serial line and no SPI",
            hint="build for a board with a pin file, e.g. ulx3s, a model with one input and one output",
        )
    weights = weights_image(project.folder, description) if description.weights else b""
    (given,), (answered,) = description.inputs, description.outputs
    count = checked_inputs(description, inputs)
    images = _image_bytes(given, inputs[given.tensor])
    size = answered.words * answered.axis_bytes
    own = identity(project.folder)
    at_spi = line.port.startswith(SPI_PREFIX)
    # The board samples the clock of SPI, with its own of at least 8 times as much.
    rate = line.baud or (int(description.clock_mhz * 1e6 / 8) if at_spi else BAUD)
    bits = SpiPort.bits_of_byte if at_spi else SerialPort.bits_of_byte
    seconds = line.timeout or _SPARE_SECONDS + _needed(description, bits * (len(images[0]) + 1 + size) / rate)
    port: HostPort
    if at_spi:
        port = SpiPort(line.port.removeprefix(SPI_PREFIX), rate, seconds)
    else:
        port = SerialPort(line.port, rate, seconds)
    with port:
        _identify(port, own, max(len(images[0]), len(weights)), project.folder)
        if weights:
            tell(None, f"loading {len(weights):,} bytes of weights")
            port.write(WEIGHTS + weights)
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


def _needed(description: Description, seconds: float) -> float:
    """Seconds on the line and of an image in the design; twice that."""
    return 2 * (seconds + description.latency_cycles / description.clock_mhz / 1e6)


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


def _identify(port: HostPort, own: bytes, longest: int, folder: Path) -> None:
    """Ask the board for its design, which must be the folder's.

    Args:
        longest: bytes of an image or of all weights.
    """
    found = port.ask(ASK, len(own))
    if not _is_identity(found, own):
        # A host that stopped within a message left the board waiting for the rest of it: this is no less.
        port.write(ASK * longest)
        for _ in range(2 + longest // 512):
            if not port.read(4096):
                break
        found = port.ask(ASK, len(own))
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
