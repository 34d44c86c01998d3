"""Design points by the thousand: the same sums as one estimate at a time gives."""

from __future__ import annotations

import numpy as np
import pytest
from graph_factory import resnet8_graph

from qhw.boards import load_board
from qhw.cost import Design, estimate
from qhw.cost.pricing.costing import ESTIMATED, Costing
from qhw.cost.pricing.table import CostTable
from qhw.errors import InputError
from qhw.flows.rtl.template import ARCHITECTURE, PeSimd, legal_folding

BOARD = load_board("ultra96")
GRAPHS = [resnet8_graph(side=8, weight_bits=bits) for bits in (8, 4)]
LEGAL = {name: folds[:: max(1, len(folds) // 5)] for name, folds in legal_folding(GRAPHS[0]).items()}


@pytest.fixture(scope="module")
def table() -> CostTable:
    return CostTable.of([Costing.of(graph, BOARD.family, ARCHITECTURE) for graph in GRAPHS], LEGAL)


def test_points_cost_what_their_estimates_say(table: CostTable) -> None:
    random = np.random.default_rng(0)
    folds = np.array([len(LEGAL[name]) for name in table.nodes])
    picked = random.integers(0, folds, (12, len(folds)))
    variant = np.arange(12) % 2
    choices = np.array(
        [
            [table.place(layer, int(v), int(fold)) for layer, fold in enumerate(row)]
            for v, row in zip(variant, picked, strict=True)
        ]
    )
    costs = table.evaluate(choices)
    for point, (v, row) in enumerate(zip(variant, picked, strict=True)):
        folding = {name: LEGAL[name][fold] for name, fold in zip(table.nodes, row, strict=True)}
        one = estimate(Design(GRAPHS[v], BOARD, ARCHITECTURE, folding=folding))
        assert costs.usage[point].tolist() == [one.totals[name] for name in ESTIMATED]
        assert costs.initiation_interval[point] == one.initiation_interval
        assert costs.energy_nj[point] == pytest.approx(1e3 * one.energy_uj)
        assert costs.memory_bits[point] == one.memory_bits
        assert one.layers[costs.binding[point]].initiation_interval == one.initiation_interval
        assert costs.fits(BOARD)[point] == one.fits


def test_layers_may_come_from_different_variants(table: CostTable) -> None:
    zeros = np.zeros((1, len(table.nodes)), dtype=np.int64)
    mixed = zeros.copy()
    place = table.nodes.index("block1_conv1")
    mixed[0, place] = table.place(place, 1, 0)
    both = table.evaluate(np.concatenate([zeros, mixed])).usage
    change = [
        getattr(table.options[place][mixed[0, place]], n) - getattr(table.options[place][0], n)
        for n in ESTIMATED
    ]
    assert (both[1] - both[0]).tolist() == change
    assert any(change)


def test_wrong_choices_are_explained(table: CostTable) -> None:
    with pytest.raises(InputError, match=r"shape \(2, 3\)"):
        table.evaluate(np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(InputError, match="an option that its layer does not have"):
        table.evaluate(np.full((1, len(table.nodes)), 10**6))
    with pytest.raises(InputError, match="the same nodes"):
        CostTable.of([], LEGAL)


def test_accumulators_of_the_formats_alone_are_no_narrower_than_proven_ones() -> None:
    graph = GRAPHS[0]
    proven, bound = (Costing.of(graph, BOARD.family, ARCHITECTURE, proven=given) for given in (True, False))
    for node in graph.nodes:
        if node.op in ("Conv", "MatMul"):
            (tight,), (loose,) = proven.layers(node, [PeSimd()]), bound.layers(node, [PeSimd()])
            assert tight.ff <= loose.ff
            assert tight.lut <= loose.lut
