"""The counters and the handshake of a folded layer."""

from __future__ import annotations

from functools import partial

from qhw.rtl.base import (
    Axis,
    ClosedForms,
    Control,
    Features,
    MeasuredUnit,
    Parameter,
    Port,
    Ports,
    Space,
    Streams,
    Values,
)
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.streams import COUNTER, RESET, WILLING, columns_of, rows_of
from qhw.rtl.shared.structure import counter_bits


def _reference(values: Values, inputs: Streams) -> Streams:
    """Nested counters as one number of words, and a list of what is on its way."""
    sums, words = values["I"], values["F"] * values["I"]
    place, flight = 0, [(0, 0)] * values["D"]
    rows = []
    for reset, x_valid, y_ready in rows_of(inputs, "reset", "x_valid", "y_ready"):
        goes = x_valid or place % sums == 0
        enable = goes and (y_ready or not flight[-1][0])
        if enable:
            ends = int(x_valid and place % sums == sums - 1)
            flight = [(ends, int(x_valid and place == values["P"] * words - 1)), *flight[:-1]]
            place = (place + x_valid) % (values["P"] * words)
        if reset:
            place, flight = 0, [(0, 0)] * values["D"]
        first = int(place % sums == 0)
        goes, (valid, last) = x_valid or first, flight[-1]
        rows.append((int(goes and (y_ready or not valid)), int(goes and valid), last, first, place % words))
    return columns_of(("enable", "y_valid", "y_last", "first", "address"), rows)


def _ports(values: Values) -> Ports:
    address = Port("address", max(1, (values["F"] * values["I"] - 1).bit_length()))
    flags = tuple(Port(name, 1) for name in ("enable", "y_valid", "y_last", "first"))
    return Ports((), (*flags, address), (RESET, Control("x_valid", WILLING), Control("y_ready", WILLING)))


_COUNTS = (1, 1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 25, 32, 36, 49, 64, 72, 96, 128, 144, 196, 256, 288, 400, 512)
_PIXELS = (*_COUNTS[1:], 676, 784, 1024, 1600, 2048, 3136, 4096)


def _counters(values: Values) -> tuple[int, ...]:
    """Steps of each counter: the weights' address, a sum's words where there are several sums, the pixels."""
    words = values["I"] if values["F"] > 1 else 1
    return values["F"] * values["I"], words, values["P"]


def _features(cells: Cells, values: Values) -> Features:
    return {
        "handshake": 1,
        "counter LUTs": sum(map(cells.counter, _counters(values))),
        "sums of several words": values["I"] > 1,
    }


def _registers(values: Values) -> int:
    """Besides the counters: whether a sum starts, and two flags for every edge on the way to the outputs."""
    flags = values["D"] * (1 if values["F"] * values["P"] == 1 else 2)
    return sum(map(counter_bits, _counters(values))) + flags + (values["I"] > 1)


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, cells_of(family)), _registers)


UNIT = MeasuredUnit(
    name="layer_control",
    summary="the counters and the handshake of a layer: P pixels, F folds of its outputs, I of its inputs",
    ranges=(
        Parameter("P", 1, 1 << 20, "pixels of an image"),
        Parameter("F", 1, 1 << 16, "folds of the outputs"),
        Parameter("I", 1, 1 << 16, "folds of the inputs"),
        Parameter("D", 1, 64, "clock edges from a word to the numbers that it ends", default=9),
    ),
    sources=(*COUNTER, "layer_control"),
    ports=_ports,
    latency=lambda values: 1,
    reference=_reference,
    space=Space(
        place=19,
        points=45,
        axes=(
            *(Axis("P", choices=_PIXELS), Axis("F", choices=_COUNTS), Axis("I", choices=_COUNTS)),
            Axis("D", 4, 24),
        ),
    ),
    closed_forms=_closed_forms,
)
