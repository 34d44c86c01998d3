"""The rows of an image that a window lies on, with strides, dilation and groups; a folded layer's timing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.rtl.base import Control, CountedUnit, Parameter, Port, Ports, Streams, Values
from qhw.rtl.shared import lut4
from qhw.rtl.shared.arithmetic import at_least
from qhw.rtl.shared.counting import Counting, Taken
from qhw.rtl.shared.memories import FIRST_READ
from qhw.rtl.shared.streams import RESET, WILLING, columns_of, rows_of
from qhw.rtl.shared.structure import counter_bits
from qhw.rtl.shared.timing import Machine, Timing


@dataclass(frozen=True)
class Window:
    """The loops, by the names of the parameters."""

    M: int
    N: int
    C: int
    KM: int = 1
    KN: int = 1
    SM: int = 1
    SN: int = 1
    DM: int = 1
    DN: int = 1
    OM: int = 1
    ON: int = 1
    G: int = 1
    F: int = 1

    @property
    def span(self) -> int:
        """Words from a window's first to its last."""
        return ((self.KM - 1) * self.DM * self.N + (self.KN - 1) * self.DN + 1) * self.C

    @property
    def reads(self) -> int:
        """Words that are read at a place."""
        return self.KM * self.KN * self.C * self.F

    @property
    def released(self) -> tuple[int, int, int]:
        """Words that are done with behind a place, a row of places, and an image."""
        side = self.SN * self.C
        rest = self.M * self.N * self.C - (self.OM - 1) * self.SM * self.N * self.C - (self.ON - 1) * side
        return side, self.SM * self.N * self.C - (self.ON - 1) * side, rest


@dataclass(frozen=True)
class Folded(Timing):
    """``sliding_window`` and ``layer_control`` behind it.

    Args:
        window: its loops.
        depth: words of its memory.
        sum_words: words of a sum.
        edges: from a word to the numbers that it ends.
    """

    window: Window
    depth: int
    sum_words: int
    edges: int

    kind = 8

    @property
    def numbers(self) -> tuple[int, ...]:
        window = self.window
        loops = (window.reads, window.ON, window.OM, *window.released)
        return self.depth, window.span, self.sum_words, self.edges, *loops

    def machine(self) -> FoldedMachine:
        return FoldedMachine(self)


class FoldedMachine(Machine):
    """The window's level and place, and what is on its way to the outputs."""

    def __init__(self, timing: Folded) -> None:
        window = timing.window
        self.depth, self.span, self.sum_words = timing.depth, window.span, timing.sum_words
        self.reads, self.columns, self.rows = window.reads, window.ON, window.OM
        self.released = window.released
        self.entry, self.flight = 1 << timing.edges, 0
        self.level = self.word = self.column = self.row = self.in_sum = 0

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        goes = self.level >= self.span or self.in_sum == 0
        return (goes and bool(self.flight & 1),)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (self.level < self.depth,)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        there = self.level >= self.span
        write = inputs[0] and self.level < self.depth
        if (there or self.in_sum == 0) and (outputs[0] or not self.flight & 1):
            ends = False
            if there:
                self.in_sum += 1
                ends = self.in_sum == self.sum_words
                if ends:
                    self.in_sum = 0
                self._read()
            self.flight = (self.flight | (self.entry if ends else 0)) >> 1
        self.level += write

    def _read(self) -> None:
        self.word += 1
        if self.word < self.reads:
            return
        self.word, last = 0, self.column == self.columns - 1
        bottom = self.row == self.rows - 1
        self.level -= self.released[last + (last and bottom)]
        self.column = 0 if last else self.column + 1
        if last:
            self.row = 0 if bottom else self.row + 1


_LOOPS = tuple(Window.__dataclass_fields__)


def window_of(values: Values) -> Window:
    """The loops among the parameters."""
    return Window(**{name: values[name] for name in _LOOPS})


