"""Runs a compiled network on samples; reads back what it wrote: outputs, every map, and what was counted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qhw.errors import CheckFailedError
from qhw.flows.mcu.containers import Bytes, Map
from qhw.flows.mcu.toolchain import Firmware, run_firmware
from qhw.formats.modes import IntArray

LARGEST_OUTPUT = 1 << 32


@dataclass(frozen=True)
class Port:
    """An input or output: its map, and the byte that it begins at."""

    tensor: str
    map: Map
    offset: int


@dataclass(frozen=True)
class Observed:
    """What a step leaves behind, call after call.

    Args:
        tensor: the tensor that it writes.
        regions: rows and columns of each patch, ``((top, bottom), (left, right))``; none: the map at once.
    """

    tensor: str
    map: Map
    regions: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = ()


@dataclass(frozen=True)
class Counts:
    """What a run took.

    Args:
        instructions: of one inference.
        stack: the most bytes that the stack has held.
        steps: instructions of each step, in an inference that was observed.
    """

    instructions: int
    stack: int
    steps: tuple[int, ...] = ()


def execute(
    firmware: Firmware,
    inputs: Mapping[str, IntArray],
    ports: tuple[Sequence[Port], Sequence[Port]],
    sizes: tuple[int, int],
    observed: Sequence[Observed] = (),
    *,
    timeout: float,
) -> tuple[dict[str, IntArray], Counts]:
    """Mantissas of the outputs and of what is observed, (N, *shape) by tensor, and what was counted.

    Args:
        ports: inputs and outputs.
        sizes: bytes of all inputs, and of all outputs.
        observed: every step's map, in order, where the firmware was compiled to be observed.
    """
    given, wanted = ports
    count = len(next(iter(inputs.values())))
    memory = np.zeros((count, sizes[0]), dtype=np.uint8)
    for port in given:
        memory[:, port.offset : port.offset + port.map.bytes] = port.map.pack(inputs[port.tensor])
    with tempfile.TemporaryDirectory(prefix="qhw-mcu-") as name:
        folder = Path(name)
        (folder / "in.bin").write_bytes(np.uint32(count).tobytes() + memory.tobytes())
        run_firmware(firmware, folder, timeout=timeout)
        outputs = _rows(folder / "out.bin", count, sizes[1])
        stats = np.fromfile(folder / "stats.bin", dtype="<u4")
        found = {p.tensor: p.map.unpack(outputs[:, p.offset : p.offset + p.map.bytes]) for p in wanted}
        if observed:
            found |= _maps(folder / "maps.bin", count, observed)
    return found, _counts(firmware, stats)


def _counts(firmware: Firmware, stats: IntArray) -> Counts:
    if len(stats) < 2:
        raise CheckFailedError(f"{firmware.program.name} wrote no counts: it ended before its time")
    if firmware.core is None:
        return Counts(0, 0)
    instructions = [firmware.core.instructions(int(ticks)) for ticks in stats]
    return Counts(instructions[0], int(stats[1]), tuple(instructions[2:]))


def _rows(path: Path, count: int, size: int) -> Bytes:
    memory = np.fromfile(path, dtype=np.uint8)
    if memory.size != count * size:
        raise CheckFailedError(
            f"the firmware wrote {memory.size:,} bytes to {path.name}, not {count * size:,}"
        )
    return memory.reshape(count, size)


def _maps(path: Path, count: int, observed: Sequence[Observed]) -> dict[str, IntArray]:
    """Every observed tensor, its patches put together.

    The steps of a front that runs patch by patch take turns, so their records lie interleaved. Where patches
    overlap, the same element was computed twice: a second value that differs from the first is an error.
    """
    patches = max((len(one.regions) for one in observed), default=0)
    front = [one for one in observed if one.regions]
    parts: list[tuple[Observed, int | None]] = [(one, patch) for patch in range(patches) for one in front]
    parts += [(one, None) for one in observed if not one.regions]
    sizes = [_part_bytes(one, patch) for one, patch in parts]
    rows = _rows(path, count, sum(sizes))
    found: dict[str, IntArray] = {}
    seen: dict[str, IntArray] = {}
    at = 0
    for (one, patch), size in zip(parts, sizes, strict=True):
        memory = rows[:, at : at + size]
        at += size
        if patch is None:
            found[one.tensor] = one.map.unpack(memory)
            continue
        (top, bottom), (left, right) = one.regions[patch]
        part = Map((one.map.channels, bottom - top, right - left), one.map.container).unpack(memory)
        shape = (count, one.map.channels, *one.map.plane)
        whole = found.setdefault(one.tensor, np.zeros(shape, dtype=part.dtype))
        known = seen.setdefault(one.tensor, np.zeros(one.map.plane, dtype=bool))
        place = (slice(None), slice(None), slice(top, bottom), slice(left, right))
        again = known[top:bottom, left:right]
        if (whole[place] != part)[:, :, again].any():
            raise CheckFailedError(f"two patches of '{one.tensor}' differ where they overlap")
        whole[place] = part
        known[top:bottom, left:right] = True
    # A tensor of which no patch needs some element is not returned: that element was not computed.
    covered = {name: known.all() for name, known in seen.items()}
    return {
        name: value.reshape(count, *_shape(name, observed))
        for name, value in found.items()
        if covered.get(name, True)
    }


def _shape(tensor: str, observed: Sequence[Observed]) -> tuple[int, ...]:
    return next(one.map.shape for one in observed if one.tensor == tensor)


def _part_bytes(one: Observed, patch: int | None) -> int:
    if patch is None:
        return one.map.bytes
    (top, bottom), (left, right) = one.regions[patch]
    return (bottom - top) * (right - left) * one.map.pixel_bytes
