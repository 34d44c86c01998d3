"""A flow's design of an exact graph on a board: prepared, folded, priced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qhw.boards import Board
from qhw.errors import InputError, QhwError, UnsupportedError

if TYPE_CHECKING:
    from qhw.cost import Design
    from qhw.flows.base import Flow
    from qhw.graph.ir import ExactGraph


@dataclass(frozen=True)
class Wanted:
    """Requirements on a design.

    Args:
        fps: images per second that are enough: the smallest design; None: the fastest.
        budget: share of each of the board's resources that may be used; None: the usual one.
        multipliers: how integers are multiplied; see :data:`qhw.cost.Multipliers`.

    Raises:
        InputError: the rate, the share or the choice of multipliers is not allowed.
    """

    fps: float | None = None
    budget: float | None = None
    multipliers: str = "auto"

    def __post_init__(self) -> None:
        from qhw.cost.pricing.folding import check_budget, check_rate
        from qhw.cost.pricing.hardware import check_multipliers

        check_multipliers(self.multipliers)
        if self.budget is not None:
            check_budget(self.budget)
        if self.fps is not None:
            check_rate(self.fps)

    @property
    def share(self) -> float:
        """The budget given, or the usual one."""
        from qhw.cost import BUDGET

        return BUDGET if self.budget is None else self.budget

    def to_json(self) -> dict[str, Any]:
        """The requirements as the manifest stores them."""
        return {"fps": self.fps, "budget": self.share, "multipliers": self.multipliers}


def best_design(graph: ExactGraph, board: Board, flow: Flow, wanted: Wanted | None = None) -> Design:
    """A flow's design at the fastest folding that fits the board, or the smallest at a rate.

    Channels that are constant, and those that nothing needs, are left out where that makes the design smaller
    or faster: fewer channels may have fewer foldings.

    Raises:
        UnsupportedError: the flow cannot carry the graph, or build for the board.
        DoesNotFitError: nothing fits; names the flows whose designs would.
    """
    from qhw.cost.pricing.folding import DoesNotFitError

    wanted = wanted or Wanted()
    check_computes(graph)
    try:
        return _best(graph, board, flow, wanted)
    except DoesNotFitError as error:
        if told := _elsewhere(graph, board, flow, wanted):
            error.hint = f"{error.hint}; {told}"
        raise


def check_computes(graph: ExactGraph) -> None:
    """Raise UnsupportedError for a graph without operations: there is no hardware in it."""
    if not graph.nodes:
        raise UnsupportedError(
            "The model quantises its input and computes nothing: there is no hardware to build",
            allowed="models with one operation on quantised numbers or more",
            hint="'qhw simulate' runs it",
        )


def _best(graph: ExactGraph, board: Board, flow: Flow, wanted: Wanted) -> Design:
    from qhw.cost.pricing.folding import DoesNotFitError
    from qhw.graph.passes import constant_channels

    smaller, changed = constant_channels.apply(graph)
    if not changed or not flow.leaves_channels_out:
        return _folded(graph, board, flow, wanted)
    found = []
    for each in (smaller, graph):
        try:
            found.append(_folded(each, board, flow, wanted))
        except DoesNotFitError:
            if each is graph and not found:
                raise
    return min(found, key=lambda design: _size(design, wanted))


def _folded(graph: ExactGraph, board: Board, flow: Flow, wanted: Wanted) -> Design:
    design = flow.prepare(graph, board, wanted.multipliers)
    return flow.best(design, budget=wanted.share, fps=wanted.fps)


def _size(design: Design, wanted: Wanted) -> tuple[float, ...]:
    """What is less in the better one of two designs: the interval unless a rate is enough, then resources."""
    from qhw.cost import estimate

    estimated = estimate(design)
    interval = estimated.initiation_interval if wanted.fps is None else 0
    shares = estimated.utilisation.values()
    return interval, max(shares), sum(shares)


def without_channels(graph: ExactGraph, removed: int) -> ExactGraph:
    """The graph of a design from which :func:`best_design` left so many channels out.

    Raises:
        InputError: the graph has not so many.
    """
    from qhw.graph.passes import constant_channels

    if not removed:
        return graph
    smaller, _ = constant_channels.apply(graph)
    if (found := constant_channels.removed(graph, smaller)) != removed:
        raise InputError(f"The design lacks {removed} channels, but {found} of its graph are constant")
    return smaller


def _elsewhere(graph: ExactGraph, board: Board, flow: Flow, wanted: Wanted) -> str:
    """A remedy: the other flows whose designs would fit; empty where no other builds for the board."""
    from qhw.cost import estimate
    from qhw.flows.base import ProjectFlow, list_flows, load_flow

    found = []
    others = [name for name in list_flows() if name != flow.name and load_flow(name).takes(board.device)]
    if not others:
        return ""
    for name in others:
        other = load_flow(name)
        try:
            design = _best(graph, board, other, wanted)
        except QhwError:
            continue
        priced = estimate(design)
        fullest, share = max(priced.utilisation.items(), key=lambda item: item[1])
        only = (
            "" if isinstance(other, ProjectFlow) else "; qhw estimates it, but cannot write its projects yet"
        )
        found.append(
            f"or use --flow {name}, which fits with {share:.0%} of the {fullest.upper()} and "
            f"{priced.throughput_fps:,.0f} images/s, folded by {design.architecture.fold.title}{only}"
        )
    return "; ".join(found) or f"no folding of another flow fits either ({', '.join(others)})"
