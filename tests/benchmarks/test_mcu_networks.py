"""The reader of Keras networks pads, strides and orders axes as Keras does; the page tells what was met."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from finn_nets import Network

from qhw.errors import UnsupportedError
from qhw.flows.mcu.design import footprint
from qhw.flows.mcu.toolchain import COMPILER, EMULATOR
from qhw.patch import make_plan, quantmcu, uniform, with_patches

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
script, silabs, firmware, networks, distillation = (
    importlib.import_module(name)
    for name in (
        "quantmcu",
        "mcu_nets.silabs",
        "mcu_nets.firmware",
        "mcu_nets.networks",
        "mcu_nets.distilled",
    )
)
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


def test_patches_run_as_loops_and_as_copies() -> None:
    """Both give the exact graph's codes, and compute as much as the plan says; loops take fewer steps."""
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool.program) is None:
            pytest.skip(f"{tool.program} is not installed")
    n = Network(5, (2, 12, 12))
    x = n.act("a", n.conv("a_c", n.last, 4, (3, 3), pads=(1,) * 4, bits=8), 8)
    cut = n.act("b", n.conv("b_c", x, 6, (3, 3), strides=(2, 2), pads=(1,) * 4, bits=8), 8)
    graph = n.finish(n.matmul("fc", n.flat("flat", cut), 3, bits=8))
    inputs = {name: np.random.default_rng(0).integers(0, 256, (4, 2, 12, 12)) for name in graph.inputs}
    plan = make_plan(graph, cut, (2, 3))
    found = quantmcu(graph, inputs, plan=plan, settings=uniform(4), footprint=footprint)
    assert found.patches == f"{cut}:2x3"
    loops = firmware.in_qemu(found.graph, found.patches, script.BOARD, inputs)
    copies = firmware.in_qemu(with_patches(found.graph, plan), "none", script.BOARD, inputs)
    assert loops["static_ram"] == found.record.peak_bytes
    assert loops["macs"] == copies["macs"] == plan.macs > plan.layer_macs
    assert loops["steps"] < copies["steps"]
    assert min(loops["instructions"], copies["instructions"]) > plan.macs


def test_what_bit_operations_become() -> None:
    ran = [{"instructions": 300, "macs": 200}, {"instructions": 280, "macs": 100}]
    wide, row = ({"row": "x", "firmware": {"": each, "slower": {"instructions": 999}}} for each in ran)
    told = script.becomes({**row, "bit_operations": 100}, {**wide, "bit_operations": 250})
    assert "2.50x fewer bit operations" in told
    assert "1.07x fewer instructions: 2.00x fewer multiply-accumulates" in told
    assert "at 2.80 instructions instead of 1.50" in told


def test_distilled_samples_have_the_statistics_and_the_classes() -> None:
    """Nearer than the noise that they start as to the batch norm's statistics, and of every class."""
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(4)
    norm.running_mean.copy_(torch.tensor([0.5, -0.5, 1.0, 0.0]))
    norm.running_var.copy_(torch.tensor([0.3, 0.6, 0.2, 0.5]))
    head = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, bias=False), norm, *head).eval()
    made = torch.from_numpy(distillation.distilled(network, (1, 8, 8), 64, 3, seed=0))
    noise = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def apart(samples: torch.Tensor) -> float:
        read = network[0](samples).transpose(0, 1).flatten(1)
        deviation = norm.running_var.sqrt()
        means = (read.mean(1) - norm.running_mean) / deviation
        return float(means.square().sum() + (read.std(1) / deviation - 1).square().sum())

    with torch.no_grad():
        assert apart(made) < 0.5 * apart(noise)
        assert set(network(made).argmax(dim=1).tolist()) == {0, 1, 2}


def test_a_reconstruction_is_judged_by_its_error() -> None:
    samples = np.zeros((3, 1, 2, 2))
    limit = networks.ANOMALY_ERROR
    outputs = np.full((3, 4), np.sqrt(limit)) * np.array([[0.9], [1.1], [1.0]])
    assert networks.is_anomaly(outputs, samples)[:2].tolist() == [False, True]
