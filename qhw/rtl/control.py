"""Units that control a folded layer: counters with their handshake, and the memory that repeats words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from qhw.errors import InputError
from qhw.formats.modes import IntArray
from qhw.rtl.memories import MEMORY, MEMORY_STYLES, check_words
from qhw.rtl.unit import Control, Parameter, Port, Ports, Streams, Unit, Values, at_least

_WILLING = (0.2, 0.6, 1.0)
_RESET = Control("reset", (0.0, 0.0, 0.0, 0.0002), start=1)
_COUNTER = ("cycle", "counted")


def _rows(inputs: Streams, *names: str) -> Iterator[tuple[int, ...]]:
    return zip(*(inputs[name][:, 0].tolist() for name in names), strict=True)


def _columns(names: tuple[str, ...], rows: Sequence[tuple[int, ...]], wide: bool = False) -> Streams:
    kind = object if wide else np.int64
    return {
        name: np.array(column, dtype=kind)[:, None]
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def _controlled(values: Values, inputs: Streams) -> Streams:
    """Nested counters as one number of words, and a list of what is on its way."""
    sums, words = values["I"], values["F"] * values["I"]
    place, flight = 0, [(0, 0)] * values["D"]
    rows = []
    for reset, x_valid, y_ready in _rows(inputs, "reset", "x_valid", "y_ready"):
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
    return _columns(("enable", "y_valid", "y_last", "first", "address"), rows)


def _control_ports(values: Values) -> Ports:
    address = Port("address", max(1, (values["F"] * values["I"] - 1).bit_length()))
    flags = tuple(Port(name, 1) for name in ("enable", "y_valid", "y_last", "first"))
    return Ports((), (*flags, address), (_RESET, Control("x_valid", _WILLING), Control("y_ready", _WILLING)))


LAYER_CONTROL = Unit(
    name="layer_control",
    summary="the counters and the handshake of a layer: P pixels, F folds of its outputs, I of its inputs",
    ranges=(
        Parameter("P", 1, 1 << 20, "pixels of an image"),
        Parameter("F", 1, 1 << 16, "folds of the outputs"),
        Parameter("I", 1, 1 << 16, "folds of the inputs"),
        Parameter("D", 1, 64, "clock edges from a word to the numbers that it ends", default=9),
    ),
    sources=(*_COUNTER, "layer_control"),
    ports=_control_ports,
    latency=lambda values: 1,
    reference=_controlled,
)


def window_span(values: Values) -> int:
    """Words from the first to the last under a window."""
    return ((values["K"] - 1) * values["N"] + values["K"]) * values["C"]


def window_words(values: Values) -> int:
    """Words of the memory: a power of two."""
    return 1 << max(1, (window_span(values) - 1).bit_length())


def _reading_order(values: Values) -> tuple[IntArray, IntArray]:
    """The number of each word that an image's windows read, and how many words each read makes needless."""
    side, words = values["K"], values["C"]
    places = [(y, x) for y in range(values["M"] - side + 1) for x in range(values["N"] - side + 1)]
    starts = np.array([(y * values["N"] + x) * words for y, x in places])
    taps = np.array([(r * values["N"] + c) * words for r in range(side) for c in range(side)])
    channels = np.arange(words)
    if values["DEPTHWISE"]:
        window = (channels[:, None] + taps).ravel()
    else:
        window = np.tile((taps[:, None] + channels).ravel(), values["F"])
    following = np.append(starts[1:], values["M"] * values["N"] * words)
    released = np.repeat(starts[:, None], len(window), axis=1)
    released[:, -1] = following
    return (starts[:, None] + window).ravel(), released.ravel()


def _windowed(values: Values, inputs: Streams) -> Streams:
    """All words that ever came, and a place in the reading order of the endless row of images."""
    order, released = _reading_order(values)
    image, span, most = values["M"] * values["N"] * values["C"], window_span(values), window_words(values)
    words: list[int] = []
    at, base, start, y = 0, 0, 0, 0
    rows = []
    for reset, x_valid, read, x in _rows(inputs, "reset", "x_valid", "read", "x"):
        write = x_valid and len(words) - start < most
        if read and len(words) - start >= span:
            y, start = words[base + order[at]], base + int(released[at])
            at = (at + 1) % len(order)
            base += 0 if at else image
        if write:
            words.append(x)
        if reset:
            words, at, base, start = [], 0, 0, 0
        rows.append((int(len(words) - start < most), int(len(words) - start >= span), y))
    return _columns(("x_ready", "y_valid", "y"), rows, wide=True)


def _window_rule(values: Values) -> None:
    for name in ("N", "M"):
        at_least("window_buffer", values, name, values["K"], "the window is wider than the image")
    if values["DEPTHWISE"] and values["F"] > 1:
        raise InputError(
            f"F of window_buffer is {values['F']} with DEPTHWISE=1, whose folds are C",
            allowed="1",
        )
    check_words("window_buffer", {**values, "D": window_words(values)})


WINDOW_BUFFER = Unit(
    name="window_buffer",
    summary="the rows of an image that a K x K window lies on, and its words in the order of a folded layer",
    ranges=(
        Parameter("K", 1, 16, "pixels along the window's side"),
        Parameter("N", 1, 1 << 12, "pixels of a row"),
        Parameter("M", 1, 1 << 12, "rows"),
        Parameter("C", 1, 1 << 12, "words of a pixel"),
        Parameter(
            "DEPTHWISE", 0, 1, "whether the words of a pixel are read one window after the other", default=0
        ),
        Parameter("F", 1, 1 << 12, "times that a window is read"),
        Parameter("W", 1, 1024, "bits of a word"),
        Parameter("STYLE", 1, 3, MEMORY_STYLES),
    ),
    sources=(*_COUNTER, *MEMORY, "window_buffer"),
    ports=lambda values: Ports(
        (Port("x", values["W"]),),
        (Port("x_ready", 1), Port("y_valid", 1), Port("y", values["W"])),
        (_RESET, Control("x_valid", _WILLING), Control("read", _WILLING)),
    ),
    latency=lambda values: 1,
    reference=_windowed,
    rule=_window_rule,
    warm_up=lambda values: 25 * window_span(values) + 25,
    memories=True,
)
