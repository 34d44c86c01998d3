"""Parts of a firmware that are priced one by one: what a search adds up, without planning a point's firmware.

A part is an operation with all that may be joined to it: which of them become one step depends on the types
within the part alone. Its price is that of its steps at whole maps, its ranges being those of its types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qhw.cost.pricing.architecture import PartCost, Parts
from qhw.flows.mcu.arena import ALIGNMENT
from qhw.flows.mcu.emit import arrays_of
from qhw.flows.mcu.instructions import cycles_of, instructions
from qhw.flows.mcu.kernels import STEP_BYTES, code_parts
from qhw.flows.mcu.layout import STACK_BYTES, Layout
from qhw.flows.mcu.planner import CHANGES_VALUE, ENDS, plan_part
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.infer import Range
from qhw.graph.ir import ExactGraph, Node
from qhw.graph.passes import dead, merge_pads, to_threshold


def joined(graph: ExactGraph) -> ExactGraph:
    """The graph without dead nodes, and with zero padding merged into convolutions."""
    for apply in (dead.apply, merge_pads.apply):
        graph, _ = apply(graph)
    return graph


def compared(graph: ExactGraph, ranges: dict[str, Range] | None = None) -> ExactGraph:
    """The graph with results that are not evenly spaced found by comparing.

    Args:
        ranges: of its tensors, where they are not those that follow from its inputs.
    """

    def is_listed(node: Node) -> bool:
        return isinstance(graph.tensors[node.output].format, TableFormat)

    return to_threshold.apply(graph, is_listed, ranges=ranges)[0]


def split(graph: ExactGraph) -> list[list[str]]:
    """The names of each part's nodes, in order."""
    part_of: dict[str, list[str]] = {}
    parts: list[list[str]] = []
    for node in graph.nodes:
        part = next((part_of[name] for name in graph.activations(node) if _joins(graph, name, node)), None)
        if part is None:
            part = []
            parts.append(part)
        part.append(node.name)
        part_of[node.output] = part
    return parts


def _joins(graph: ExactGraph, tensor: str, node: Node) -> bool:
    """Whether a node may be carried out with what makes its operand."""
    if len(graph.consumers(tensor)) > 1 or tensor in graph.outputs or graph.producer(tensor) is None:
        return False
    if isinstance(node, ir.MatMul):  # a Linear behind a Flatten is a convolution
        return isinstance(graph.producer(tensor), ir.Reshape)
    return isinstance(node, ENDS) or (
        isinstance(node, CHANGES_VALUE) and len(list(graph.activations(node))) == 1
    )


def cost(part: ExactGraph, outputs: Sequence[str], family: str) -> PartCost:
    """What a part costs on a core.

    Args:
        part: its nodes alone; its outputs are what others read.
        outputs: those of its tensors that the network gives out.

    Raises:
        UnsupportedError: an operation that no kernel carries out at these types.
    """
    ranges = {name: _range(part, name) for name in part.tensors}
    written = compared(part, ranges)
    ranges |= {name: _range(written, name) for name in written.tensors if name not in ranges}
    program = plan_part(written, ranges, outputs)
    layout = Layout(program, written)
    counts = [instructions(layout, step, family) for step in program.steps]
    return PartCost(
        sum(counts),
        sum(map(cycles_of, counts)),
        STEP_BYTES * len(counts),
        sum(kind.bytes + ALIGNMENT for kind in program.maps.values())
        + sum(step.scratch + ALIGNMENT for step in program.steps),
        {**arrays_of(layout), **code_parts([step.kernel for step in program.steps])},
    )


def _range(graph: ExactGraph, tensor: str) -> Range:
    """The numbers of a tensor, as far as its type tells."""
    if tensor in graph.constants and graph.constants[tensor].size:
        value = graph.constants[tensor]
        return Range.of(int(value.min()), int(value.max()))
    format = graph.tensors[tensor].format
    return Range.of(format.mantissa_low, format.mantissa_high)


def room(capacity: Mapping[str, int], budget: float) -> int:
    """Bytes that maps may have together, so that they fit where no two share a byte."""
    return min(int(capacity["contiguous_sram"] * budget), int(capacity["sram"] * budget) - STACK_BYTES)


PARTS = Parts(joined, split, cost, room)
