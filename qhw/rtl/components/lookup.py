"""A function of a number, by a memory of constants."""

from __future__ import annotations

import numpy as np

from qhw.rtl.base import CountedUnit, Port, Ports, Streams, Values
from qhw.rtl.components.rom import CONSTANT_MEMORIES, CONSTANT_MEMORY, address
from qhw.rtl.shared.streams import drawn_words


def _reference(values: Values, inputs: Streams) -> Streams:
    return {"y": np.array(drawn_words(values), dtype=object)[inputs["x"].astype(np.int64)]}


UNIT = CountedUnit(
    name="lookup",
    summary="one of D constants of W bits, by its place",
    ranges=CONSTANT_MEMORY,
    sources=("rom", "lookup"),
    ports=lambda values: Ports((address("x", values["D"]),), (Port("y", values["W"]),)),
    memories=True,
    constants=drawn_words,
    latency=lambda values: 1,
    reference=_reference,
    counted=lambda values, counting: counting.constants(values["STYLE"]),
    samples=CONSTANT_MEMORIES,
)
