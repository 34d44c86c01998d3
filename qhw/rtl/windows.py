"""Units of windows over an image: the pixels under a window, and the largest of some numbers."""

from __future__ import annotations

import numpy as np

from qhw.formats import Integer
from qhw.rtl.memories import MEMORY, MEMORY_STYLES, check_words
from qhw.rtl.unit import Parameter, Port, Ports, Streams, Unit, Values, at_least, levels, mantissas


def _window(values: Values, inputs: Streams) -> Streams:
    """Each pixel of the window as the image of some steps ago."""
    x = inputs["x"][:, 0]
    size, row = values["K"], values["N"]
    ago = [r * row + c for r in range(size) for c in range(size)]
    steps = np.arange(len(x))
    return {"window": np.stack([x[np.maximum(steps - delay, 0)] for delay in ago], axis=1)}


def _line_rule(values: Values) -> None:
    at_least("line_buffer", values, "N", values["K"], "the window is wider than a row")
    check_words("line_buffer", values, "N")


LINE_BUFFER = Unit(
    name="line_buffer",
    summary="the K x K pixels of W bits that a window lies on, over rows of N",
    ranges=(
        Parameter("K", 2, 16, "pixels along the window's side"),
        Parameter("W", 1, 1024, "bits of a pixel, all its channels"),
        Parameter("N", 2, 1 << 16, "pixels of a row"),
        Parameter("STYLE", 0, 3, f"0 shift registers, {MEMORY_STYLES}"),
    ),
    sources=("cycle", *MEMORY, "shift_register", "line_buffer"),
    ports=lambda values: Ports((Port("x", values["W"]),), (Port("window", values["W"], values["K"] ** 2),)),
    latency=lambda values: 1,
    reference=_window,
    rule=_line_rule,
    warm_up=lambda values: (values["K"] - 1) * (values["N"] + 1),
    memories=True,
    srl=True,
)


def _largest(values: Values, inputs: Streams) -> Streams:
    x = mantissas(Integer(values["W"], bool(values["S"])), inputs["x"], values["W"])
    return {"y": x.max(axis=1)[:, None]}


MAX_POOL = Unit(
    name="max_pool",
    summary="y = the largest of N integers",
    ranges=(
        Parameter("W", 1, 64, "bits of a number"),
        Parameter("N", 2, 256, "numbers"),
        Parameter("S", 0, 1, "whether they are signed", default=1),
    ),
    sources=("extend", "at_least", "max_pool"),
    ports=lambda values: Ports(
        (Port("x", values["W"], values["N"]),), (Port("y", values["W"], signed=bool(values["S"])),)
    ),
    latency=lambda values: 1 + levels(values["N"]),
    reference=_largest,
)
