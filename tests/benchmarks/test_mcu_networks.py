"""The reader of Keras networks pads, strides and orders axes as Keras does; the page tells what was met."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qhw.errors import UnsupportedError

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
script, silabs = (importlib.import_module(name) for name in ("quantmcu", "mcu_nets.silabs"))
sys.path[:] = [folder for folder in sys.path if folder != BENCHMARKS]  # the script adds it, too

CASES = [((8, 6), 2, (3, 3)), ((9, 5), 2, (10, 4)), ((5, 5), 1, (3, 3))]
"""Image, stride and kernel."""


def layer(kind: str, name: str, reads: list[str], **config: object) -> dict:
    return {
        "class_name": kind,
        "config": {"name": name, **config},
        "inbound_nodes": [[[read, 0, 0, {}] for read in reads]] if reads else [],
    }


def same_convolution(x: np.ndarray, kernel: np.ndarray, stride: int, depthwise: bool) -> np.ndarray:
    """Keras's "same" by its definition, on one image (H, W, C) with a kernel (h, w, in, out)."""
    size = -(-np.array(x.shape[:2]) // stride)
    total = np.maximum((size - 1) * stride + kernel.shape[:2] - np.array(x.shape[:2]), 0)
    before = total // 2
    padded = np.pad(x, [(b, t - b) for b, t in zip(before, total, strict=True)] + [(0, 0)])
    out = np.zeros((*size, x.shape[2] if depthwise else kernel.shape[3]))
    for row, column in np.ndindex(*size):
        part = padded[row * stride :, column * stride :][: kernel.shape[0], : kernel.shape[1]]
        terms = part * kernel[..., 0] if depthwise else part[..., None] * kernel
        out[row, column] = terms.sum(axis=(0, 1)) if depthwise else terms.sum(axis=(0, 1, 2))
    return out


@pytest.mark.parametrize(
    ("size", "stride", "kernel"), [((8, 6), 2, (3, 3)), ((9, 5), 2, (10, 4)), ((5, 5), 1, (3, 3))]
)
def test_layers_are_those_of_keras(size: tuple[int, int], stride: int, kernel: tuple[int, int]) -> None:
    random = np.random.default_rng(stride)
    first = random.normal(size=(*kernel, 2, 3)).astype(np.float32)
    deep = random.normal(size=(3, 3, 3, 1)).astype(np.float32)
    bias = random.normal(size=3).astype(np.float32)
    norm = {name: random.uniform(0.5, 2, 3).astype(np.float32) for name in ("gamma", "beta", "moving_mean")}
    norm["moving_variance"] = np.array([0.5, 1.0, 2.0], dtype=np.float32)
    net = silabs.KerasNet(
        [
            layer("InputLayer", "input", [], batch_input_shape=[None, *size, 2]),
            layer("Conv2D", "first", ["input"], strides=[stride] * 2, padding="same"),
            layer("BatchNormalization", "norm", ["first"], epsilon=1e-3),
            layer("Activation", "relu", ["norm"], activation="relu"),
            layer("DepthwiseConv2D", "deep", ["relu"], strides=[1, 1], padding="same"),
            layer("Add", "sum", ["deep", "relu"]),
        ],
        {
            "first": {"kernel": first, "bias": bias},
            "deep": {"depthwise_kernel": deep, "bias": bias},
            "norm": norm,
        },
    ).eval()
    x = random.normal(size=(*size, 2)).astype(np.float32)
    y = same_convolution(x, first, stride, False) + bias
    y = (y - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-3) * norm["gamma"] + norm["beta"]
    y = np.maximum(y, 0)
    expected = same_convolution(y, deep, 1, True) + bias + y
    with torch.no_grad():
        found = net(torch.from_numpy(x.transpose(2, 0, 1)[None]))[0].numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_layer_that_is_not_known_is_named() -> None:
    layers = [
        layer("InputLayer", "input", [], batch_input_shape=[None, 4, 4, 1]),
        layer("UpSampling2D", "bigger", ["input"]),
    ]
    with pytest.raises(UnsupportedError, match="UpSampling2D 'bigger'"):
        silabs.KerasNet(layers, {})


def test_the_page_says_what_was_met_and_what_was_not() -> None:
    wide = {"bit_operations": 220, "share": 0.9}
    row = {"row": "QuantMCU", "tried": [(0.5, 100_000_000, 0.893)]}
    met = script.verdict({**row, "bit_operations": 100, "share": 0.895}, wide)
    assert "2.20x fewer" in met
    assert "+0.50 points lost" in met
    assert "is met" in met
    assert "missed" in script.verdict({**row, "bit_operations": 100, "share": 0.88}, wide)
    assert "missed" in script.verdict({**row, "bit_operations": 110, "share": 0.9}, wide)
