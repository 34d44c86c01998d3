"""An image in another order, through a memory of the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.rtl.base import CountedStream, Parameter, Port, Ports, Values, Words
from qhw.rtl.shared.counting import Counting, Taken
from qhw.rtl.shared.timing import Machine, Timing


@dataclass(frozen=True)
class Gathered(Timing):
    """``taken`` words in, then ``given`` words out."""

    taken: int
    given: int

    kind = 7

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.taken, self.given

    def machine(self) -> GatherMachine:
        return GatherMachine(self.taken, self.given)


class GatherMachine(Machine):
    """Its counters and flags, as in the module."""

    def __init__(self, taken: int, given: int) -> None:
        self.words, self.length = taken, given
        self.taken = self.given = 0
        self.full = self.reading = self.closing = False
        self.held = [False, False]

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (self.held[1],)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (not self.full,)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        enable = outputs[0] or not self.held[1]
        write, step = inputs[0] and not self.full, enable and self.reading
        if enable:
            self.held = [self.reading, self.held[0]]
        if enable and self.closing:
            self.closing = self.full = False
        if write:
            self.taken = (self.taken + 1) % self.words
            if self.taken == 0:
                self.full = self.reading = True
        if step:
            self.given = (self.given + 1) % self.length
            if self.given == 0:
                self.reading, self.closing = False, True


def _addresses(values: Values) -> list[int]:
    """Addresses as a proof has them: every word if there is room, some of them several times."""
    rng = np.random.default_rng([values["D"], values["L"]])
    whole = rng.permutation(values["D"])[: values["L"]]
    return [*whole.tolist(), *rng.integers(0, values["D"], values["L"] - len(whole)).tolist()]


def _reference(values: Values, given: Words) -> Words:
    """Each image's words by their addresses."""
    images = np.array(given["x"], dtype=object).reshape(-1, values["D"])
    return {"y": images[:, _addresses(values)].reshape(-1).tolist()}


def _counted(values: Values, counting: Counting) -> Taken:
    total = counting.constants(values["FILE_STYLE"]) + counting.counter(values["L"])
    if values["D"] > 1:
        total += counting.counter(values["D"])
    memory = counting.memory(max(values["D"], 2), values["W"], values["STYLE"])
    return total + memory + Taken(lut=8.0, ff=5.0)


UNIT = CountedStream(
    name="gather_stream",
    summary="an image of D words in another order: L words, each from its address",
    ranges=(
        Parameter("W", 1, 1 << 14, "bits of a word"),
        Parameter("D", 1, 1 << 20, "words that come in"),
        Parameter("L", 1, 1 << 20, "words that go out"),
        Parameter("STYLE", 1, 2, "of the image's memory: 1 LUTs, 2 block RAM"),
        Parameter("FILE_STYLE", 1, 2, "of the addresses' memory"),
    ),
    sources=("cycle", "counter", "pipeline_control", "rom", "memory", "gather_stream"),
    ports=lambda values: Ports((Port("x", values["W"]),), (Port("y", values["W"]),), ()),
    memories=True,
    constants=_addresses,
    image=lambda values: (values["D"],),
    reference=_reference,
    timing=lambda values: Gathered(values["D"], values["L"]),
    counted=_counted,
    samples=(
        {"W": 8, "D": 6, "L": 6, "STYLE": 1, "FILE_STYLE": 1},
        {"W": 5, "D": 1, "L": 3, "STYLE": 1, "FILE_STYLE": 1},
        {"W": 70, "D": 16, "L": 40, "STYLE": 2, "FILE_STYLE": 1},
        {"W": 12, "D": 100, "L": 27, "STYLE": 2, "FILE_STYLE": 2},
        {"W": 3, "D": 5, "L": 1, "STYLE": 1, "FILE_STYLE": 1},
    ),
)
