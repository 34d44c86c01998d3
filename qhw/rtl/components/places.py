"""A walk over an image that says which of its words lie in a part."""

from __future__ import annotations

from qhw.rtl.base import Control, CountedUnit, Port, Ports, Streams, Values
from qhw.rtl.components import place
from qhw.rtl.shared.counting import Counting, Taken
from qhw.rtl.shared.streams import RESET, column, rows_of
from qhw.rtl.shared.walks import WALK, check_walk, within


def _reference(values: Values, inputs: Streams) -> Streams:
    """A place in the list of an image's words."""
    flags = within(values).tolist()
    at, rows = 0, []
    for reset, step in rows_of(inputs, "reset", "step"):
        at = 0 if reset else (at + step) % len(flags)
        rows.append(int(flags[at]))
    return {"belongs": column(rows)}


def counted(values: Values, counting: Counting) -> Taken:
    """A counter of each axis, with comparisons, and what joins them."""
    total = Taken(lut=2.0)
    for axis in "RNC":
        part = {"START": values[f"{axis}0"], "COUNT": values[f"{axis}1"], "STEP": values[f"{axis}S"]}
        total += place.counted({"D": values[axis], **part}, counting)
    return total


def _walk(rows: tuple[int, ...], pixels: tuple[int, ...], words: tuple[int, ...]) -> Values:
    """How many, from which on, how many of them, and how far apart."""
    axes = zip("RNC", (rows, pixels, words), strict=True)
    return {
        f"{axis}{which}": number
        for axis, numbers in axes
        for which, number in zip(("", "0", "1", "S"), numbers, strict=True)
    }


FILLED = (
    (_walk((3, 1, 1, 1), (4, 1, 2, 1), (2, 0, 2, 1)), 5, 0),
    (_walk((7, 0, 4, 2), (5, 1, 2, 2), (1, 0, 1, 1)), 8, 0x80),
    (_walk((1, 0, 1, 1), (1, 0, 1, 1), (6, 2, 3, 1)), 33, 1),
    (_walk((6, 1, 2, 3), (1, 0, 1, 1), (4, 0, 2, 3)), 4, 7),
    (_walk((4, 0, 3, 1), (4, 1, 3, 1), (3, 0, 3, 1)), 90, (1 << 60) + 5),
    (_walk((2, 0, 2, 1), (3, 0, 3, 1), (1, 0, 1, 1)), 1, 0),
)
"""Walks, bits of a word, and the word in all other places."""

UNIT = CountedUnit(
    name="places",
    summary="walks over rows, pixels and words, and says which of them lie in a part",
    ranges=WALK,
    sources=("cycle", "place", "places"),
    ports=lambda values: Ports((), (Port("belongs", 1),), (RESET, Control("step", (0.3, 1.0)))),
    rule=lambda values: check_walk("places", values),
    latency=lambda values: 1,
    reference=_reference,
    counted=counted,
    samples=tuple(walk for walk, _, _ in FILLED),
)
