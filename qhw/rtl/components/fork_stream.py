"""A stream for several readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qhw.rtl.base import CountedStream, Parameter, Port, Ports, Values
from qhw.rtl.shared.counting import Taken
from qhw.rtl.shared.timing import Machine, Timing


@dataclass(frozen=True)
class Fork(Timing):
    """To so many ``readers``."""

    readers: int

    kind = 5

    @property
    def numbers(self) -> tuple[int, ...]:
        return (self.readers,)

    def machine(self) -> ForkMachine:
        return ForkMachine(self.readers)


class ForkMachine(Machine):
    """Which readers have taken the word."""

    def __init__(self, readers: int) -> None:
        self.taken = [False] * readers

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return [inputs[0] and not taken for taken in self.taken]

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (all(taken or out for taken, out in zip(self.taken, outputs, strict=True)),)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        if not inputs[0]:
            return
        done = [taken or out for taken, out in zip(self.taken, outputs, strict=True)]
        self.taken = [False] * len(done) if all(done) else done


_BITS = 8
"""Bits of the words that pass beside it in a proof."""


def _carrier(values: Values) -> str:
    """The fork, and the word at every reader."""
    n = values["N"]
    return f"""\
module fork_stream (
    input clk, reset, x_valid, input [{n - 1}:0] y_ready, input [{_BITS - 1}:0] x,
    output x_ready, output [{n - 1}:0] y_valid, output [{n * _BITS - 1}:0] y
);
    fork_stream #(.N({n})) fork_of (
        .clk(clk), .reset(reset), .x_valid(x_valid), .x_ready(x_ready), .y_valid(y_valid), .y_ready(y_ready)
    );
    assign y = {{{n}{{x}}}};
endmodule
"""


UNIT = CountedStream(
    name="fork_stream",
    summary="valid and ready of a stream with N readers",
    ranges=(Parameter("N", 2, 1 << 10, "readers"),),
    sources=("fork_stream",),
    ports=lambda values: Ports((Port("x", _BITS),), (Port("y", _BITS, values["N"]),), ()),
    image=lambda values: (1,),
    reference=lambda values, given: {"y": given["x"]},
    timing=lambda values: Fork(values["N"]),
    counted=lambda values, counting: Taken(lut=2.0 * values["N"] + 1, ff=float(values["N"])),
    samples=({"N": 2}, {"N": 3}, {"N": 7}),
    carrier=_carrier,
)
