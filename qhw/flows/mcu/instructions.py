"""How many instructions a step takes: a linear model per kernel, fitted on counts that QEMU measured.

Each kernel's count is a sum over what it does: multiply-accumulates, elements that it gathers or reads,
elements that it finishes and writes, pixels, and one call. ``benchmarks/mcu_instructions.py`` counts,
fits the weights on some and states the error on the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import numpy as np

from qhw.flows.mcu.containers import Container, Map
from qhw.flows.mcu.layout import Call, Layout
from qhw.flows.mcu.program import (
    ConvLayer,
    CopyLayer,
    ElementwiseLayer,
    Layer,
    MatMulLayer,
    PoolLayer,
    ReshapeLayer,
    Step,
    TransposeLayer,
    UpsampleLayer,
    macs_of,
)
from qhw.outside.text import read_json
from qhw.resources import resource_dir

MODEL_FILE = "instructions.json"

CPI_LOW, CPI_HIGH = 1.29, 1.60
"""Cycles per instruction of the one silicon measurement that is known; a cycle figure is modelled by them."""

_LARGEST_FILE = 1 << 20


def features(layout: Layout, step: Step) -> dict[str, float]:
    """What a step does: counts by name, a name being a kind of work and the formats that it depends on."""
    total: dict[str, float] = {}
    for call in layout.calls(step):
        for name, value in _of_call(layout, step, call).items():
            total[name] = total.get(name, 0.0) + value
    return total


def _of_call(layout: Layout, step: Step, call: Call) -> dict[str, float]:
    layer, out = step.layer, layout.program.maps[step.writes]
    pixels = call.pixels
    if isinstance(layer, CopyLayer | MatMulLayer | TransposeLayer | UpsampleLayer | ReshapeLayer):
        pixels = out.pixels
    written = pixels * out.channels
    read: float = written
    if isinstance(layer, ConvLayer):
        read = pixels * layer.in_channels * math.prod(layer.kernel)
    elif isinstance(layer, PoolLayer):
        read = pixels * layer.channels * math.prod(layer.kernel)
    elif isinstance(layer, ElementwiseLayer):
        read = written * (1 if layer.other is None else 2)
    elif isinstance(layer, CopyLayer):
        read = sum(math.prod(box.size) for box in layer.boxes)
    found = {f"read {_packed(layer)}": read, f"written {_end(step)}": written}
    found |= {
        f"stored {_width(out.container)}": written,
        "pixels": _rows(step, call, out, pixels),
        "calls": 1,
    }
    if step.finish is not None and step.finish.thresholds is not None:
        found["compared"] = written * step.finish.thresholds.shape[1].bit_length()
    if isinstance(layer, ConvLayer):
        found[f"macs {layer.weight}"] = macs_of(step, pixels)
    elif isinstance(layer, MatMulLayer):
        found["macs"] = macs_of(step, pixels)
    return {name: float(value) for name, value in found.items()}


def _packed(layer: Layer) -> str:
    """How the input lies: its container where there is one of it."""
    x = getattr(layer, "x", None)
    container = x if isinstance(x, Container) else getattr(x, "container", None)
    if container is None:
        return "any"
    return str(container) if container.bits == 8 else _width(container)


def _width(container: Container) -> str:
    return "bytes" if container.bits == 8 else "packed" if container.bits < 8 else "words"


def _rows(step: Step, call: Call, out: Map, pixels: int) -> int:
    """Pixels that a kernel looks at one by one: of bytes that all are finished alike, rows."""
    layer, finish = step.layer, step.finish
    if not isinstance(layer, ElementwiseLayer) or finish is None:
        return pixels
    per_channel = [finish.multiplier, finish.addend, finish.shift]
    tables = [finish.thresholds, finish.levels]
    alike = all(values is None or len(values) == 1 for values in (*per_channel, *tables))
    containers = [layer.x, out.container, *([layer.other] if layer.other is not None else [])]
    return call.out_plane[0] if alike and min(c.bits for c in containers) >= 8 else pixels


def _end(step: Step) -> str:
    """How a step ends its sums."""
    finish = step.finish
    if finish is None:
        return "as it is"
    kind = finish.rounding if finish.kind == "ROUND" else finish.kind
    return f"{kind}{' 64' if finish.wide else ''}"


def instructions(layout: Layout, step: Step, core: str) -> int:
    """The modelled instructions of a step in one inference.

    A kind of work that was not measured takes what the dearest alike takes; a kernel that was not measured,
    what the portable one does.
    """
    work = features(layout, step)
    return round(max(predicted(weights, work) for weights in _weights(step, core)))


def cycles_of(instructions: int) -> int:
    """The modelled cycles of a step."""
    return round(instructions * CPI_HIGH)


def _weights(step: Step, core: str) -> list[dict[str, float]]:
    """The weights of a step's kernel; where it was not measured, of the portable one, or of all alike."""
    models = _models()
    known = models.get(core) or models["cortex-m7"]
    for name in (step.kernel, _portable(step)):
        if name in known:
            return [known[name]]
    kind = _portable(step).removesuffix("_wide")
    return [weights for name, weights in known.items() if name.startswith(kind)] or list(known.values())


def _weight(weights: Mapping[str, float], name: str) -> float:
    if name in weights:
        return weights[name]
    kind = name.split(" ")[0]
    return max((weight for other, weight in weights.items() if other.split(" ")[0] == kind), default=0.0)


def _portable(step: Step) -> str:
    """The portable kernel that does what a step's does."""
    layer = step.layer
    if isinstance(layer, ConvLayer):
        return "qhw_depthwise" if layer.is_depthwise else "qhw_conv"
    if isinstance(layer, ElementwiseLayer):
        return "qhw_elementwise" if layer.other is None else "qhw_add"
    return "qhw_sum_pool" if isinstance(layer, PoolLayer) else "qhw_matmul"


def predicted(weights: Mapping[str, float], work: Mapping[str, float]) -> float:
    """Instructions by a kernel's weights."""
    return sum(_weight(weights, name) * value for name, value in work.items())


def fit(rows: list[Mapping[str, float]], counts: list[int]) -> dict[str, float]:
    """Weights, none negative, with the least squared relative error."""
    from scipy.optimize import nnls

    names = sorted({name for row in rows for name in row})
    table = np.array([[row.get(name, 0.0) for name in names] for row in rows], dtype=np.float64)
    target = np.array(counts, dtype=np.float64)
    found, _ = nnls(table / target[:, np.newaxis], np.ones(len(target)))
    return {name: round(float(weight), 4) for name, weight in zip(names, found, strict=True)}


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
