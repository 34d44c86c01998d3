"""Networks as drawings: every operation is in a box, boxes stand apart, edges join what they should."""

from __future__ import annotations

import re

import pytest
from graph_factory import resnet8_graph
from random_graphs import random_graph

from qhw.graph.ir import ExactGraph
from qhw.report.distributions import format_text
from qhw.report.drawing import boxes_of, draw

GRAPHS = [resnet8_graph(), *(random_graph(seed, 12) for seed in range(12))]


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: f"{graph.name}-{len(graph.nodes)}")
def test_every_operation_is_in_one_box_and_every_edge_ends_at_two(graph: ExactGraph) -> None:
    boxes = boxes_of(graph, {})
    assert sorted(name for box in boxes for name in box.nodes) == sorted(node.name for node in graph.nodes)
    drawing = draw(graph)
    bottoms = {(round(box["x"] + box["width"] / 2, 1), box["y"] + box["height"]) for box in drawing.boxes}
    tops = {(round(box["x"] + box["width"] / 2, 1), box["y"]) for box in drawing.boxes}
    assert len(drawing.paths) == sum(len(box.inputs) for box in boxes)
    for path in drawing.paths:
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path)]
        assert near(tuple(numbers[:2]), bottoms), path
        assert near(tuple(numbers[-2:]), tops), path


def near(point: tuple[float, ...], others: set[tuple[float, float]]) -> bool:
    return any(abs(point[0] - x) < 0.2 and abs(point[1] - y) < 0.2 for x, y in others)


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: f"{graph.name}-{len(graph.nodes)}")
def test_boxes_stand_apart_and_inside(graph: ExactGraph) -> None:
    drawing = draw(graph)
    for at, one in enumerate(drawing.boxes):
        assert 0 <= one["x"] <= drawing.width - one["width"]
        assert 0 <= one["y"] <= drawing.height - one["height"]
        for other in drawing.boxes[at + 1 :]:
            beside = abs(one["x"] - other["x"]) >= one["width"]
            below = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
            assert beside or below, (one["title"], other["title"])


def test_the_formats_stand_beside_the_edges() -> None:
    graph = resnet8_graph()
    texts = {(label["text"], label["shape"]) for label in draw(graph).labels}
    assert all(re.fullmatch(r"u?fixed<\d+,-?\d+>", text) for text, _ in texts)
    assert "16×28×28" in {shape for _, shape in texts}
    last = next(box for box in boxes_of(graph, {}) if box.output == graph.outputs[0])
    assert last.lines[-1] == f"gives {format_text(graph.tensors[last.output])} 10"


def test_the_layer_that_the_rate_waits_for_has_a_frame_of_its_own() -> None:
    graph = resnet8_graph()
    name = next(node.name for node in graph.nodes if node.op == "Conv")
    kinds = [box["kind"] for box in draw(graph, bound=name).boxes]
    assert kinds.count("bound") == 1
    assert "bound" not in [box["kind"] for box in draw(graph).boxes]
