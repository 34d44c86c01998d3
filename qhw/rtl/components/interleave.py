"""Two streams as one, some words of each at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qhw.rtl.base import CountedStream, Parameter, Port, Ports, Values, Words
from qhw.rtl.shared.counting import Counting, Taken
from qhw.rtl.shared.timing import Machine, Timing


@dataclass(frozen=True)
class Joined(Timing):
    """``a`` words of the first stream, then ``b`` of the second."""

    a: int
    b: int

    kind = 6

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.a, self.b

    def machine(self) -> JoinMachine:
        return JoinMachine(self.a, self.b)


class JoinMachine(Machine):
    """The place in a round."""

    def __init__(self, a: int, b: int) -> None:
        self.a, self.round, self.place = a, a + b, 0

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (inputs[self.place >= self.a],)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        first = self.place < self.a
        return outputs[0] and first, outputs[0] and not first

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        if outputs[0] and inputs[self.place >= self.a]:
            self.place = (self.place + 1) % self.round


def _reference(values: Values, given: Words) -> Words:
    """Round by round."""
    a, b = values["NA"], values["NB"]
    words: list[int] = []
    for turn in range(len(given["a"]) // a):
        words += given["a"][turn * a : (turn + 1) * a]
        words += given["b"][turn * b : (turn + 1) * b]
    return {"y": words}


def _counted(values: Values, counting: Counting) -> Taken:
    return counting.counter(values["NA"] + values["NB"]) + Taken(lut=values["W"] + 4.0)


UNIT = CountedStream(
    name="interleave",
    summary="two streams as one: NA words of a, then NB words of b, and so on",
    ranges=(
        Parameter("W", 1, 1 << 14, "bits of a word"),
        Parameter("NA", 1, 1 << 20, "words of a"),
        Parameter("NB", 1, 1 << 20, "words of b"),
    ),
    sources=("cycle", "place", "interleave"),
    ports=lambda values: Ports(
        (Port("a", values["W"]), Port("b", values["W"])), (Port("y", values["W"]),), ()
    ),
    image=lambda values: (values["NA"], values["NB"]),
    reference=_reference,
    timing=lambda values: Joined(values["NA"], values["NB"]),
    counted=_counted,
    samples=(
        {"W": 3, "NA": 1, "NB": 1},
        {"W": 8, "NA": 2, "NB": 5},
        {"W": 40, "NA": 7, "NB": 1},
        {"W": 70, "NA": 3, "NB": 4},
    ),
)
