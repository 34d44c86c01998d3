"""How many instructions a step takes: a linear model per kernel, fitted on counts that QEMU measured.

A kernel's count is a sum over how often its loops run (:mod:`qhw.flows.mcu.work`).
``benchmarks/mcu_instructions.py`` counts, fits the weights on some networks and states the error on others.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from qhw.flows.mcu.layout import Layout
from qhw.flows.mcu.program import Step
from qhw.flows.mcu.work import loops_of, work_of
from qhw.outside.text import read_json
from qhw.resources import resource_dir

MODEL_FILE = "instructions.json"

CPI_LOW, CPI_HIGH = 1.29, 1.60
"""Cycles per instruction of the one silicon measurement that is known; a cycle figure is modelled by them."""

_LARGEST_FILE = 1 << 20


def instructions(layout: Layout, step: Step, core: str) -> int:
    """The modelled instructions of a step in one inference.

    A kind of work that was not measured takes what the dearest alike takes.
    """
    models = _models()
    weights = (models.get(core) or models["cortex-m7"])[loops_of(step.kernel)]
    return round(predicted(weights, work_of(layout, step)))


def cycles_of(instructions: int) -> int:
    """The modelled cycles of a step."""
    return round(instructions * CPI_HIGH)


def _weight(weights: Mapping[str, float], name: str) -> float:
    if name in weights:
        return weights[name]
    kind = name.split(" ")[0]
    return max((weight for other, weight in weights.items() if other.split(" ")[0] == kind), default=0.0)


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
