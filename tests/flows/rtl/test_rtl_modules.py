"""Every module that is emitted for a node, alone in Verilator, with random stalls at both its ends.

Its valid and ready are those of its timing in every cycle. Where it is all of an operation its words are
those of the exact graph.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import op_zoo
import pytest
from rtl_designs import coded, design_of, residual

from qhw.boards import load_board
from qhw.cost.pricing.design import Design
from qhw.flows.rtl import RtlFlow
from qhw.flows.rtl.circuit import Circuit, Component, Wire, files_of, memory_text
from qhw.flows.rtl.emission import emit
from qhw.flows.rtl.emission.draft import MEMORIES
from qhw.flows.rtl.project import _instances
from qhw.formats.base import Format
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph.interpreter import run_node
from qhw.graph.ir import ExactGraph, Node
from qhw.rtl.base import Port, Ports, StreamUnit, Words
from qhw.rtl.simulation.streams import StreamCase, check_streams, prove_streams
from qhw.rtl.simulation.verilator import Simulator

CYCLES = 800

TOGETHER = 40
"""Modules in one build."""


def legal_codes(format: Format) -> IntArray:
    """The codes of a format's numbers."""
    if isinstance(format, TableFormat):
        return np.unique(format.code_of(format.numbers)).astype(np.int64)
    return np.arange(format.mantissa_low, format.mantissa_high + 1) & ((1 << format.width) - 1)


def mantissas_of(words: IntArray, wire: Wire, format: Format, shape: tuple[int, ...]) -> IntArray:
    """The mantissas of the tensors that some words carry, an image after the other."""
    width = wire.element.width
    lanes = np.stack([words >> i * width & ((1 << width) - 1) for i in range(wire.lanes)], axis=-1)
    codes = lanes.astype(np.int64).reshape(-1, wire.order.size)
    tensors = np.empty_like(codes)
    tensors[:, wire.order] = codes
    return np.asarray(format.mantissa_of(tensors)).reshape(-1, *shape)


def words_of(mantissas: IntArray, wire: Wire, format: Format) -> list[int]:
    """The words that carry some tensors."""
    width = wire.element.width
    codes = np.asarray(format.code_of(mantissas)).astype(object).reshape(len(mantissas), -1)
    lanes = codes[:, wire.order].reshape(-1, wire.lanes) & ((1 << width) - 1)
    return [sum(int(code) << i * width for i, code in enumerate(word)) for word in lanes]


def is_all_of(design: Design, circuit: Circuit, component: Component) -> Node | None:
    """The operation that a component is all of, if it reads the design's inputs, whose codes may all come."""
    graph = design.graph
    node = next((node for node in graph.nodes if node.name == component.node), None)
    if node is None or sum(one.node == node.name for one in circuit.components) > 1:
        return None
    read = [wire.tensor for wire in component.inputs]
    if read != list(graph.activations(node)) or len(set(read) & set(graph.inputs)) < len(read):
        return None
    return node


def unit_of(design: Design, circuit: Circuit, component: Component, folder: Path) -> StreamUnit:
    """A component as a circuit between streams."""
    graph, (y,) = design.graph, component.outputs
    node = is_all_of(design, circuit, component)
    names = ("x",) if len(component.inputs) == 1 else ("a", "b")
    ports = []
    for name, wire in zip(names, component.inputs, strict=True):
        codes = legal_codes(graph.tensors[wire.tensor].format) if node else None
        ports.append(Port(name, wire.element.width, wire.lanes, codes=codes))

    def reference(values: Mapping[str, int], given: Words) -> Words:
        assert node is not None
        tensors = {}
        for name, wire in zip(names, component.inputs, strict=True):
            kind = graph.tensors[wire.tensor]
            words = np.array(given[name], dtype=object)
            tensors[wire.tensor] = mantissas_of(words, wire, kind.format, kind.shape)
        return {"y": words_of(run_node(graph, node, tensors), y, graph.tensors[node.output].format)}

    text = circuit.modules[component.module]
    located = text.replace(f'"{MEMORIES}/', f'"{folder.absolute()}/')
    return StreamUnit(
        name=component.module,
        summary=f"a module of {component.node}",
        ranges=(),
        sources=tuple(path.stem for path in files_of(_instances(text))),
        ports=lambda values: Ports(tuple(ports), (Port("y", y.bits),), ()),
        image=lambda values: tuple(wire.words for wire in component.inputs),
        reference=reference if node else None,
        timing=lambda values: component.timing,
        samples=({},),
        carrier=lambda values: located,
    )


def check_modules(design: Design, known: int, folder: Path, simulator: Simulator) -> None:
    """Prove every emitted module; of at least so many the words, too."""
    circuit = emit(design)
    for name, (width, codes) in circuit.memories.items():
        (folder / f"{name}.mem").write_text(memory_text(width, codes))
    cases = [
        StreamCase(unit_of(design, circuit, component, folder), {})
        for component in circuit.components
        if component.module in circuit.modules
    ]
    assert sum(case.unit.reference is not None for case in cases) >= known
    for first in range(0, len(cases), TOGETHER):
        check_streams(prove_streams(cases[first : first + TOGETHER], simulator, cycles=CYCLES))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "known"),
    [(residual, 0), (op_zoo.elementwise, 11), (op_zoo.convolutions, 0), (op_zoo.moves, 1), (coded, 5)],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_every_module_stalls_and_goes_on(
    make: Callable[[], ExactGraph], known: int, tmp_path: Path, simulator: Simulator
) -> None:
    check_modules(design_of(make(), 3), known, tmp_path, simulator)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "known"), [("chain", 1), ("perceptron", 0)])
def test_every_unrolled_module_stalls_and_goes_on(
    name: str, known: int, tmp_path: Path, simulator: Simulator
) -> None:
    """Graphs of additions, windows of a convolution that are wanted whole."""
    pytest.importorskip("alkaid", reason="alkaid is not installed: pip install 'qhw[unrolled]'")
    made = importlib.import_module("test_rtl_unrolled")
    flow = RtlFlow(unrolled="all")
    design = flow.best(flow.prepare(getattr(made, name)(), load_board("ultra96")))
    assert emit(design).sums
    check_modules(design, known, tmp_path, simulator)
