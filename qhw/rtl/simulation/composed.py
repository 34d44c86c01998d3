"""Measured units as circuits between streams, with the timings of the schedule: a queue, a folded layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qhw.rtl import UNITS
from qhw.rtl.base import Parameter, Port, Ports, StreamUnit, Values, Words
from qhw.rtl.components import COMPONENTS
from qhw.rtl.components.sliding_window import Folded, Window, reading_order, window_of
from qhw.rtl.fifo import Queue
from qhw.rtl.shared.memories import BLOCK_RAM, LUT_MEMORY, SHIFT_REGISTER

_QUEUE, _WINDOW = UNITS["fifo"], COMPONENTS["sliding_window"]

_EDGES = 3
"""From a word of the window to the sum that it ends: the read, and two registers of ``running_sum``."""


def _queue_text(values: Values) -> str:
    bits = values["W"]
    return f"""\
module queue (
    input clk, reset, x_valid, y_ready, input [{bits - 1}:0] x,
    output x_ready, y_valid, output [{bits - 1}:0] y
);
    fifo #(.D({values["D"]}), .W({bits}), .STYLE({values["STYLE"]})) words (
        .clk(clk), .reset(reset), .x_valid(x_valid), .x(x), .x_ready(x_ready),
        .y_valid(y_valid), .y_ready(y_ready), .y(y), .count()
    );
endmodule
"""


def _sum_bits(values: Values) -> int:
    return values["W"] + (values["I"] - 1).bit_length()


def _sums(values: Values, given: Words) -> Words:
    """The words under the windows of each image, added up in the order in which they are read."""
    window = window_of(values)
    images = np.array(given["x"], dtype=object).reshape(-1, window.M * window.N * window.C)
    read = images[:, reading_order(window)[0]].reshape(-1, values["I"])
    return {"y": read.sum(axis=1).tolist()}


def _folded_text(values: Values) -> str:
    """As ``flows/rtl/emission/windows.py`` puts a pool together."""
    window, bits, total = window_of(values), values["W"], _sum_bits(values)
    folds = window.reads // values["I"]
    loops = ", ".join(f".{name}({values[name]})" for name in COMPONENTS["sliding_window"].parameters)
    return f"""\
module folded_sum (
    input clk, reset, x_valid, y_ready, input [{bits - 1}:0] x,
    output x_ready, y_valid, output [{total - 1}:0] y
);
    wire [{bits - 1}:0] window;
    wire there, enable, first;
    reg first_1;
    always @(posedge clk) if (enable) first_1 <= first;
    sliding_window #({loops}) rows (
        .clk(clk), .reset(reset), .x_valid(x_valid), .x(x), .x_ready(x_ready),
        .read(enable), .y_valid(there), .y(window)
    );
    layer_control #(.P({window.OM * window.ON}), .F({folds}), .I({values["I"]}), .D({_EDGES})) control (
        .clk(clk), .reset(reset), .x_valid(there), .y_ready(y_ready), .enable(enable), .y_valid(y_valid),
        .y_last(), .first(first), .address()
    );
    running_sum #(.W({bits}), .S(0), .A({total})) total (
        .clk(clk), .enable(enable), .first(first_1), .x(window), .y(y)
    );
endmodule
"""


def _folded(window: Window, words: int, bits: int, depth: int, early: int = 0) -> Values:
    return {**vars(window), "W": bits, "D": depth, "STYLE": LUT_MEMORY, "EARLY": early, "I": words}


COMPOSED: Mapping[str, StreamUnit] = {
    "queue": StreamUnit(
        name="queue",
        summary="a fifo in a stream",
        ranges=_QUEUE.ranges,
        sources=_QUEUE.sources,
        ports=lambda values: Ports((Port("x", values["W"]),), (Port("y", values["W"]),), ()),
        rule=_QUEUE.rule,
        image=lambda values: (1,),
        reference=lambda values, given: {"y": given["x"]},
        timing=lambda values: Queue(values["D"]),
        samples=(
            {"D": 2, "W": 8, "STYLE": LUT_MEMORY},
            {"D": 2, "W": 3, "STYLE": SHIFT_REGISTER},
            {"D": 7, "W": 70, "STYLE": LUT_MEMORY},
            {"D": 100, "W": 12, "STYLE": BLOCK_RAM},
        ),
        carrier=_queue_text,
    ),
    "folded_sum": StreamUnit(
        name="folded_sum",
        summary="sliding_window, layer_control and running_sum: sums of I words under a window",
        ranges=(*_WINDOW.ranges, Parameter("I", 1, 1 << 16, "words of a sum")),
        sources=(*_WINDOW.sources, "layer_control", *COMPONENTS["running_sum"].sources),
        ports=lambda values: Ports((Port("x", values["W"]),), (Port("y", _sum_bits(values)),), ()),
        rule=_WINDOW.rule,
        image=lambda values: (values["M"] * values["N"] * values["C"],),
        reference=_sums,
        timing=lambda values: Folded(window_of(values), values["D"], values["I"], _EDGES),
        samples=(
            _folded(Window(5, 4, 2, 3, 2, OM=3, ON=3, F=2), 12, 6, 32),
            _folded(Window(6, 6, 1, 2, 2, 2, 2, OM=3, ON=3), 4, 8, 8, early=1),
            _folded(Window(4, 4, 3, 3, 3, OM=2, ON=2, G=3), 9, 5, 64),
            _folded(Window(1, 3, 1, ON=3, F=4), 1, 9, 2),
            _folded(Window(1, 1, 6, F=5), 6, 4, 8, early=1),
        ),
        carrier=_folded_text,
    ),
}
"""By name; each proof is that of a timing in the schedule as much as of the circuits."""
