"""Units that hold words: the queue of a stream, and the memory of a layer's weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from qhw.errors import InputError
from qhw.formats.modes import IntArray
from qhw.rtl.unit import Control, Parameter, Port, Ports, Streams, Unit, Values

SHIFT_REGISTER, LUT_MEMORY, BLOCK_RAM, ULTRA_RAM = range(4)
"""The kinds of memory that a unit's STYLE parameter chooses from."""

MEMORY_STYLES = "1 LUT memory, 2 block RAM, 3 UltraRAM"
MEMORY = ("memory",)

_MOST_WORDS = {SHIFT_REGISTER: 1024, LUT_MEMORY: 4096}
"""Beyond these, words in LUTs take thousands of multiplexers, and no design does it."""


def check_words(unit: str, values: Values, name: str = "D") -> None:
    """Raise InputError for more words than the style is for."""
    most = _MOST_WORDS.get(values["STYLE"])
    if most is not None and values[name] > most:
        raise InputError(
            f"{name} of {unit} is {values[name]} with STYLE={values['STYLE']}",
            allowed=f"up to {most}",
            hint="keep the words in block RAM (STYLE=2)",
        )


def _queued(values: Values, inputs: Streams) -> Streams:
    """A Python queue clocked by the streams: step by step, what shows behind each clock edge."""
    queue: deque[int] = deque()
    valid, y = 0, 0
    rows = []
    names = ("reset", "x_valid", "y_ready", "x")
    for reset, x_valid, y_ready, x in zip(*(inputs[name][:, 0].tolist() for name in names), strict=True):
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
    flags = {"x_ready": _column(x_ready), "y_valid": _column(y_valid), "count": _column(count)}
    return {"y": _column(ys, values["W"]), **flags}


def _column(numbers: Sequence[int], width: int = 1) -> IntArray:
    return np.array(numbers, dtype=object if width > _INT64 else np.int64)[:, None]


_INT64 = 62
"""Bits of a word up to which it fits NumPy's integers."""

_FIRST_READ = 200
"""Steps after which something has been read, and the output is defined."""

_FULL_AND_EMPTY = (0.05, 0.5, 0.95)
"""Shares of cycles in which a stream's end is ready: long enough for a queue to fill and run empty."""

FIFO = Unit(
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
            Control("reset", (0.0, 0.0, 0.0, 0.0002), start=1),
            Control("x_valid", _FULL_AND_EMPTY),
            Control("y_ready", _FULL_AND_EMPTY),
        ),
    ),
    latency=lambda values: 1,
    reference=_queued,
    rule=lambda values: check_words("fifo", values),
    warm_up=lambda values: _FIRST_READ,
    memories=True,
    srl=True,
)


def _stored(values: Values, inputs: Streams) -> Streams:
    """An array of words that is written, else read; y is what was read last."""
    words = [0] * values["D"]
    y, rows = 0, []
    names = ("read", "write", "read_address", "write_address", "x")
    for read, write, source, target, x in zip(*(inputs[name][:, 0].tolist() for name in names), strict=True):
        if write:
            words[target] = x
        elif read:
            y = words[source]
        rows.append(y)
    return {"y": _column(rows, values["W"])}


def _address(name: str, words: int) -> Port:
    return Port(name, (words - 1).bit_length(), codes=np.arange(words))


WEIGHT_MEMORY = Unit(
    name="weight_memory",
    summary="D words, written while they are loaded and read otherwise",
    ranges=(
        Parameter("D", 2, 1 << 20, "words"),
        Parameter("W", 1, 4096, "bits of a word"),
        Parameter("STYLE", 1, 3, MEMORY_STYLES),
    ),
    sources=(*MEMORY, "weight_memory"),
    ports=lambda values: Ports(
        (
            _address("read_address", values["D"]),
            _address("write_address", values["D"]),
            Port("x", values["W"]),
        ),
        (Port("y", values["W"]),),
        (Control("read", (1.0, 0.5)), Control("write", (0.02, 0.5, 0.9))),
    ),
    latency=lambda values: 1,
    reference=_stored,
    rule=lambda values: check_words("weight_memory", values),
    warm_up=lambda values: _FIRST_READ,
    memories=True,
)
