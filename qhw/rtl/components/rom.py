"""A memory of constants."""

from __future__ import annotations

import numpy as np

from qhw.rtl.base import Control, CountedUnit, Parameter, Port, Ports, Streams, Values
from qhw.rtl.shared.memories import FIRST_READ
from qhw.rtl.shared.streams import column, drawn_words, rows_of

CONSTANT_MEMORY = (
    Parameter("D", 1, 1 << 20, "words"),
    Parameter("W", 1, 1 << 14, "bits of a word"),
    Parameter("STYLE", 1, 2, "1 LUTs, 2 block RAM", default=1),
)
"""The parameters of a memory of constants."""

CONSTANT_MEMORIES = (
    {"D": 16, "W": 6, "STYLE": 1},
    {"D": 1, "W": 9},
    {"D": 2, "W": 1, "STYLE": 1},
    {"D": 100, "W": 33, "STYLE": 2},
    {"D": 300, "W": 70, "STYLE": 1},
)


def address(name: str, words: int) -> Port:
    """The port of an address."""
    return Port(name, max(1, (words - 1).bit_length()), codes=np.arange(words))


def _reference(values: Values, inputs: Streams) -> Streams:
    """A list that is read."""
    words = drawn_words(values)
    y, rows = 0, []
    for read, at in rows_of(inputs, "read", "address"):
        y = words[at] if read else y
        rows.append(y)
    return {"y": column(rows, values["W"])}


UNIT = CountedUnit(
    name="rom",
    summary="D constant words of W bits",
    ranges=CONSTANT_MEMORY,
    sources=("rom",),
    ports=lambda values: Ports(
        (address("address", values["D"]),), (Port("y", values["W"]),), (Control("read", (1.0, 0.5)),)
    ),
    memories=True,
    constants=drawn_words,
    latency=lambda values: 1,
    reference=_reference,
    warm_up=lambda values: FIRST_READ,
    counted=lambda values, counting: counting.constants(values["STYLE"]),
    samples=CONSTANT_MEMORIES,
)
