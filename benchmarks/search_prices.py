"""Prices of design points from the table, against lowering, pricing and folding each one.

    python benchmarks/search_prices.py [--networks digits-cnn,resnet8] [--points 100000]

Writes ``benchmarks/results/search_prices.md``. The table is compared with the graphs that points lower to,
resource by resource, and timed on random points: first those that it has not seen, then all again.
"""

from __future__ import annotations

import argparse
import time
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
COMPARED = 40
DISTINCT = 2_000


def measured(network: str, flow: str, count: int) -> list[object]:
    """One row of the table."""
    data = load_dataset(model_entry(network).dataset)
    model = build_model(network, data)
    config = TrainConfig(float_epochs=1)
    few = 12_000
    if len(data.train_x) > few:
        from dataclasses import replace

        assert data.train_y is not None
        data = replace(data, train_x=data.train_x[:few], train_y=data.train_y[:few])
    Phase("float", 1, config.learning_rate, config, None, "").run(model, data, None)
    samples = torch.from_numpy(data.train_x[:CALIBRATION]).float()
    space = SpaceSettings().space(sites_of(model, QuantConfig(), samples[:2]), QuantConfig())
    start = time.perf_counter()
    variants = Variants(model, space, samples)
    graphs = [lower(to_onnx(module)) for module in variants.modules]
    choices = variants.sources()
    wanted = Wanted(fps=RATES[network])
    pricer = CircuitPricer(graphs, choices, space.counts.tolist(), load_flow(flow), load_board(BOARD), wanted)
    prepared = time.perf_counter() - start
    rng = np.random.default_rng(0)
    points = space.sample(rng, DISTINCT)
    start = time.perf_counter()
    pricer.price(points)
    first = time.perf_counter() - start
    many = np.array(points)[rng.integers(0, DISTINCT, count)]
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        pricer.price(many)
        rates.append(count / (time.perf_counter() - start))
    equal, built, seconds = compared(pricer, variants, points[:COMPARED], flow, wanted)
    return [
        network,
        flow,
        f"{space.size:.2g}",
        f"{prepared:.1f}",
        f"{DISTINCT / first:,.0f}",
        f"{float(np.median(rates)):,.0f}",
        f"{built / seconds:,.1f}",
        f"{equal} of {built}",
    ]


def compared(
    pricer: CircuitPricer, variants: Variants, points: list[Point], flow: str, wanted: Wanted
) -> tuple[int, int, float]:
    """How many points have the resources of their lowered graphs, of how many that fit; the time of that."""
    prices = pricer.price(points)
    equal, built, start = 0, 0, time.perf_counter()
    for row, point in enumerate(points):
        graph = lower(to_onnx(variants.module(point)))
        try:
            totals = estimate(best_design(graph, load_board(BOARD), load_flow(flow), wanted)).totals
        except CheckFailedError:
            assert not prices.fits[row]
            continue
        built += 1
        equal += [float(totals[name]) for name in ESTIMATED] == prices.usage[row].tolist()
    return equal, built, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="digits-cnn,resnet8")
    parser.add_argument("--points", type=int, default=100_000)
    given = parser.parse_args()
    rows = [
        measured(network, flow, given.points)
        for network in given.networks.split(",")
        for flow in ("hls4ml", "rtl")
    ]
    head = [
        *("network", "flow", "points of the space", "seconds to prepare", "new points/s", "points/s"),
        *("lowered and folded, points/s", "equal in every resource"),
    ]
    lines = [
        "# Prices of design points",
        "",
        f"Random points of the default space at a rate, on {BOARD} (`benchmarks/search_prices.py`).",
        "To prepare: the network in all variants, lowered.",
        f"New: {DISTINCT:,} points that the table has not seen.",
        f"Points/s: {given.points:,} of those again, median of 5.",
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
