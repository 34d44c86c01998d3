"""Valid and ready of registers that move together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qhw.rtl.base import CountedStream, Parameter, Port, Ports, Values
from qhw.rtl.shared.counting import Taken
from qhw.rtl.shared.timing import Machine, Timing


@dataclass(frozen=True)
class Pipeline(Timing):
    """``depth`` registers that move together; of several inputs it takes one word each."""

    depth: int

    kind = 1

    @property
    def numbers(self) -> tuple[int, ...]:
        return (self.depth,)

    def machine(self) -> PipelineMachine:
        return PipelineMachine(self.depth)


class PipelineMachine(Machine):
    """Which registers hold a word, the last in the lowest bit."""

    def __init__(self, depth: int) -> None:
        self.entry, self.held = 1 << depth, 0

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (bool(self.held & 1),)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        moves = outputs[0] or not self.held & 1
        if len(inputs) == 1:
            return (moves,)
        both = moves and inputs[0] and inputs[1]
        return both, both

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        if outputs[0] or not self.held & 1:
            self.held = (self.held | (self.entry if all(inputs) else 0)) >> 1


_BITS = 8
"""Bits of the words that pass beside it in a proof."""


def _carrier(values: Values) -> str:
    """The control, and as many registers that it moves."""
    depth = values["D"]
    return f"""\
module pipeline_control (
    input clk, reset, x_valid, y_ready, input [{_BITS - 1}:0] x,
    output x_ready, y_valid, output [{_BITS - 1}:0] y
);
    wire enable;
    pipeline_control #(.D({depth})) control (
        .clk(clk), .reset(reset), .x_valid(x_valid), .x_ready(x_ready),
        .y_valid(y_valid), .y_ready(y_ready), .enable(enable)
    );
    delay #(.W({_BITS}), .D({depth})) registers (.clk(clk), .enable(enable), .x(x), .y(y));
endmodule
"""


UNIT = CountedStream(
    name="pipeline_control",
    summary="valid and ready of a pipeline of D registers",
    ranges=(Parameter("D", 1, 1 << 12, "registers in a row"),),
    sources=("delay", "pipeline_control"),
    ports=lambda values: Ports((Port("x", _BITS),), (Port("y", _BITS),), ()),
    image=lambda values: (1,),
    reference=lambda values, given: {"y": given["x"]},
    timing=lambda values: Pipeline(values["D"]),
    counted=lambda values, counting: Taken(lut=1.0, ff=float(values["D"])),
    samples=({"D": 1}, {"D": 2}, {"D": 9}, {"D": 40}),
    carrier=_carrier,
)
