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
from qhw.flows.rtl.emission import emit, settled
from qhw.flows.rtl.schedule import Queue, interpreted, scheduled
from qhw.graph.ir import ExactGraph
from qhw.native import compiled


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
    closed = estimate(replace(design, architecture=replace(design.architecture, schedule=None)))
    assert closed.initiation_interval <= exact.interval <= 1.1 * closed.initiation_interval
