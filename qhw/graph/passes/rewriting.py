"""Helpers of the passes: types of new nodes, and editing a graph's node list."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import chain, count

from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray
from qhw.graph.builder import value_ranges
from qhw.graph.infer import Operand, Range, infer
from qhw.graph.ir import ExactGraph, Exponent, Node, TensorType


@dataclasses.dataclass
class Rewriting:
    """Changes to a graph, collected in one sweep over nodes that do not touch each other."""

    graph: ExactGraph
    nodes: dict[str, Node | None] = dataclasses.field(default_factory=dict)
    types: dict[str, TensorType] = dataclasses.field(default_factory=dict)
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    constants: dict[str, IntArray] = dataclasses.field(default_factory=dict)
    _ranges: dict[str, Range] | None = None

    @property
    def ranges(self) -> dict[str, Range]:
        """The range of every tensor of the graph before the changes."""
        if self._ranges is None:
            self._ranges = value_ranges(self.graph)
        return self._ranges

    def touches(self, *nodes: Node) -> bool:
        """Whether one of the nodes is changed already."""
        return any(node.name in self.nodes for node in nodes)

    def replace(self, node: Node, new: Node) -> None:
        """Put ``new`` in a node's place; its type is inferred from its inputs."""
        operands = [
            Operand(self.graph.tensors[i], self.ranges[i], self.graph.constants.get(i)) for i in new.inputs
        ]
        self.nodes[node.name] = new
        self.types[new.output] = infer(new, operands, self.graph.tensors[new.inputs[0]]).type()

    def put(self, node: Node, new: Node) -> None:
        """Put ``new`` in a node's place; it writes the same tensor, of the same type."""
        self.nodes[node.name] = new

    def constant(self, stem: str, value: IntArray) -> str:
        """A new constant at exponent 0, in the narrowest format; its name."""
        taken = self._taken
        name = next(n for n in chain([stem], (f"{stem}_{i}" for i in count(2))) if n not in taken)
        format = Integer.holding(int(value.min()), int(value.max()))
        self.types[name] = TensorType(value.shape, format, Exponent.scalar(0))
        self.constants[name] = value
        return name

    @property
    def _taken(self) -> set[str]:
        return {*self.graph.tensors, *self.types}

    def remove(self, node: Node, instead: str) -> None:
        """Take a node out; what read its result reads ``instead``."""
        self.nodes[node.name] = None
        self.renamed[node.output] = instead

    def apply(self) -> tuple[ExactGraph, bool]:
        """The changed graph, and whether anything changed."""
        if not self.nodes:
            return self.graph, False
        nodes = [self.nodes.get(node.name, node) for node in self.graph.nodes]
        graph = dataclasses.replace(
            self.graph,
            tensors={**self.graph.tensors, **self.types},
            constants={**self.graph.constants, **self.constants},
            outputs=tuple(self._final(name) for name in self.graph.outputs),
            output_scales={self._final(name): s for name, s in self.graph.output_scales.items()},
        )
        return graph.replace_nodes([self._rewired(node) for node in nodes if node is not None]), True

    def _rewired(self, node: Node) -> Node:
        inputs = tuple(self._final(name) for name in node.inputs)
        return node if inputs == node.inputs else dataclasses.replace(node, inputs=inputs)

    def _final(self, name: str) -> str:
        while name in self.renamed:
            name = self.renamed[name]
        return name


def only_readers(graph: ExactGraph) -> Mapping[str, Node]:
    """The node that alone reads a tensor, by tensor; graph outputs have none."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in set(node.inputs):
            readers.setdefault(name, []).append(node)
    return {t: nodes[0] for t, nodes in readers.items() if len(nodes) == 1 and t not in graph.outputs}
