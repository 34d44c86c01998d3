"""A graph whose patches are explicit: each has nodes of its own, so that its formats may be its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node, TensorType
from qhw.patch.plan import PatchPlan, front_of, patches_of, tiles
from qhw.patch.regions import Region, on_region, reading, regions_of


def with_patches(graph: ExactGraph, plan: PatchPlan) -> ExactGraph:
    """The graph with a copy of its first layers for each patch, which are joined to the cut again.

    It gives the same codes. Node ``n`` of patch ``i`` is ``n.patch<i>``, and keeps its source. The copies
    read what they need of a tensor through Slices; nothing else is shared but constants.
    """
    if not plan.cut:
        return graph
    front, rest = front_of(graph, plan)
    made = _Unrolled(graph)
    parts = []
    for index, patch in enumerate(patches_of(graph, plan.cut, plan.grid)):
        regions = regions_of(graph, front, plan.cut, patch)
        for node in front:
            if node.output in regions:
                made.copy(node, regions, index)
        parts.append(f"{plan.cut}.patch{index}")
    made.join(plan.cut, plan.grid, parts)
    tensors = {**graph.tensors, **made.tensors}
    return replace(graph, tensors=tensors).replace_nodes([*made.nodes, *rest])


def has_patches(graph: ExactGraph, cut: str) -> bool:
    """Whether a graph has a copy of its layers for each patch up to this tensor already."""
    return f"{cut}.patch0" in graph.tensors


@dataclass
class _Unrolled:
    """The nodes and tensors of patches, as far as they are made."""

    graph: ExactGraph
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, TensorType] = field(default_factory=dict)

    def copy(self, node: Node, regions: dict[str, Region], patch: int) -> None:
        """A node for its region of a patch, behind the Slices that give it what it reads."""
        read = reading(self.graph, node, regions[node.output])
        inputs = []
        for place, name in enumerate(node.inputs):
            if name in self.graph.constants:
                inputs.append(name)
                continue
            held = name if name in self.graph.inputs else f"{name}.patch{patch}"
            whole = tuple((0, size) for size in self.graph.tensors[name].shape[1:])
            start = whole if name in self.graph.inputs else regions[name]
            inputs.append(
                self._part(held, start, read.region, f"{node.name}.patch{patch}.input{place}", node)
            )
        output = f"{node.output}.patch{patch}"
        copied = replace(
            on_region(node, read), name=f"{node.name}.patch{patch}", inputs=tuple(inputs), output=output
        )
        self._add(copied, self._typed(node.output, regions[node.output]))

    def _part(self, tensor: str, held: Region, wanted: Region, name: str, node: Node) -> str:
        """A region of a tensor that holds another one, by a Slice along each axis where they differ."""
        kind = self.tensors.get(tensor) or self.graph.tensors[tensor]
        for axis, ((start, stop), (first, last)) in enumerate(zip(held, wanted, strict=True), 1):
            if (start, stop) == (first, last):
                continue
            cut = f"{name}.axis{axis}"
            sliced = ir.Slice(
                cut,
                (tensor,),
                cut,
                axis=axis,
                start=first - start,
                stop=last - start,
                step=1,
                source=node.source,
            )
            shape = (*kind.shape[:axis], last - first, *kind.shape[axis + 1 :])
            kind = TensorType(shape, kind.format, kind.exponent)
            self._add(sliced, kind)
            tensor = cut
        return tensor

    def join(self, cut: str, grid: tuple[int, ...], parts: list[str]) -> None:
        """The patches' results as the cut: along the last axis, then along the first."""
        columns = grid[-1]
        rows = [parts[start : start + columns] for start in range(0, len(parts), columns)]
        kind = self.graph.tensors[cut]
        if len(grid) == 1:
            self._concat(cut, rows[0], 1, kind)
            return
        heights = tiles(kind.shape[1], grid[0])
        bands = []
        for index, (row, (start, stop)) in enumerate(zip(rows, heights, strict=True)):
            band = f"{cut}.row{index}"
            shape = (kind.shape[0], stop - start, kind.shape[2])
            bands.append(self._concat(band, row, 2, TensorType(shape, kind.format, kind.exponent)))
        self._concat(cut, bands, 1, kind)

    def _concat(self, name: str, parts: list[str], axis: int, kind: TensorType) -> str:
        made_by = self.graph.producer(name)
        source = "" if made_by is None else made_by.source
        self._add(ir.Concat(f"{name}.joined", tuple(parts), name, axis=axis, source=source), kind)
        return name

    def _typed(self, tensor: str, region: Region) -> TensorType:
        kind = self.graph.tensors[tensor]
        shape = (kind.shape[0], *(stop - start for start, stop in region))
        return TensorType(shape, kind.format, kind.exponent)

    def _add(self, node: Node, kind: TensorType) -> None:
        self.nodes.append(node)
        self.tensors[node.output] = kind
