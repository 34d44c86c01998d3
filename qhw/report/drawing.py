"""The network as a drawing: layers as boxes, from top to bottom, formats beside the edges.

Operations between two roundings are one box (a convolution, its batch norm, its rounding), so that large
networks stay readable. Boxes are laid out in ranks by the longest way from an input, ordered in each rank by
the mean place of what they are joined with (Sugiyama, Tagawa and Toda, 1981); an edge that skips ranks has
a lane of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qhw.report.distributions import format_text

if TYPE_CHECKING:
    from qhw.graph.ir import ExactGraph, Node

BOX, LINE, PADDING = 212, 15, 8
"""Width of a box, height of a line of text in it, and room around the text: pixels."""

GAP, LANE, SPACE = 54, 14, 26
"""Between two ranks (the edge's text stands there), width of a passing edge, between two boxes."""

_CHARACTERS = 31
_BEGINS = ("Conv", "MatMul", "Add", "Mul", "Concat")
_ENDS = ("Requant", "Threshold", "Table")
_MOVES = ("Reshape", "Transpose", "Slice", "Pad", "Upsample")
_BEND = 22
"""Pixels above a rank where edges bend: the text beside an edge stands in front of that."""

_SWEEPS = 6


@dataclass
class Box:
    """A layer: its title, what it does, and the tensor that it gives.

    Args:
        lines: texts below the title.
        output: the tensor that leaves it.
        inputs: the tensors that it takes from other boxes.
        bound: whether the design's rate waits for it.
        nodes: the operations in it.
    """

    title: str
    lines: list[str]
    output: str
    inputs: list[str]
    kind: str = "layer"
    nodes: list[str] = field(default_factory=list)

    @property
    def height(self) -> int:
        """In pixels."""
        return LINE * (1 + len(self.lines)) + 2 * PADDING


@dataclass
class Place:
    """Where a box stands, or where an edge passes a rank (no box)."""

    box: Box | None
    rank: int
    x: float = 0.0
    above: list[Place] = field(default_factory=list)
    below: list[Place] = field(default_factory=list)

    @property
    def width(self) -> int:
        return LANE if self.box is None else BOX


@dataclass(frozen=True)
class Drawing:
    """A drawing in pixels: boxes as mappings for the template, the edges' paths, and the edges' texts."""

    width: int
    height: int
    boxes: tuple[Mapping[str, Any], ...]
    paths: tuple[str, ...]
    labels: tuple[Mapping[str, Any], ...]


def draw(graph: ExactGraph, remarks: Mapping[str, str] | None = None, bound: str = "") -> Drawing:
    """Lay out an exact graph.

    Args:
        remarks: a line to add to a box, by node.
        bound: the node that the design's rate waits for.
    """
    boxes = boxes_of(graph, remarks or {})
    ranks, ends = _ranked(boxes)
    _order(ranks)
    _spread(ranks)
    left = min(place.x - place.width / 2 for rank in ranks for place in rank)
    right = max(
        place.x + (place.width / 2 if place.box is None else max(BOX / 2, 8 + _label_width(graph, place.box)))
        for rank in ranks
        for place in rank
    )
    tops, top = [], float(PADDING)
    for rank in ranks:
        tops.append(top)
        top += max((place.box.height for place in rank if place.box), default=0) + GAP
    heights = [max((place.box.height for place in rank if place.box), default=0) for rank in ranks]
    drawn, labels = [], []
    shift = PADDING - left
    for rank in ranks:
        for place in rank:
            if place.box is None:
                continue
            box, y = place.box, tops[place.rank]
            x = place.x + shift
            drawn.append(
                {
                    "x": round(x - BOX / 2, 1),
                    "y": y,
                    "width": BOX,
                    "height": box.height,
                    "kind": "bound" if bound and bound in box.nodes else box.kind,
                    "title": _cut(box.title),
                    "whole": "\n".join([box.title, *box.lines]),
                    "lines": [
                        {"y": y + PADDING + LINE * (2 + at) - 4, "text": _cut(text, _CHARACTERS + 1)}
                        for at, text in enumerate(box.lines)
                    ],
                    "text_x": round(x - BOX / 2 + PADDING, 1),
                    "title_y": y + PADDING + LINE - 4,
                }
            )
            if place.below:
                text, shape = _edge_text(graph, box)
                at = y + box.height
                labels.append({"x": round(x + 7, 1), "y": at + 17, "text": text, "shape": shape})
    paths = tuple(_path(edge, tops, heights, shift) for edge in ends)
    return Drawing(
        int(right - left) + 2 * PADDING, int(top - GAP + PADDING), tuple(drawn), paths, tuple(labels)
    )


def boxes_of(graph: ExactGraph, remarks: Mapping[str, str]) -> list[Box]:
    """The boxes of a graph, in its order.

    An operation joins the box in front of it where nothing else reads that one's result.
    """
    readers: dict[str, int] = {}
    for node in graph.nodes:
        for name in graph.activations(node):
            readers[name] = readers.get(name, 0) + 1
    for name in graph.outputs:
        readers[name] = readers.get(name, 0) + 1
    boxes = [Box(name, [], name, [], "input") for name in graph.inputs]
    giving = {box.output: box for box in boxes}
    for node in graph.nodes:
        inputs = list(dict.fromkeys(graph.activations(node)))
        before = giving.get(inputs[0]) if len(inputs) == 1 else None
        joins = (
            before is not None
            and before.kind == "layer"
            and node.op not in _BEGINS
            and (before.lines[0].rpartition(" ")[2] not in _ENDS or node.op in _MOVES)
            and readers[inputs[0]] == 1
        )
        if joins and before is not None:
            del giving[before.output]
            before.output = node.output
            before.lines[0] += f" · {node.op}"
            box = before
        else:
            box = Box(node.name, [node.op], node.output, inputs)
            boxes.append(box)
            if weights := _weights(graph, node):
                box.lines.append(weights)
        box.nodes.append(node.name)
        if remark := remarks.get(node.name):
            box.lines.append(remark)
        giving[node.output] = box
    for name in graph.outputs:  # no edge leaves it that could say so
        if name in giving:
            giving[name].lines.append("gives " + " ".join(_edge_text(graph, giving[name])))
    return boxes


def _weights(graph: ExactGraph, node: Node) -> str:
    if node.op not in ("Conv", "MatMul") or node.inputs[1] not in graph.constants:
        return ""
    kind = graph.tensors[node.inputs[1]]
    return f"{'×'.join(map(str, kind.shape))} {format_text(kind)}"


def _edge_text(graph: ExactGraph, box: Box) -> tuple[str, str]:
    kind = graph.tensors[box.output]
    return format_text(kind), "×".join(map(str, kind.shape))


def _label_width(graph: ExactGraph, box: Box) -> float:
    """Pixels, about."""
    return 6.4 * max(map(len, _edge_text(graph, box)))


def _cut(text: str, most: int = _CHARACTERS - 2) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _ranked(boxes: Sequence[Box]) -> tuple[list[list[Place]], list[list[Place]]]:
    """Places by rank, and for each edge the places that it passes, ends included."""
    giving = {box.output: box for box in boxes}
    rank: dict[str, int] = {}
    for box in boxes:
        rank[box.output] = 1 + max((rank[name] for name in box.inputs), default=-1)
    places = {box.output: Place(box, rank[box.output]) for box in boxes}
    ranks: list[list[Place]] = [[] for _ in range(1 + max(rank.values(), default=0))]
    for box in boxes:
        ranks[rank[box.output]].append(places[box.output])
    edges = []
    for box in boxes:
        for name in box.inputs:
            if name not in giving:
                continue
            way = [places[name]]
            for between in range(rank[name] + 1, rank[box.output]):
                passing = Place(None, between)
                ranks[between].append(passing)
                way.append(passing)
            way.append(places[box.output])
            for upper, lower in pairwise(way):
                upper.below.append(lower)
                lower.above.append(upper)
            edges.append(way)
    return ranks, edges


def _order(ranks: Sequence[list[Place]]) -> None:
    """Order each rank by the mean place of what its places are joined with, down and up in turn."""
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for rank in ranks[1:] if down else list(reversed(ranks))[1:]:
            where = {id(place): at for other in ranks for at, place in enumerate(other)}

            def mean(place: Place, where: Mapping[int, int] = where, down: bool = down) -> float:
                joined = place.above if down else place.below
                return sum(where[id(other)] for other in joined) / len(joined) if joined else where[id(place)]

            rank.sort(key=mean)


def _spread(ranks: Sequence[list[Place]]) -> None:
    """Give each place its x: near those that it is joined with, without overlap, in its rank's order."""
    for rank in ranks:
        _apart(rank, [0.0] * len(rank))
    for sweep in range(_SWEEPS):
        for rank in ranks if sweep % 2 == 0 else reversed(ranks):
            wanted = []
            for place in rank:
                joined = place.above if sweep % 2 == 0 else place.below
                xs = [other.x for other in joined]
                wanted.append(sum(xs) / len(xs) if xs else place.x)
            _apart(rank, wanted)


def _apart(rank: Sequence[Place], wanted: Sequence[float]) -> None:
    """Places as near as may be to where they are wanted, each beside the one in front of it."""
    groups: list[tuple[float, int, list[tuple[Place, float]]]] = []  # sum of wanted starts, count, members
    for place, at in zip(rank, wanted, strict=True):
        group = (at, 1, [(place, 0.0)])
        while groups:
            total, count, members = groups[-1]
            last, offset = members[-1]
            first = group[2][0][0]
            step = offset + (last.width + first.width) / 2 + SPACE
            if total / count + step <= group[0] / group[1]:
                break
            groups.pop()
            moved = [(one, off + step) for one, off in group[2]]
            group = (total + group[0] - step * group[1], count + group[1], [*members, *moved])
        groups.append(group)
    for total, count, members in groups:
        for place, offset in members:
            place.x = total / count + offset


def _path(way: Sequence[Place], tops: Sequence[float], heights: Sequence[int], shift: float) -> str:
    """An SVG path: straight through the lanes, bent between the ranks."""
    first, last = way[0], way[-1]
    assert first.box is not None
    x, y = first.x + shift, tops[first.rank] + first.box.height
    parts = [f"M{x:.1f} {y:.1f}"]
    for place in way[1:]:
        end = tops[place.rank]
        nx = place.x + shift
        bend = end - _BEND / 2
        if abs(nx - x) > 0.5:
            parts.append(
                f"L{x:.1f} {end - _BEND:.1f} C{x:.1f} {bend:.1f} {nx:.1f} {bend:.1f} {nx:.1f} {end:.1f}"
            )
        else:
            parts.append(f"L{nx:.1f} {end:.1f}")
        if place is not last:
            end += heights[place.rank]
            parts.append(f"L{nx:.1f} {end:.1f}")
        x, y = nx, end
    return " ".join(parts)
