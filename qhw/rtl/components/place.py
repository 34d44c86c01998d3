"""A counter that says which of its counts belong to a part."""

from __future__ import annotations

from math import ceil

import numpy as np

from qhw.rtl.base import Control, CountedUnit, Parameter, Port, Ports, Streams, Values
from qhw.rtl.shared.arithmetic import at_least
from qhw.rtl.shared.counting import Counting, Taken
from qhw.rtl.shared.streams import RESET, columns_of, rows_of
from qhw.rtl.shared.structure import counter_bits, levels


def _reference(values: Values, inputs: Streams) -> Streams:
    """A number that goes round, looked up in the list of those that belong."""
    belonging = set((values["START"] + np.arange(values["COUNT"]) * values["STEP"]).tolist())
    at, rows = 0, []
    for reset, step in rows_of(inputs, "reset", "step"):
        at = 0 if reset else (at + step) % values["D"]
        rows.append((int(at in belonging), int(at == values["D"] - 1)))
    return columns_of(("belongs", "last"), rows)


def _rule(values: Values) -> None:
    end = values["START"] + (values["COUNT"] - 1) * values["STEP"] + 1
    at_least("place", values, "D", end, "the part ends beyond it")


def counted(values: Values, counting: Counting) -> Taken:
    """A counter, and comparisons with the ends of a part that is not all."""
    size, start, count, step = (values[name] for name in ("D", "START", "COUNT", "STEP"))
    if size < 2:
        return Taken()
    total = counting.counter(size)
    end = start + (count - 1) * step + 1
    inputs = counter_bits(size)
    total += Taken(lut=float(ceil(inputs / counting.cells.inputs)) if start or end < size else 0.0)
    if step > 1:
        total += Taken(lut=2.0 + levels(step), ff=float(levels(step)))
    return total


UNIT = CountedUnit(
    name="place",
    summary="counts to D, and says which of its counts lie in a part",
    ranges=(
        Parameter("D", 1, 1 << 20, "counts of a round"),
        Parameter("START", 0, 1 << 20, "the first of the part"),
        Parameter("COUNT", 1, 1 << 20, "counts of the part"),
        Parameter("STEP", 1, 1 << 20, "how far they lie apart", default=1),
    ),
    sources=("cycle", "place"),
    ports=lambda values: Ports(
        (), (Port("belongs", 1), Port("last", 1)), (RESET, Control("step", (0.3, 1.0)))
    ),
    rule=_rule,
    latency=lambda values: 1,
    reference=_reference,
    counted=counted,
    samples=(
        {"D": 1, "START": 0, "COUNT": 1},
        {"D": 8, "START": 0, "COUNT": 8},
        {"D": 10, "START": 3, "COUNT": 4},
        {"D": 9, "START": 2, "COUNT": 3, "STEP": 3},
        {"D": 16, "START": 15, "COUNT": 1},
        {"D": 100, "START": 1, "COUNT": 20, "STEP": 2},
        {"D": 7, "START": 0, "COUNT": 2, "STEP": 6},
    ),
)
