"""One of several numbers."""

from __future__ import annotations

import numpy as np

from qhw.rtl.base import CountedUnit, Parameter, Port, Ports, Streams, Values
from qhw.rtl.shared.counting import Counting, Taken
from qhw.rtl.shared.memories import multiplexer


def _ports(values: Values) -> Ports:
    count = values["N"]
    place = Port("place", max(1, (count - 1).bit_length()), codes=np.arange(count))
    return Ports((place, Port("x", values["W"], count)), (Port("y", values["W"]),))


def _reference(values: Values, inputs: Streams) -> Streams:
    return {"y": np.take_along_axis(inputs["x"], inputs["place"].astype(np.int64), axis=1)}


def _counted(values: Values, counting: Counting) -> Taken:
    count, width = values["N"], values["W"]
    return Taken(lut=float(width * multiplexer(count, counting.family)), ff=float(width))


UNIT = CountedUnit(
    name="choice",
    summary="one of N numbers of W bits, by its place",
    ranges=(Parameter("N", 1, 1 << 12, "numbers"), Parameter("W", 1, 1 << 12, "bits of a number")),
    sources=("choice",),
    ports=_ports,
    latency=lambda values: 1,
    reference=_reference,
    counted=_counted,
    samples=({"N": 4, "W": 3}, {"N": 1, "W": 8}, {"N": 7, "W": 5}, {"N": 16, "W": 20}, {"N": 256, "W": 2}),
)
