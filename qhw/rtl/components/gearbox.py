"""Words of another width: the same elements, more or fewer of them in a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm

from qhw.rtl.base import CountedStream, Parameter, Port, Ports, Values, Words
from qhw.rtl.shared.counting import Counting, Taken
from qhw.rtl.shared.structure import levels
from qhw.rtl.shared.timing import Machine, Timing


@dataclass(frozen=True)
class Gear(Timing):
    """Words of ``a`` elements become words of ``b``."""

    a: int
    b: int

    kind = 2

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.a, self.b

    def machine(self) -> GearMachine:
        return GearMachine(self.a, self.b)


class GearMachine(Machine):
    """Its elements."""

    def __init__(self, a: int, b: int) -> None:
        self.a, self.b, self.count = a, b, 0

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (self.count >= self.b,)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        if self.a % self.b == 0:
            return (self.count == 0 or (self.count == self.b and outputs[0]),)
        if self.b % self.a == 0:
            return (self.count != self.b or outputs[0],)
        return (self.count <= self.b,)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        push = inputs[0] and self.ready(inputs, outputs)[0]
        pull = self.count >= self.b and outputs[0]
        self.count += self.a * push - self.b * pull


def _reference(values: Values, given: Words) -> Words:
    """All elements in a row, cut anew."""
    a, b, bits = values["A"], values["B"], values["W"]
    mask = (1 << bits) - 1
    elements = [word >> i * bits & mask for word in given["x"] for i in range(a)]
    cut = (elements[at : at + b] for at in range(0, len(elements), b))
    return {"y": [sum(element << i * bits for i, element in enumerate(word)) for word in cut]}


def _counted(values: Values, counting: Counting) -> Taken:
    a, b, bits = values["A"], values["B"], values["W"]
    room = a if a % b == 0 else b if b % a == 0 else a + b
    common = gcd(a, b)
    low = (common & -common).bit_length() - 1
    count = room.bit_length() - low
    ff = room * bits + count
    control = 2.0 + count
    if a % b == 0:
        return Taken(lut=(a - b) * bits + control, ff=float(ff))
    if b % a == 0:
        return Taken(lut=control, ff=float(ff))
    steps = levels(room // common + 1)
    return Taken(lut=control + room * bits * (1.0 + steps / 2), ff=float(ff))


UNIT = CountedStream(
    name="gearbox",
    summary="words of A elements as words of B elements",
    ranges=(
        Parameter("A", 1, 1 << 16, "elements of a word that comes in"),
        Parameter("B", 1, 1 << 16, "elements of a word that goes out"),
        Parameter("W", 1, 1 << 12, "bits of an element"),
    ),
    sources=("gearbox",),
    ports=lambda v: Ports((Port("x", v["A"] * v["W"]),), (Port("y", v["B"] * v["W"]),), ()),
    image=lambda values: (lcm(values["A"], values["B"]) // values["A"],),
    reference=_reference,
    timing=lambda values: Gear(values["A"], values["B"]),
    counted=_counted,
    samples=(
        {"A": 1, "B": 4, "W": 3},
        {"A": 6, "B": 2, "W": 5},
        {"A": 2, "B": 3, "W": 8},
        {"A": 12, "B": 8, "W": 9},
        {"A": 3, "B": 3, "W": 1},
        {"A": 5, "B": 1, "W": 33},
        {"A": 1, "B": 16, "W": 6},
        {"A": 7, "B": 5, "W": 2},
    ),
)
