"""How many instructions a step takes: a linear model per kernel, fitted on counts that QEMU measured.

Each kernel's count is a sum over what it does: multiply-accumulates, elements that it gathers or reads, elements
that it finishes and writes, pixels, and one call. ``benchmarks/mcu_instructions.py`` measures layers, fits the
weights on some and states the error on the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from qhw.flows.mcu.layout import Call, Layout
from qhw.flows.mcu.program import (
    ConvLayer,
    CopyLayer,
    ElementwiseLayer,
    MatMulLayer,
    PoolLayer,
    Step,
    TransposeLayer,
    UpsampleLayer,
    macs_of,
)
from qhw.outside.text import read_json
from qhw.resources import resource_dir

FEATURES = ("macs", "read", "written", "pixels", "calls")
MODEL_FILE = "instructions.json"

CPI_LOW, CPI_HIGH = 1.29, 1.60
"""Cycles per instruction of the one silicon measurement that is known; a cycle figure is modelled by them."""

_LARGEST_FILE = 1 << 20


def features(layout: Layout, step: Step) -> dict[str, float]:
    """What a step does, by the names of ``FEATURES``."""
    total = dict.fromkeys(FEATURES, 0.0)
    for call in layout.calls(step):
        for name, value in _of_call(layout, step, call).items():
            total[name] += value
    return total


def _of_call(layout: Layout, step: Step, call: Call) -> dict[str, float]:
    layer, out = step.layer, layout.program.maps[step.writes]
    pixels, written = call.pixels, call.pixels * out.channels
    read: float = written
    if isinstance(layer, ConvLayer):
        read = pixels * layer.in_channels * math.prod(layer.kernel)
    elif isinstance(layer, PoolLayer):
        read = pixels * layer.channels * math.prod(layer.kernel)
    elif isinstance(layer, ElementwiseLayer):
        read = written * (1 if layer.other is None else 2)
    elif isinstance(layer, CopyLayer):
        read = sum(math.prod(box.size) for box in layer.boxes)
    elif isinstance(layer, MatMulLayer | TransposeLayer | UpsampleLayer):
        pixels, written = out.pixels, out.pixels * out.channels
        read = written
    return {"macs": macs_of(step, pixels), "read": read, "written": written, "pixels": pixels, "calls": 1}


def variant(step: Step) -> str:
    """A kernel with the bits of its weights, and how it ends its sums: what its weights are fitted for."""
    layer, finish = step.layer, step.finish
    bits = f" {layer.weight.bits}-bit weights" if isinstance(layer, ConvLayer) else ""
    if finish is None:
        return step.kernel
    kind = finish.kind + (" " + finish.rounding if finish.kind == "ROUND" else "")
    return f"{step.kernel}{bits} {'64-bit ' if finish.wide else ''}{kind}"


def instructions(layout: Layout, step: Step, core: str) -> int:
    """The modelled instructions of a step in one inference.

    Where this variant of its kernel was not measured, the most that any measured one of it would take; where
    the kernel was not, the most of the portable one.
    """
    found = features(layout, step)
    return round(
        max(sum(weights[name] * found[name] for name in FEATURES) for weights in _candidates(step, core))
    )


def _candidates(step: Step, core: str) -> Sequence[Mapping[str, float]]:
    models = _models()
    known = models.get(core) or models["cortex-m7"]
    if variant(step) in known:
        return [known[variant(step)]]
    for kernel in (step.kernel, _portable(step)):
        if alike := [weights for name, weights in known.items() if name.split(" ")[0] == kernel]:
            return alike
    return [weights for name, weights in known.items() if name.startswith("qhw_conv")]


def _portable(step: Step) -> str:
    """The portable kernel that does what a step's does."""
    layer = step.layer
    if isinstance(layer, ConvLayer):
        return "qhw_depthwise" if layer.is_depthwise else "qhw_conv"
    if isinstance(layer, ElementwiseLayer):
        return "qhw_elementwise" if layer.other is None else "qhw_add"
    return "qhw_sum_pool" if isinstance(layer, PoolLayer) else "qhw_matmul"


def fit(rows: list[Mapping[str, float]], counts: list[int]) -> dict[str, float]:
    """Weights, none negative, with the least squared relative error."""
    from scipy.optimize import nnls

    table = np.array([[row[name] for name in FEATURES] for row in rows], dtype=np.float64)
    target = np.array(counts, dtype=np.float64)
    found, _ = nnls(table / target[:, np.newaxis], np.ones(len(target)))
    return {name: round(float(weight), 4) for name, weight in zip(FEATURES, found, strict=True)}


@cache
def model_label() -> str:
    """What the figures of this model are worth, for tables and manifests."""
    error = read_json(resource_dir("mcu") / MODEL_FILE, "model of instructions", _LARGEST_FILE)["held_out"]
    return (
        f"instructions modelled by a fit on QEMU's counts (median error {error['median']:.1%}, "
        f"95th percentile {error['p95']:.1%}, held out); cycles modelled, {CPI_HIGH} per instruction"
    )


@cache
def _models() -> dict[str, dict[str, dict[str, float]]]:
    stored = read_json(resource_dir("mcu") / MODEL_FILE, "model of instructions", _LARGEST_FILE)
    models: dict[str, dict[str, dict[str, float]]] = stored["weights"]
    return models
