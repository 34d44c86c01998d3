"""QuantMCU as users call it: a build with mixed widths, exact from torch to firmware, within its memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from firmware import H743, layout, needs_gcc, needs_qemu
from torch import nn

import qhw
from qhw.data import load_dataset
from qhw.errors import CheckFailedError, InputError
from qhw.flows.mcu import McuFlow, toolchain
from qhw.flows.mcu.arena import aligned
from qhw.flows.mcu.project import read_description
from qhw.layers import Normalize
from qhw.patch import Settings, feature_maps
from qhw.pipeline.build_stages import LOWERED_FOLDER, MIXED_FILE, read_graph
from qhw.quant_config import QuantConfig
from qhw.train import TrainConfig
from tests.graph_factory import resnet8_graph
from tests.random_graphs import random_inputs

MEMORY = 700


def network() -> nn.Module:
    """An untrained quantised network for 8 x 8 digits: what it answers does not matter here."""
    torch.manual_seed(0)
    net = nn.Sequential(
        Normalize(exponent=-4),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    example = torch.randint(0, 17, (64, 1, 8, 8)).float()
    model = qhw.convert(net, QuantConfig(), example)
    model(example)
    return model.eval()


@needs_gcc
def test_a_build_with_mixed_widths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"widths": "quantmcu", "memory": MEMORY, "omega_weight": 0.6, "run_on": "host"}

    def build() -> qhw.BuildResult:
        return qhw.build(
            network(),
            board="stm32h743",
            flow="mcu",
            data="digits",
            out=tmp_path / "out",
            vectors=8,
            **options,
        )

    result = build()
    rows = {row["backend"]: row for row in result.manifest["verification"]}
    assert {"fast executor", MIXED_FILE, "qonnx"} < set(rows)
    assert any("mcu firmware" in name for name in rows)
    assert {row["reference"] for row in rows.values()} == {"interpreter", "exact graph", "torch"}
    assert all(row["mismatches"] == 0 < row["codes_compared"] for row in rows.values())
    record = json.loads((result.folder / "widths.json").read_text())
    before, after = read_graph(result.folder, LOWERED_FOLDER), read_graph(result.folder)
    bits = {choice["tensor"]: choice["bits"] for choice in record["choices"]}
    assert set(bits) == set(feature_maps(before))
    assert min(bits.values()) < 8
    assert {name: after.tensors[name].format.width for name in bits} == bits
    assert {before.tensors[name].format.width for name in bits} == {8}
    described = read_description(result.project)
    assert described.arena + aligned(described.sizes[1]) == record["peak_bytes"] <= MEMORY
    assert record["wide_peak_bytes"] > MEMORY
    # Where firmware runs now is another place: codes are compared again, and nothing else is done again.
    monkeypatch.setattr(McuFlow, "checked_by", lambda self: "another machine")
    told = {stage["name"]: stage["status"] for stage in build().manifest["stages"]}
    assert {name for name, status in told.items() if status == "done"} >= {"compile", "verify"}
    assert {told[name] for name in ("export", "lower", "widths", "cost", "vectors", "project")} == {"skipped"}


@needs_gcc
def test_a_trained_network_is_exact_with_the_widths_it_was_trained_with(tmp_path: Path) -> None:
    """One convolution's result is read by another layer: its quantizer has a name that is no layer's."""
    torch.manual_seed(0)
    net = nn.Sequential(
        Normalize(exponent=-4),
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    result = qhw.build(
        net,
        board="stm32h743",
        flow="mcu",
        data="digits",
        training=TrainConfig(1, 0, threads=1),
        out=tmp_path / "out",
        vectors=8,
        widths="quantmcu",
        omega_weight=0.2,
        retrain=1,
        run_on="host",
    )
    rows = result.manifest["verification"]
    assert sum(row["reference"] == "torch" for row in rows) == 4  # codes and floats, before and after
    assert {MIXED_FILE, "qonnx"} < {row["backend"] for row in rows}
    assert all(row["mismatches"] == 0 < row["codes_compared"] for row in rows)
    choices = json.loads((result.folder / "widths.json").read_text())["choices"]
    assert {choice["tensor"]: choice["layer"] for choice in choices} == {"1_result": "1", "3": "3"}
    before, after = read_graph(result.folder, LOWERED_FOLDER), read_graph(result.folder)
    assert min(choice["bits"] for choice in choices) < 8
    for choice in choices:
        assert after.tensors[choice["tensor"]].format.width == choice["bits"]
    weights = [next(n.inputs[1] for n in graph.nodes if n.op == "MatMul") for graph in (before, after)]
    assert np.any(before.constants[weights[0]] != after.constants[weights[1]])


@needs_qemu
def test_patches_with_outliers_keep_their_bits_in_the_firmware(tmp_path: Path) -> None:
    """Digits in a black frame: what is bright is far from the mean, and only patches in the middle see it."""
    digits = load_dataset("digits")
    train, test = (np.pad(x, ((0, 0), (0, 0), (4, 4), (4, 4))) for x in (digits.train_x, digits.test_x))
    torch.manual_seed(0)
    net = nn.Sequential(
        Normalize(exponent=-4),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    example = torch.from_numpy(train[:64]).float()
    model = qhw.convert(net, QuantConfig(), example)
    model(example)
    options = {"widths": "quantmcu", "omega_weight": 0.5, "patches": "4:1x3", "run_on": "qemu"}
    result = qhw.build(
        model.eval(),
        board="stm32h743",
        flow="mcu",
        data=replace(digits, train_x=train, test_x=test),
        out=tmp_path / "out",
        vectors=8,
        **options,
    )
    rows = result.manifest["verification"]
    assert sum("in QEMU" in row["backend"] for row in rows) == 2
    assert all(row["mismatches"] == 0 < row["codes_compared"] for row in rows)
    record = json.loads((result.folder / "widths.json").read_text())
    seen = [share >= 0.5 for share in record["outlier_shares"]]
    assert record["outlier_patches"] == [patch for patch, is_seen in enumerate(seen) if is_seen] == [1, 2]
    (choice,) = (choice for choice in record["choices"] if choice["tensor"] == "2")
    assert choice["patches"] == [0]
    assert choice["bits"] < 8
    bits = {
        step.observed.tensor: step.observed.map.container.bits
        for step in read_description(result.project).steps
        if step.observed.tensor.startswith("2.patch")
    }
    assert bits == {"2.patch0": choice["bits"], "2.patch1": 8, "2.patch2": 8}


def test_where_firmware_is_checked_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {toolchain.COMPILER.program, toolchain.EMULATOR.program}
    monkeypatch.setattr("qhw.flows.mcu.shutil.which", lambda name: name if name in there else None)
    assert McuFlow().checked_by() == "qemu"
    there.clear()
    assert McuFlow().checked_by() == "host"
    assert McuFlow(run_on="qemu").checked_by() == "qemu"


@pytest.mark.parametrize("patches", ["none", "block1_relu2:2x2"])
def test_a_plan_that_is_asked_for_is_kept(patches: str) -> None:
    graph = resnet8_graph(side=16, channels=2)
    samples = random_inputs(graph, 4)
    memory = int(0.7 * layout(graph, patches).static_bytes)
    flow = McuFlow(widths="quantmcu", patches=patches, memory=memory)
    chosen = flow.with_widths(graph, H743, samples, 0.8)
    narrow, record = chosen.graph, chosen.record
    assert (record["plan"]["cut"] or "none") == patches.partition(":")[0]
    assert record["peak_bytes"] <= memory < record["wide_peak_bytes"]
    design = flow.best(flow.prepare(narrow, H743))
    assert flow.memory(design)["limit_bytes"] > record["peak_bytes"]
    with pytest.raises(CheckFailedError, match="more than the 900 that may be used"):
        McuFlow(widths="quantmcu", patches=patches, memory=900).with_widths(graph, H743, samples, 0.8)


def test_a_memory_is_kept_to_without_mixed_widths() -> None:
    graph = resnet8_graph(side=16, channels=2)
    whole = McuFlow()
    arena = whole.best(whole.prepare(graph, H743))
    limited = McuFlow(memory=8_000)
    found = limited.best(limited.prepare(graph, H743))
    assert not arena.folding
    assert found.folding
    buffers = limited.memory(found)["buffers"]
    assert max(b["offset"] + b["bytes"] for b in buffers) < 8_000
    with pytest.raises(CheckFailedError, match="does not fit"):
        McuFlow(memory=500).best(McuFlow(memory=500).prepare(graph, H743))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"memory": -1}, "memory is -1"),
        ({"omega_weight": 2.0}, "from 0 to 1"),
        ({"retrain": 2}, "retrain has no effect"),
        ({"widths": "few"}, "quantmcu"),
    ],
)
def test_options_out_of_range_are_refused(given: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        McuFlow(**given)


def test_widths_are_chosen_in_builds_alone(tmp_path: Path) -> None:
    assert McuFlow().chosen["omega_weight"] == Settings().omega_weight
    with pytest.raises(InputError, match="has no samples for it"):
        McuFlow(widths="quantmcu").check_as_given()
    with pytest.raises(InputError, match="no samples"):
        qhw.search("digits-cnn", board="stm32h743", flow="mcu", widths="quantmcu", out=tmp_path)
