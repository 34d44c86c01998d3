"""One design: a graph as a flow builds it on a board, with its folding; it is priced, folded and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from qhw.boards import Board
from qhw.cost.pricing.architecture import Architecture, Fold, Written
from qhw.cost.pricing.costing import Costing
from qhw.cost.pricing.hardware import Multipliers
from qhw.errors import InputError, UnsupportedError, closest
from qhw.graph.ir import ExactGraph, Node


@dataclass(frozen=True)
class Design:
    """A graph in a flow's architecture, on a board.

    Args:
        graph: the graph that is built: a flow's own exact rewriting of the lowered graph.
        multipliers: how integers are multiplied.
        folding: factors by node name; nodes that are left out have the architecture's default.

    Raises:
        InputError: a folding names a node that is not in the graph, or has another architecture's factors.
    """

    graph: ExactGraph
    board: Board
    architecture: Architecture
    multipliers: Multipliers = "auto"
    folding: Mapping[str, Fold] = field(default_factory=dict)

    def __post_init__(self) -> None:
        nodes = {node.name for node in self.graph.nodes}
        notion = self.architecture.fold
        for name, fold in self.folding.items():
            if name not in nodes:
                raise InputError(
                    f"The folding names {name!r}, which is no node of the graph", hint=closest(name, nodes)
                )
            if not isinstance(fold, notion):
                raise InputError(f"The folding of {name!r} must be by {notion.title}, not {fold!r}")

    @cached_property
    def costing(self) -> Costing:
        """The cost models of its nodes.

        Raises:
            InputError: a board without a cost model.
            UnsupportedError: a design that is priced as a whole: a firmware is no sum of units.
        """
        if self.architecture.estimator is not None:
            raise UnsupportedError(
                f"Designs of the {self.architecture.flow} flow are priced as a whole, not node by node",
                hint=f"'qhw cost --flow {self.architecture.flow}' prices a model",
            )
        return Costing.of(self.graph, self.board.family, self.architecture, self.multipliers)

    @cached_property
    def written(self) -> Written | None:
        """What the flow knows of it by writing it: seconds for a large one, so it is asked once."""
        return None if self.architecture.written is None else self.architecture.written(self)

    @cached_property
    def legal(self) -> Mapping[str, Sequence[Fold]]:
        """The foldings that every foldable node may take."""
        return self.architecture.legal_folding(self.graph)

    def folded(self, folding: Mapping[str, Fold]) -> Design:
        """The same design with another folding."""
        return replace(self, folding=dict(folding))

    def fold_of(self, node: Node) -> Fold:
        """The folding of a node."""
        return self.folding.get(node.name, self.architecture.fold())

    def check_priced(self) -> None:
        """Check that every node has a cost model; UnsupportedError names the one without."""
        for node in self.graph.nodes:
            self.costing.layers(node, [self.architecture.fold()])
