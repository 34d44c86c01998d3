"""Padding with mantissa 0 as part of the convolutions that alone read it."""

from __future__ import annotations

from dataclasses import replace

from qhw.graph.ir import Conv, ExactGraph, Node, Pad


def apply(graph: ExactGraph) -> tuple[ExactGraph, bool]:
    """Spatial zero padding becomes the padding of its convolutions."""
    merged = {node.output: node for node in graph.nodes if isinstance(node, Pad) and _merges(graph, node)}
    if not merged:
        return graph, False
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node, Conv) and node.inputs[0] in merged:
            nodes.append(_padded(node, merged[node.inputs[0]]))
        elif node.output not in merged:
            nodes.append(node)
    return graph.replace_nodes(nodes), True


def _merges(graph: ExactGraph, node: Pad) -> bool:
    if node.value != 0 or node.output in graph.outputs:
        return False
    rank = len(node.pads) // 2
    readers = graph.consumers(node.output)
    spatial_only = node.pads[0] == node.pads[rank] == 0
    return spatial_only and bool(readers) and all(isinstance(reader, Conv) for reader in readers)


def _padded(node: Conv, pad: Pad) -> Conv:
    rank = len(pad.pads) // 2
    begins, ends = pad.pads[1:rank], pad.pads[rank + 1 :]
    pads = tuple(a + b for a, b in zip(node.pads, (*begins, *ends), strict=True))
    return replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), pads=pads)
