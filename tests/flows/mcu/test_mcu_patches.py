"""Firmware that runs its first layers patch by patch gives the codes of whole layers, in less memory."""

from __future__ import annotations

import re

import pytest
from firmware import H743, differing, layout, needs_gcc, needs_qemu, static_ram

from qhw.boards import load_board
from qhw.cost.pricing.folding import DoesNotFitError
from qhw.errors import InputError
from qhw.flows.mcu import McuFlow
from qhw.flows.mcu.design import Patches, footprint, layout_of, resources
from qhw.flows.mcu.emit import emit
from qhw.patch import plans, quantmcu
from qhw.patch.plan import cuts, make_plan
from qhw.patch.unrolled import with_patches
from tests.graph_factory import resnet8_graph
from tests.random_graphs import random_inputs

GRAPH = resnet8_graph(side=16, channels=2)


@needs_gcc
@pytest.mark.parametrize("patches", ["relu:2x2", "block1_relu2:3x2", "block2_relu2:2x1", "block3_relu2:4x4"])
def test_every_map_has_its_codes(patches: str) -> None:
    assert differing(GRAPH, random_inputs(GRAPH, 2), patches=patches) == []


@needs_qemu
@pytest.mark.slow
def test_patches_on_a_core() -> None:
    assert differing(GRAPH, random_inputs(GRAPH, 2), patches="block1_relu2:3x3", core="cortex-m7") == []


@needs_gcc
def test_patches_that_the_graph_spells_out_share_their_weights() -> None:
    """A graph with a copy of each layer per patch, whose formats may differ, is compiled as it is."""
    plan = make_plan(GRAPH, "block1_relu2", (2, 2))
    graph = with_patches(GRAPH, plan)
    assert differing(graph, random_inputs(GRAPH, 2)) == []
    constants = [sum(emit(layout(g), "t").constant_bytes.values()) for g in (GRAPH, graph)]
    assert constants[0] == constants[1]


def test_patches_take_less_memory_and_more_work() -> None:
    whole, patched = layout(GRAPH), layout(GRAPH, "block1_relu2:4x4")
    assert patched.arena.bytes < whole.arena.bytes
    macs = [sum(made.macs(step) for step in made.program.steps) for made in (whole, patched)]
    plan = make_plan(GRAPH, "block1_relu2", (4, 4))
    assert macs == [plan.layer_macs, plan.macs]


def test_patches_are_a_loop_not_copies() -> None:
    few, many = (emit(layout(GRAPH, f"block1_relu2:{n}x{n}"), "t").model for n in (2, 4))
    for text in (few, many):
        assert len(re.findall(r"\(&conv, ", text)) == 1
    assert len(re.findall(r"^    \{\{\.in_height", many, re.MULTILINE)) == 4 * len(
        re.findall(r"^    \{\{\.in_height", few, re.MULTILINE)
    )


@needs_qemu
def test_a_plan_for_a_memory_gives_firmware_within_it() -> None:
    """Arena and output, as planned with the widths, are the firmware's static RAM, byte for byte."""
    whole, inputs = layout(GRAPH).static_bytes, random_inputs(GRAPH, 4)
    among = list(plans(GRAPH, 3, footprint))
    for room in (700, 1_500, 2_000, 3_000):
        found = quantmcu(GRAPH, inputs, memory=whole - room, among=among, footprint=footprint)
        made = layout(found.graph, found.patches)
        assert found.record.peak_bytes == made.static_bytes <= whole - room
    assert static_ram(found.graph, found.patches) == found.record.peak_bytes


def test_what_fits_runs_layer_by_layer() -> None:
    flow = McuFlow()
    assert flow.best(flow.prepare(GRAPH, H743)).folding == {}


def test_the_least_recomputation_that_fits_is_chosen() -> None:
    flow, whole = McuFlow(), layout(GRAPH).arena.bytes
    board = H743.having(contiguous_sram=whole - 1000)
    design = flow.best(flow.prepare(GRAPH, board), budget=1.0)
    (fold,) = design.folding.values()
    assert isinstance(fold, Patches)
    chosen = layout_of(design)
    assert chosen.plan is not None
    assert chosen.arena.bytes <= whole - 1000
    # No plan that recomputes less would fit.
    for cut in cuts(GRAPH):
        for grid in ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1)):
            if all(n <= size for n, size in zip(grid, GRAPH.tensors[cut].shape[1:], strict=True)):
                plan = make_plan(GRAPH, cut, grid)
                made = layout(GRAPH, f"{cut}:{grid[0]}x{grid[1]}")
                assert made.arena.bytes > whole - 1000 or plan.macs >= chosen.plan.macs


def test_a_network_that_fits_nowhere_says_by_how_much() -> None:
    flow, board = McuFlow(), H743.having(contiguous_sram=2000)
    with pytest.raises(
        DoesNotFitError, match=r"does not fit stm32h743 layer by layer: .*more than the 2,000"
    ) as caught:
        flow.best(flow.prepare(GRAPH, board), budget=1.0)
    assert "smallest plan" in str(caught.value)
    assert "does not fit either" in str(caught.value)


def test_too_little_flash_is_no_matter_of_patches() -> None:
    flow, board = McuFlow(), H743.having(flash=10_000)
    with pytest.raises(DoesNotFitError, match=r"\(flash\).*more than the 10,000"):
        flow.best(flow.prepare(GRAPH, board), budget=1.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("some", "auto, none, or a plan"),
        ("relu:0x2", "within the 16 x 16 pixels"),
        ("relu:2", "within the 16 x 16 pixels"),
        ("rely:2x2", "did you mean relu"),
        ("relu:2x99", "within the 16 x 16 pixels"),
    ],
)
def test_a_wrong_plan_is_explained(given: str, said: str) -> None:
    flow = McuFlow(patches=given)
    with pytest.raises(InputError) as caught:
        flow.best(flow.prepare(GRAPH, H743))
    assert said in str(caught.value)


def test_a_plan_that_does_not_fit_names_one_that_does() -> None:
    board = load_board("stm32f746").having(contiguous_sram=9_000)
    flow = McuFlow(patches="relu:1x2")
    with pytest.raises(DoesNotFitError, match="with --patches relu:1x2") as caught:
        flow.best(flow.prepare(GRAPH, board), budget=1.0)
    found = re.search(r"--patches (\S+), needs", str(caught.value).split("smallest plan")[1])
    assert found is not None
    assert resources(layout(GRAPH, found[1]))["contiguous_sram"] < layout(GRAPH, "relu:1x2").arena.bytes
