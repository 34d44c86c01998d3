"""The constants that go with a stream's words."""

from __future__ import annotations

from qhw.rtl.base import Control, CountedUnit, Port, Ports, Streams, Values
from qhw.rtl.components.rom import CONSTANT_MEMORIES, CONSTANT_MEMORY
from qhw.rtl.shared.counting import Counting, Taken
from qhw.rtl.shared.memories import FIRST_READ
from qhw.rtl.shared.streams import RESET, column, drawn_words, rows_of


def _reference(values: Values, inputs: Streams) -> Streams:
    """A list that goes round, a word on with each word of the stream."""
    words = drawn_words(values)
    at, y, rows = 0, 0, []
    for reset, moves, x_valid in rows_of(inputs, "reset", "moves", "x_valid"):
        if moves:
            y = words[at]
        at = 0 if reset else (at + (moves & x_valid)) % len(words)
        rows.append(y)
    return {"y": column(rows, values["W"])}


def _counted(values: Values, counting: Counting) -> Taken:
    if values["D"] == 1:
        return Taken()
    return counting.constants(values["STYLE"]) + counting.counter(values["D"])


def _emit(values: Values) -> str:
    """Its enable by another name: a reset counts while it is 0, so a proof cannot skip such cycles."""
    settings = ", ".join(f".{name}({values[name]})" for name in ("D", "W", "STYLE"))
    return f"""\
module constants #(parameter FILE = "") (
    input clk, reset, moves, x_valid, output [{values["W"] - 1}:0] y
);
    constants #({settings}, .FILE(FILE)) words (
        .clk(clk), .reset(reset), .enable(moves), .x_valid(x_valid), .y(y)
    );
endmodule
"""


UNIT = CountedUnit(
    name="constants",
    summary="the constants of a stream's words, in rounds of D words of W bits",
    ranges=CONSTANT_MEMORY,
    sources=("cycle", "rom", "constants"),
    ports=lambda values: Ports(
        (),
        (Port("y", values["W"]),),
        (RESET, Control("moves", (0.4, 1.0)), Control("x_valid", (0.4, 1.0))),
    ),
    memories=True,
    constants=drawn_words,
    emit=_emit,
    latency=lambda values: 1,
    reference=_reference,
    warm_up=lambda values: FIRST_READ,
    counted=_counted,
    samples=CONSTANT_MEMORIES,
)