def reading_order(window: Window) -> tuple[IntArray, IntArray]:
    """The number of each word that an image's windows read, and where the next window starts then.

    Found by indexing an array of the image, place by place; what lies behind the image comes last.
    """
    w = window
    numbers = np.arange(w.M * w.N * w.C).reshape(w.M, w.N, w.G, w.C // w.G)
    words, starts = [], []
    for row in range(w.OM):
        for column in range(w.ON):
            y, x = row * w.SM, column * w.SN
            under = numbers[y : y + (w.KM - 1) * w.DM + 1 : w.DM, x : x + (w.KN - 1) * w.DN + 1 : w.DN]
            groups = under.transpose(2, 0, 1, 3).reshape(w.G, 1, -1)
            words.append(np.broadcast_to(groups, (w.G, w.F, groups.shape[2])).reshape(-1))
            starts.append(numbers[y, x, 0, 0])
    starts.append(numbers.size)
    following = np.repeat(starts[:-1], len(words[0])).reshape(len(words), -1)
    following[:, -1] = starts[1:]
    return np.concatenate(words), following.reshape(-1)


def _reference(values: Values, inputs: Streams) -> Streams:
    """All words that ever came, and a place in the reading order of the endless row of images."""
    window = window_of(values)
    order, following = (part.tolist() for part in reading_order(window))
    image, span, most = window.M * window.N * window.C, window.span, values["D"]
    words: list[int] = []
    at, base, start, y = 0, 0, 0, 0
    rows = []
    for reset, x_valid, read, x in rows_of(inputs, "reset", "x_valid", "read", "x"):
        write = x_valid and len(words) - start < most
        if read and len(words) - start >= span:
            y, start = words[base + order[at]], base + following[at]
            at = (at + 1) % len(order)
            base += 0 if at else image
        if write:
            words.append(x)
        if reset:
            words, at, base, start = [], 0, 0, 0
        rows.append((int(len(words) - start < most), int(len(words) - start >= span), y))
    return columns_of(("x_ready", "y_valid", "y"), rows, wide=True)


def _rule(values: Values) -> None:
    name, window = "sliding_window", window_of(values)
    reach = {
        "M": (values["OM"] - 1) * values["SM"] + (values["KM"] - 1) * values["DM"] + 1,
        "N": (values["ON"] - 1) * values["SN"] + (values["KN"] - 1) * values["DN"] + 1,
    }
    for axis, needed in reach.items():
        at_least(name, values, axis, needed, "a window lies beyond the image")
    at_least(name, values, "D", window.span, "the memory does not hold what lies under the window")


def _counted(values: Values, counting: Counting) -> Taken:
    """Its loops, addresses and level, and the memory."""
    p = values
    group = p["C"] // p["G"]
    counts = (group, p["KN"], p["KM"], p["F"], p["G"], p["ON"], p["OM"])
    total = counting.memory(p["D"], p["W"], p["STYLE"])
    for count in counts:
        total += counting.counter(count) if count > 1 else Taken()
    address = counter_bits(p["D"])
    image = p["M"] * p["N"] * p["C"]
    level = max(image, p["D"]).bit_length() + 1
    chosen = _chosen(p, address)
    if counting.is_xilinx:
        sums = chosen + 1.5 * level + 3
    else:
        sums = lut4.adder(address) * 2.0 + 4.0 * chosen + lut4.adder(level) * 2.0 + 4
    return total + Taken(lut=sums, ff=float(2 * address + level))


def _chosen(p: Values, address: int) -> int:
    """Bits of the read address' step that differ among those at the ends of the loops that there are."""
    group = p["C"] // p["G"]
    reach = ((p["KM"] - 1) * p["DM"] * p["N"] + (p["KN"] - 1) * p["DN"]) * p["C"] + group - 1
    side, row = p["SN"] * p["C"], p["SM"] * p["N"] * p["C"]
    below = row - (p["ON"] - 1) * side
    rest = p["M"] * p["N"] * p["C"] - (p["OM"] - 1) * row - (p["ON"] - 1) * side
    last = (p["G"] - 1) * group + reach
    steps = [
        (group, 1),
        (p["KN"], p["DN"] * p["C"] - group + 1),
        (p["KM"], (p["DM"] * p["N"] - (p["KN"] - 1) * p["DN"]) * p["C"] - group + 1),
        (p["F"], -reach),
        (p["G"], group - reach),
        (p["ON"], side - last),
        (p["OM"], below - last),
        (2, rest - last),
    ]
    numbers = [step % (1 << address) for count, step in steps if count > 1]
    differ = 0
    for number in numbers:
        differ |= number ^ numbers[0]
    return differ.bit_count()


_MEANINGS = {
    "M": "rows of the image",
    "N": "pixels of a row",
    "C": "words of a pixel",
    "KM": "rows of the window",
    "KN": "pixels of a row of the window",
    "SM": "rows between places",
    "SN": "pixels between places",
    "DM": "rows between those of the window",
    "DN": "pixels between those of the window",
    "OM": "rows of places",
    "ON": "places of a row",
    "G": "groups of a pixel's words",
    "F": "readings of each group",
}


def _sample(window: Window, bits: int, depth: int, style: int = 1, early: int = 0) -> Values:
    return {**vars(window), "W": bits, "D": depth, "STYLE": style, "EARLY": early}


UNIT = CountedUnit(
    name="sliding_window",
    summary="the words under a window with strides, dilation and groups, in the order of a folded layer",
    ranges=(
        *(Parameter(name, 1, 1 << 20, _MEANINGS[name]) for name in _LOOPS),
        Parameter("W", 1, 1 << 14, "bits of a word"),
        Parameter("D", 2, 1 << 20, "words of the memory, a power of two"),
        Parameter("STYLE", 1, 2, "1 LUT memory, 2 block RAM", default=1),
        Parameter("EARLY", 0, 1, "whether x_ready and y_valid are registers", default=0),
    ),
    sources=("cycle", "counted", "memory", "sliding_window"),
    ports=lambda values: Ports(
        (Port("x", values["W"]),),
        (Port("x_ready", 1), Port("y_valid", 1), Port("y", values["W"])),
        (RESET, Control("x_valid", WILLING), Control("read", WILLING)),
    ),
    rule=_rule,
    memories=True,
    latency=lambda values: 1,
    reference=_reference,
    warm_up=lambda values: FIRST_READ + 20 * values["D"],
    counted=_counted,
    samples=tuple(
        _sample(window, bits, depth, style, early)
        for window, bits, depth, style in (
            (Window(5, 4, 2, 3, 2, OM=3, ON=3, F=2), 6, 32, 1),
            (Window(6, 5, 1, 2, 2, 2, 3, OM=3, ON=2), 9, 8, 1),
            (Window(7, 6, 2, 2, 3, 1, 1, 3, 2, OM=4, ON=2, G=2), 70, 64, 2),
            (Window(1, 9, 3, ON=9, F=4), 5, 4, 1),
            (Window(3, 3, 4, 3, 3, G=2, F=3), 8, 64, 1),
            (Window(4, 5, 3, 2, 1, 2, 2, OM=1, ON=2, G=3), 3, 32, 1),
            (Window(1, 1, 1), 4, 2, 1),
        )
        for early in (0, 1)
    ),
)
