"""A counter that says when its round ends."""

from __future__ import annotations

from qhw.rtl.base import Control, CountedUnit, Parameter, Port, Ports, Streams, Values
from qhw.rtl.shared.streams import RESET, columns_of, rows_of


def _reference(values: Values, inputs: Streams) -> Streams:
    """A number that goes round."""
    at, rows = 0, []
    for reset, step in rows_of(inputs, "reset", "step"):
        at = 0 if reset else (at + step) % values["D"]
        rows.append((at, int(at == values["D"] - 1)))
    return columns_of(("y", "last"), rows)


UNIT = CountedUnit(
    name="counter",
    summary="counts to D, and says when it is at the last",
    ranges=(
        Parameter("D", 1, 1 << 20, "counts of a round"),
        Parameter("W", 1, 20, "bits of the count"),
    ),
    sources=("cycle", "counter"),
    ports=lambda values: Ports(
        (), (Port("y", values["W"]), Port("last", 1)), (RESET, Control("step", (0.3, 1.0)))
    ),
    latency=lambda values: 1,
    reference=_reference,
    counted=lambda values, counting: counting.counter(values["D"]),
    samples=({"D": 1, "W": 1}, {"D": 2, "W": 1}, {"D": 5, "W": 3}, {"D": 64, "W": 6}, {"D": 100, "W": 7}),
)
