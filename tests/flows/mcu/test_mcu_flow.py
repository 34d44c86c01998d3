"""The flow as users call it: estimates, builds of real networks, and what a build measures."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from firmware import BOARD_OF_CORE, H743, differing, needs_gcc, needs_qemu

import qhw
from qhw.boards import load_board
from qhw.cost import estimate
from qhw.cost.pricing.folding import DoesNotFitError
from qhw.data import fashion_mnist, load_dataset
from qhw.errors import UnsupportedError
from qhw.flows.base import load_flow, load_project_flow
from qhw.flows.mcu import McuFlow
from qhw.flows.mcu.design import layout_of
from qhw.flows.mcu.emit import arrays_of, emit
from qhw.flows.mcu.instructions import fit, predicted
from qhw.flows.mcu.layout import STACK_BYTES
from qhw.formats import TableFormat, parse_format
from qhw.formats.integer import Integer
from qhw.graph.builder import GraphBuilder
from qhw.train import TrainConfig
from tests.graph_factory import resnet8_graph
from tests.random_graphs import random_inputs

GRAPH = resnet8_graph(side=8)


@pytest.mark.parametrize("board", BOARD_OF_CORE.values())
def test_every_board_is_priced(board: str) -> None:
    flow = load_flow("mcu")
    found = estimate(flow.best(flow.prepare(GRAPH, load_board(board))))
    assert found.totals["contiguous_sram"] == layout_of(found.design).arena.bytes
    assert found.totals["sram"] > found.totals["contiguous_sram"] + STACK_BYTES
    weights = sum(value.size for name, value in GRAPH.constants.items() if "weight" in name)
    assert weights < found.totals["flash"] < weights + 40_000
    assert found.latency_cycles == sum(layer.cycles for layer in found.layers)
    assert len(found.columns()) == len(next(found.rows()))


def test_arrays_are_counted_as_they_are_written() -> None:
    flow = load_flow("mcu")
    layout = layout_of(flow.prepare(GRAPH, H743))
    assert sum(arrays_of(layout).values()) == sum(emit(layout, "t").constant_bytes.values())


def test_memory_over_time_is_that_of_the_arena() -> None:
    flow = McuFlow()
    design = flow.best(flow.prepare(GRAPH, H743))
    memory, layout = flow.memory(design), layout_of(design)
    assert memory["limit_bytes"] == H743.capacity["contiguous_sram"]
    assert memory["steps"] == [step.name for step in layout.program.steps]
    tops = [buffer["offset"] + buffer["bytes"] for buffer in memory["buffers"]]
    assert max(tops) == layout.arena.bytes
    for step in range(len(memory["steps"])):
        held = sorted((b["offset"], b["bytes"]) for b in memory["buffers"] if b["first"] <= step <= b["last"])
        assert held
        assert all(a + size <= b for (a, size), (b, _) in itertools.pairwise(held)), step


def test_a_rate_that_is_not_reached_is_told() -> None:
    flow = McuFlow()
    with pytest.raises(DoesNotFitError, match=r"does not reach 1e\+06 inferences/s on stm32h743"):
        flow.best(flow.prepare(GRAPH, H743), fps=1e6)


def test_fewer_bits_take_less_flash_and_sram() -> None:
    totals = []
    for bits in (8, 4, 2):
        b, random = GraphBuilder("bits"), np.random.default_rng(0)
        x = b.input("x", (8, 12, 12), Integer(bits, False), 0)
        high = 1 << (bits - 1)
        w = b.constant("w", random.integers(-high, high, (8, 8, 3, 3)), Integer(bits), 0)
        y = b.requant("y", b.conv("conv", x, w, pads=(1, 1, 1, 1)), Integer(bits, False), 2)
        z = b.requant("z", b.conv("conv2", y, w, pads=(1, 1, 1, 1)), Integer(bits, False), 8)
        flow = McuFlow()
        totals.append(estimate(flow.best(flow.prepare(b.finish([z]), H743))).totals)
    assert totals[0]["flash"] > totals[1]["flash"] > totals[2]["flash"]
    assert totals[0]["contiguous_sram"] > totals[1]["contiguous_sram"] > totals[2]["contiguous_sram"]


def test_a_firmware_is_priced_as_a_whole() -> None:
    with pytest.raises(UnsupportedError, match="mcu flow are priced as a whole"):
        McuFlow().prepare(GRAPH, H743).check_priced()


def test_the_fit_finds_weights_that_made_the_counts() -> None:
    random = np.random.default_rng(0)
    true = {"macs int8": 5.0, "written RND": 30.0, "calls": 200.0}
    rows = [dict(zip(true, map(float, random.integers(1, 5000, 3)), strict=True)) for _ in range(20)]
    found = fit(rows, [round(predicted(true, row)) for row in rows])
    assert found == pytest.approx(true, rel=0.01, abs=0.5)
    assert predicted(found, {"macs int4": 10.0}) == pytest.approx(10 * found["macs int8"])


@needs_gcc
@pytest.mark.parametrize(
    "text", ["e4m3", "khot<8,2>", "ternary", "binary", "pow2<4>", "e2m1", "int3", "uint5"]
)
def test_numbers_of_any_format(text: str) -> None:
    """Weights and results of a format: mantissas multiply, and uneven numbers are found by comparing."""
    format, random, b = parse_format(text), np.random.default_rng(3), GraphBuilder("format")
    numbers = format.numbers if isinstance(format, TableFormat) else np.arange(format.mantissa_low, 4)
    x = b.input("x", (2, 5, 5), Integer(7), 0)
    w = b.constant("w", random.choice(numbers, (3, 2, 3, 3)), format, 0)
    rounding = {"rounding": format.rounding} if isinstance(format, TableFormat) else {}
    y = b.requant("y", b.conv("conv", x, w, pads=(1, 1, 1, 1)), format, 5, **rounding)
    v = b.constant("v", random.choice(numbers, (4, 3, 2, 2)), format, 0)
    z = b.requant("z", b.conv("conv2", y, v), Integer(8), 9)
    graph = b.finish([z])
    assert differing(graph, random_inputs(graph, 6)) == []


def test_the_flow_is_one_that_writes_projects() -> None:
    assert load_project_flow("mcu").name == "mcu"
    assert not McuFlow(run_on="host").core_runs
    assert McuFlow(run_on="qemu").core_runs


def check_build(folder: Path, model: str) -> None:
    """A build folder of which every code was compared in QEMU, and what it measured."""
    told = json.loads((folder / "build.json").read_text())
    rows = [row for row in told["verification"] if "QEMU (mps2-an500, Arm Cortex-M7)" in row["backend"]]
    assert len(rows) == 2
    assert all(row["mismatches"] == 0 and row["vectors"] >= 100 for row in rows)
    assert rows[0]["layers"] > 3
    measured, estimated = told["measured"], told["resources"]["estimated"]
    assert measured["static_ram"] >= estimated["contiguous_sram"]
    assert measured["stack"] < STACK_BYTES
    assert abs(measured["flash"] / estimated["flash"] - 1) < 0.35
    assert (
        abs(1 - sum(layer["instructions"] for layer in measured["layers"]) / measured["instructions"]) < 0.02
    )
    low, high = measured["modelled"]["cycles"]
    assert measured["instructions"] < low < high
    assert told["latency"]["source"] == "estimated"
    assert told["latency"]["cycles"] == pytest.approx(high, rel=0.15)
    assert told["model"]["name"] == model


@needs_qemu
@pytest.mark.slow
def test_the_default_model_runs_in_qemu(tmp_path: Path) -> None:
    qhw.build(board="stm32h743", flow="mcu", out=tmp_path / "build")
    check_build(tmp_path / "build", "digits-cnn")


@needs_qemu
@pytest.mark.slow
@pytest.mark.skipif(not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="Fashion-MNIST is not installed")
def test_resnet8_runs_in_qemu(tmp_path: Path) -> None:
    """Briefly trained: real weights on real images."""
    data = load_dataset("fashion-mnist")
    short = dataclasses.replace(
        data,
        train_x=data.train_x[:4000],
        train_y=data.train_y[:4000],
        test_x=data.test_x[:500],
        test_y=data.test_y[:500],
    )
    qhw.build(
        "resnet8",
        board="stm32h743",
        data=short,
        flow="mcu",
        vectors=100,
        training=TrainConfig(float_epochs=1, quantised_epochs=1),
        out=tmp_path / "build",
    )
    check_build(tmp_path / "build", "resnet8")


@needs_gcc
@pytest.mark.slow
def test_without_qemu_the_same_c_runs_here(tmp_path: Path) -> None:
    briefly = TrainConfig(float_epochs=2, quantised_epochs=1)
    qhw.build(board="nano-33-ble-sense", flow="mcu", run_on="host", training=briefly, out=tmp_path / "build")
    told = json.loads((tmp_path / "build" / "build.json").read_text())
    row = told["verification"][-1]
    assert "compiled for this machine" in row["backend"]
    assert row["mismatches"] == 0
    assert told["measured"] is None
