"""Prices of design points from the table, against lowering, pricing and folding each one.

    python benchmarks/search_prices.py [--networks digits-cnn,resnet8] [--points 100000] [--compared 40]

Writes ``benchmarks/results/search_prices.md``. The table is compared with the graphs that points lower to,
resource by resource, and timed on random points: the first ones, others that it has not seen, then all again.
Times are those of the processor: a busy machine does not change them much.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from qhw.boards import load_board
from qhw.cost import estimate
from qhw.cost.pricing.costing import ESTIMATED
from qhw.data import load_dataset
from qhw.errors import CheckFailedError
from qhw.export import to_onnx
from qhw.flows.base import load_flow
from qhw.formats.modes import IntArray
from qhw.graph.lower import lower
from qhw.models import build_model
from qhw.models.registry import model_entry
from qhw.pipeline.designs import Wanted, best_design
from qhw.quant_config import QuantConfig
from qhw.search.network import CALIBRATION, Variants, sites_of
from qhw.search.pricing import CircuitPricer
from qhw.search.space import Point, SpaceSettings
from qhw.train import Phase, TrainConfig

RESULT = Path(__file__).parent / "results" / "search_prices.md"
BOARD = "zcu104"
RATES = {"digits-cnn": 200_000.0, "mlp": 1_000_000.0, "mnist-cnn": 20_000.0, "resnet8": 2_000.0}
FLOWS = ("hls4ml", "rtl")
TRAINED = 2_000
"""Samples that a network is trained on for an epoch."""

FIRST, NEW = 1_000, 5_000


def measured(network: str, count: int, compared_points: int) -> list[list[object]]:
    """One row of the table for each flow."""
    data = load_dataset(model_entry(network).dataset)
    model = build_model(network, data)
    config = TrainConfig(float_epochs=1)
    assert data.train_y is not None
    data = replace(data, train_x=data.train_x[:TRAINED], train_y=data.train_y[:TRAINED])
    Phase("float", 1, config.learning_rate, config, None, "").run(model, data, None)
    samples = torch.from_numpy(data.train_x[:CALIBRATION]).float()
    space = SpaceSettings().space(sites_of(model, QuantConfig(), samples[:2]), QuantConfig())
    start = time.process_time()
    variants = Variants(model, space, samples)
    graphs = [lower(to_onnx(module)) for module in variants.modules]
    prepared, wanted = time.process_time() - start, Wanted(fps=RATES[network])
    rows = []
    for flow in FLOWS:
        pricer = CircuitPricer(
            graphs, variants.sources(), space.counts.tolist(), load_flow(flow), load_board(BOARD), wanted
        )
        rng = np.random.default_rng(0)
        points = space.sample(rng, FIRST + NEW)
        first, new = rate(pricer, points[:FIRST]), rate(pricer, points[FIRST:])
        many = np.array(points)[rng.integers(0, len(points), count)]
        again = float(np.median([rate(pricer, many) for _ in range(5)]))
        equal, built, seconds = compared(pricer, variants, points[:compared_points], flow, wanted)
        figures = [*(f"{value:,.0f}" for value in (first, new, again)), f"{built / seconds:,.1f}"]
        rows.append([network, flow, f"{space.size:.2g}", f"{prepared:.1f}", *figures, f"{equal} of {built}"])
    return rows


def rate(pricer: CircuitPricer, points: Sequence[Point] | IntArray) -> float:
    """Points a second of the processor."""
    start = time.process_time()
    pricer.price(points)
    return len(points) / (time.process_time() - start)


def compared(
    pricer: CircuitPricer, variants: Variants, points: list[Point], flow: str, wanted: Wanted
) -> tuple[int, int, float]:
    """How many points have the resources of their lowered graphs, of how many that fit; the time of that."""
    prices = pricer.price(points)
    equal, built, start = 0, 0, time.process_time()
    for row, point in enumerate(points):
        graph = lower(to_onnx(variants.module(point)))
        try:
            design = best_design(graph, load_board(BOARD), load_flow(flow), wanted)
        except CheckFailedError:
            assert not prices.fits[row]
            continue
        # A flow that counts what it wrote says other totals: it is folded, and searched, by its closed forms.
        by_forms = replace(design, architecture=replace(design.architecture, written=None))
        totals = estimate(by_forms).totals
        built += 1
        equal += [float(totals[name]) for name in ESTIMATED] == prices.usage[row].tolist()
    return equal, built, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="digits-cnn,resnet8")
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--compared", type=int, default=40)
    given = parser.parse_args()
    rows = [
        row
        for network in given.networks.split(",")
        for row in measured(network, given.points, given.compared)
    ]
    head = [
        *(
            "network",
            "flow",
            "points of the space",
            "seconds to prepare",
            "first points/s",
            "new points/s",
            "points/s",
        ),
        *("lowered and folded, points/s", "equal in every resource"),
    ]
    lines = [
        "# Prices of design points",
        "",
        f"Random points of the default space at a rate, on {BOARD} (`benchmarks/search_prices.py`).",
        "Seconds are those of the processor. To prepare: the network in all variants, lowered.",
        f"First: {FIRST:,} points of an empty table. New: {NEW:,} others that it has not seen.",
        f"Points/s: {given.points:,} of all those again, median of 5.",
        "Equal: every resource of the table against the lowered graph, folded by the integer program;",
        "where they differ, the program has traded one resource of a layer for another.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
        "",
    ]
    RESULT.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
