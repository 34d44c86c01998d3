"""The queue of a stream: a memory, and an output register."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from qhw.rtl.base import (
    Axis,
    ClosedForms,
    Control,
    Features,
    MeasuredUnit,
    Parameter,
    Port,
    Ports,
    Space,
    Streams,
    Values,
)
from qhw.rtl.shared import lut4, structure
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.energy import MEMORY_PJ_PER_BIT
from qhw.rtl.shared.memories import (
    FIRST_READ,
    LUT_MEMORY,
    MEMORY,
    MEMORY_STYLES,
    SHIFT_REGISTER,
    bram18,
    check_words,
    lut_memory_features,
    multiplexer,
    ram,
    uram,
)
from qhw.rtl.shared.streams import RESET, column, rows_of
from qhw.rtl.shared.structure import levels
from qhw.rtl.shared.timing import Machine, Timing


@dataclass(frozen=True)
class Queue(Timing):
    """``depth`` words in the memory, and one in the output register."""

    depth: int

    kind = 0

    @property
    def numbers(self) -> tuple[int, ...]:
        return (self.depth,)

    def machine(self) -> QueueMachine:
        return QueueMachine(self.depth)


class QueueMachine(Machine):
    """Its words; ``most`` is how many lay in the memory at a time."""

    def __init__(self, depth: int) -> None:
        self.depth, self.count, self.shows, self.most = depth, 0, False, 0

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (self.shows,)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (self.count != self.depth,)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        push = inputs[0] and self.count != self.depth
        if not self.shows or outputs[0]:
            self.shows = self.count != 0
            self.count -= self.shows
        self.count += push
        self.most = max(self.most, self.count)


def _reference(values: Values, inputs: Streams) -> Streams:
    """A Python queue clocked by the streams: step by step, what shows behind each clock edge."""
    queue: deque[int] = deque()
    valid, y = 0, 0
    rows = []
    for reset, x_valid, y_ready, x in rows_of(inputs, "reset", "x_valid", "y_ready", "x"):
        push, free = x_valid and len(queue) < values["D"], y_ready or not valid
        if free:
            valid = int(bool(queue))
            y = queue.popleft() if queue else y
        if push:
            queue.append(x)
        if reset:
            queue.clear()
            valid = 0
        rows.append((int(len(queue) < values["D"]), valid, y, len(queue)))
    x_ready, y_valid, ys, count = zip(*rows, strict=True)
    flags = {"x_ready": column(x_ready), "y_valid": column(y_valid), "count": column(count)}
    return {"y": column(ys, values["W"]), **flags}


_FULL_AND_EMPTY = (0.05, 0.5, 0.95)
"""Shares of cycles in which a stream's end is ready: long enough for a queue to fill and run empty."""

_QUEUE_WORDS = (2, 3, 4, 8, 12, 16, 24, 32, 48, 64, 100, 128, 200, 256, 512, 600, 1024, 2048, 4096)


def _memory(values: Values, family: str) -> Features:
    words, width, style = values["D"], values["W"], values["STYLE"]
    if style == LUT_MEMORY:
        return lut_memory_features(words, width, family)
    if style == SHIFT_REGISTER:
        chains = -(-words // _CHAIN)
        return {
            "memory LUTs": shift_register_luts(words, width),
            "selected bits": width * (multiplexer(chains, family) if words > 2 else 1),
        }
    return {"selected bits": width * multiplexer(ram(values, family).banks, family)}


_CHAIN = 128
"""Bits of shift register behind the multiplexers of a slice."""


def shift_register_luts(words: int, width: int) -> int:
    """LUTs of 32 bits each; two words stay in flip-flops."""
    return width * -(-words // 32) if words > 2 else 0


def _features(family: str, values: Values) -> Features:
    return {**_memory(values, family), "queue": 1, **_control(cells_of(family), values)}


def _control(cells: Cells, values: Values) -> Features:
    """Its addresses, the count and the comparisons with it; on ECP5 each chain has LUTs of its own."""
    words = values["D"]
    count, address = words.bit_length(), (words - 1).bit_length()
    addressed = values["STYLE"] != SHIFT_REGISTER
    if cells.inputs == 4:
        return {
            "count LUTs": lut4.adder(count) + 2 * lut4.reduction(count),
            "address LUTs": 2 * lut4.counter(words) if addressed else lut4.adder(address),
        }
    wraps = not structure.is_power(words)
    return {
        "addresses": addressed,
        "count bits": count,
        "full": wraps * structure.reduction(count),
        "wrapping address bits": addressed * wraps * address,
        "place bits": (not addressed) * address,
    }


def _registers(family: str, values: Values) -> int:
    words, width, style = values["D"], values["W"], values["STYLE"]
    count, address = words.bit_length(), (words - 1).bit_length()
    if style == SHIFT_REGISTER:
        return 1 + count + address + width + (words * width if words == 2 else 0)
    if style == LUT_MEMORY:
        return 1 + count + 2 * address + width
    return 1 + count + 2 * address + levels(ram(values, family).banks)


def _energy(v: Values) -> float:
    return 2 * v["W"] * MEMORY_PJ_PER_BIT


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, family), partial(_registers, family), bram18=bram18, uram=uram)


UNIT = MeasuredUnit(
    name="fifo",
    summary="a queue of D words in a memory and one in its output register",
    ranges=(
        Parameter("D", 2, 1 << 17, "words in the memory"),
        Parameter("W", 1, 1024, "bits of a word"),
        Parameter("STYLE", 0, 3, f"0 shift registers, {MEMORY_STYLES}"),
    ),
    sources=("cycle", *MEMORY, "shift_register", "fifo"),
    ports=lambda values: Ports(
        (Port("x", values["W"]),),
        (
            Port("x_ready", 1),
            Port("y_valid", 1),
            Port("y", values["W"]),
            Port("count", values["D"].bit_length()),
        ),
        (
            RESET,
            Control("x_valid", _FULL_AND_EMPTY),
            Control("y_ready", _FULL_AND_EMPTY),
        ),
    ),
    latency=lambda values: 1,
    reference=_reference,
    rule=lambda values: check_words("fifo", values),
    warm_up=lambda values: FIRST_READ,
    memories=True,
    srl=True,
    space=Space(
        place=17,
        points=60,
        axes=(
            Axis("D", choices=_QUEUE_WORDS),
            Axis("W", 1, 64),
            Axis("STYLE", 0, 3),
        ),
    ),
    closed_forms=_closed_forms,
    energy_pj=_energy,
)
