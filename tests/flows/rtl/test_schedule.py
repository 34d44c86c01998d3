"""The schedule: in C++ as in Python, and what it says of queues and of estimates."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

import op_zoo
import pytest
from rtl_designs import chain, design_of, residual

from qhw.cost import estimate
from qhw.errors import CheckFailedError, ToolMissingError
from qhw.flows.rtl import schedule
from qhw.flows.rtl.circuit import Circuit
from qhw.flows.rtl.emission import emit, settled
from qhw.flows.rtl.schedule import interpreted, scheduled
from qhw.graph.ir import ExactGraph
from qhw.native import compiled
from qhw.rtl.components.sliding_window import Folded
from qhw.rtl.fifo import Queue


@pytest.mark.parametrize(
    "make", [residual, op_zoo.elementwise, op_zoo.moves, op_zoo.convolutions, chain], ids=lambda f: f.__name__
)
def test_the_kernel_says_what_the_machines_say(make: Callable[[], ExactGraph]) -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    compiled(schedule._KERNEL)
    for seed in (1, 2):
        circuit = emit(design_of(make(), seed))
        assert scheduled(circuit, 3) == interpreted(circuit, 3)


def test_without_a_compiler_the_machines_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise ToolMissingError("no compiler")

    circuit = emit(design_of(chain()))
    expected = scheduled(circuit)
    monkeypatch.setattr(schedule, "compiled", missing)
    assert scheduled(circuit) == expected


def test_a_queue_that_is_too_short_gets_a_design_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least queues that never hold a word up are not much more than what is needed at all."""
    monkeypatch.setattr(schedule, "_LONGEST_QUIET", 20_000)
    design = design_of(residual())
    circuit, wanted = settled(design)
    joins = {
        component.name: component.timing.depth
        for component in circuit.components
        if isinstance(component.timing, Queue) and component.timing.depth > 2
    }
    assert joins
    assert scheduled(emit(design, joins)) == wanted
    with pytest.raises(CheckFailedError, match="stuck"):
        scheduled(emit(design, dict.fromkeys(joins, 2)))


def test_an_estimate_has_the_cycles_of_the_schedule() -> None:
    design = design_of(residual())
    _, exact = settled(design)
    found = estimate(design)
    assert (found.latency_cycles, found.initiation_interval) == (exact.latency, exact.interval)
    closed = estimate(replace(design, architecture=replace(design.architecture, written=None)))
    assert closed.initiation_interval <= exact.interval <= 1.1 * closed.initiation_interval


@pytest.mark.parametrize(
    "make", [residual, op_zoo.convolutions, op_zoo.moves, chain], ids=lambda make: make.__name__
)
def test_a_layer_alone_takes_the_cycles_that_it_is_priced_with(make: Callable[[], ExactGraph]) -> None:
    """A window, its waits and all: what the folding is chosen by."""
    compared = 0
    for seed in range(4):
        design = design_of(make(), seed)
        layers = {layer.node: layer for layer in estimate(design).layers}
        for component in emit(design).components:
            if not isinstance(component.timing, Folded):
                continue
            layer = layers[component.node]
            if layer.op.startswith("Reduce"):
                continue
            alone = Circuit([component], inputs=list(component.inputs), outputs=list(component.outputs))
            assert scheduled(alone).interval == layer.initiation_interval, component.name
            compared += 1
    assert compared > 3
