"""A build's folder and a search's document for tests of their pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from qonnx_factory import Net

import qhw
from qhw.pipeline.run import BuildResult

EVIL = "</script><img src=x onerror=alert(1)>{{7*7}}"
"""A name that breaks out of a page which does not escape it."""


def build(folder: Path, **options: Any) -> BuildResult:
    """A small network with a residual sum, built for a board."""
    net, random = Net((2, 6, 6)), np.random.default_rng(0)
    x = net.quant(net.x, 4, 0.25, signed=0)
    y = net.node(
        "Conv",
        x,
        net.quant(random.integers(-7, 8, (2, 2, 3, 3)) * 0.125, 4, 0.125),
        name="conv",
        pads=[1] * 4,
    )
    y = net.quant(y, 4, 0.5, name="conv_act")
    x = net.quant(net.node("Add", y, x, name="add"), 6, 0.25, name="sum")
    x = net.node("Flatten", x, axis=1)
    x = net.node("MatMul", x, net.quant(random.integers(-7, 8, (72, 4)) * 0.125, 4, 0.125), name="fc")
    onnx.save(net.model(net.quant(x, 8, 1.0, name="last")), folder / "net.onnx")
    return qhw.build(folder / "net.onnx", board="ultra96", out=folder / "built", vectors=16, **options)


def front(**changes: Any) -> dict[str, Any]:
    """A search's document with three points."""
    points = [
        {
            "number": number,
            "formats": {"conv1.weights": formats, "conv1.activations": "fixed<4>"},
            "cost": cost,
            "resources": {"lut": cost, "ff": 10, "dsp": number, "bram18": 2, "uram": 0},
            "figure": figure,
            "low": figure - 0.02,
            "high": min(figure + 0.02, 1.0),
            "test": figure - 0.01,
            "throughput_fps": 200_000.0,
            "uniform": number == 2,
            "command": f"qhw build --design out/front.json#{number}",
        }
        for number, cost, figure, formats in (
            (1, 1000, 0.8, "ternary"),
            (2, 2000, 0.9, "fixed<4>"),
            (3, 3000, 0.95, "e2m1"),
        )
    ]
    return {
        "qhw": "0.1.0",
        "model": "digits-cnn",
        "model_digest": "0" * 64,
        "board": "ultra96",
        "part": "xczu3eg",
        "flow": "hls4ml",
        "clock_mhz": 200.0,
        "fps": 200_000.0,
        "fps_from": "as given",
        "budget": 0.8,
        "against": "lut",
        "metric": {"name": "top-1", "higher_is_better": True, "is_share": True},
        "evaluator": "calibrated",
        "strategy": "tpe",
        "seed": 0,
        "space_size": 81,
        "evaluations": 5,
        "held_out": {"samples": 290},
        "float": {"held_out": 0.96, "test": 0.95},
        "cost_model": "calibrated",
        "lut_error": {"median": 1.0, "p95": 5.0},
        "points": points,
        **changes,
    }


TRIED = [(1000.0, 0.8), (2000.0, 0.9), (3000.0, 0.95), (2500.0, 0.85), (9000.0, 0.95)]
