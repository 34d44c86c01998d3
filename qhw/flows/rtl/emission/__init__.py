"""An exact graph and its folding, written as a circuit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qhw.cost.pricing.design import Design
from qhw.errors import InputError, UnsupportedError
from qhw.flows.rtl.circuit import Circuit, Element
from qhw.flows.rtl.emission import elementwise, matrix, moves, unrolled, windows
from qhw.flows.rtl.emission.draft import STREAM_WORDS, Draft, channels_last, refuse
from qhw.flows.rtl.schedule import Schedule, scheduled
from qhw.graph.ir import ExactGraph
from qhw.rtl.fifo import Queue

WRITERS: Mapping[str, Callable[[Draft, Any], None]] = {
    "Add": elementwise.add,
    "Affine": elementwise.affine,
    "Concat": moves.concat,
    "Conv": matrix.conv,
    "MatMul": matrix.matmul,
    "MaxPool": windows.pool,
    "Mul": elementwise.mul,
    "Pad": moves.pad,
    "ReduceMax": windows.reduced,
    "ReduceSum": windows.reduced,
    "Requant": elementwise.requant,
    "Reshape": moves.reshape,
    "Slice": moves.cut,
    "SumPool": windows.pool,
    "Table": elementwise.looked_up,
    "Threshold": elementwise.threshold,
    "Transpose": moves.transpose,
    "Upsample": moves.upsample,
}
"""What writes an operation, by its name."""


def settled(design: Design) -> tuple[Circuit, Schedule]:
    """The circuit of a design with the least queues that never hold a word up, and its schedule.

    Raises:
        UnsupportedError: a node that cannot be written; named, with the layer that it came from.
    """
    deep = emit(design)
    schedule = scheduled(deep)
    # A queue that is never full is never in the way.
    queues = {
        component.name: schedule.most[component.name] + 1
        for component in deep.components
        if isinstance(component.timing, Queue) and component.timing.depth > STREAM_WORDS
    }
    if not queues:
        return deep, schedule
    circuit = emit(design, queues)
    return circuit, scheduled(circuit)


def emit(design: Design, queues: Mapping[str, int] | None = None) -> Circuit:
    """The circuit of a design.

    Args:
        queues: the depth of queues where branches meet, by component.

    Raises:
        UnsupportedError: a node that cannot be written; named, with the layer that it came from.
    """
    graph = design.graph
    draft = Draft(design, queues or {})
    for name in graph.inputs:
        _begin(draft, graph, name)
    for node in graph.nodes:
        if node.op not in WRITERS:
            refuse(node, "the operation is not carried", allowed=", ".join(WRITERS))
        try:
            writers = unrolled.WRITERS if unrolled.is_written_unrolled(draft, node) else WRITERS
            writers[node.op](draft, node)
        except InputError as error:  # a unit that is not made for these numbers
            refuse(node, error.message, allowed=error.allowed)
    for name in graph.outputs:
        draft.circuit.outputs.append(draft.take(name))
    return draft.circuit


def _begin(draft: Draft, graph: ExactGraph, name: str) -> None:
    """An input of the design: as wide as its first reader takes it."""
    kind = graph.tensors[name]
    order = channels_last(kind.shape)
    wire = draft.wire(name, unrolled.input_lanes(draft, name), Element.of(kind.format), order)
    if not graph.consumers(name) and name not in graph.outputs:
        raise UnsupportedError(f"Nothing reads input '{name}'", hint="remove it from the model")
    draft.circuit.inputs.append(wire)
    draft.carry(name, wire)
