"""Hypervolume against evaluations: every search strategy on spaces that are small enough to try out.

Each network is trained in float on a part of its training split; the rest of that split is held out, and every
point of the space is evaluated on it once (the evaluator `calibrated`: no training). A strategy then asks for
points, and is told what is known of them. The test splits are not looked at.

    python benchmarks/search_strategies.py [--cache build/search_strategies] [--seeds 3] [--networks N ...]
        [--strategies S ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from torch import nn

from qhw import checkpoints
from qhw.boards import load_board
from qhw.data import load_dataset
from qhw.data.base import Dataset
from qhw.export import to_onnx
from qhw.flows.base import load_flow
from qhw.graph.lower import lower
from qhw.models import build_model, model_entry
from qhw.pipeline.designs import Wanted
from qhw.quant_config import QuantConfig
from qhw.search.evaluators import evaluator_class
from qhw.search.evaluators.base import Held
from qhw.search.network import CALIBRATION, Variants, sites_of
from qhw.search.pricing import PointPricer
from qhw.search.space import Point, Space, SpaceSettings
from qhw.tasks.base import Judge
from qhw.train import Phase

BOARD, FLOW, OBJECTIVE = "ultra96", "hls4ml", "lut"


@dataclass(frozen=True)
class Case:
    """A network with a space of formats small enough to exhaust.

    Args:
        model: a built-in model, trained on its own data set by its own recipe.
        weights, activations: the formats to choose from.
        fps: images per second that every point must reach.
        held: samples of the training split that are held out.
    """

    model: str
    weights: tuple[str, ...]
    activations: tuple[str, ...]
    fps: float
    held: int


SEVEN = (
    ("ternary", "fixed<3>", "e2m1", "fixed<4>", "khot<6,2>", "fixed<6>", "fixed<8>"),
    ("fixed<2>", "fixed<3>", "e2m1", "fixed<4>", "e3m2", "fixed<6>", "fixed<8>"),
)
FIVE = (
    ("ternary", "e2m1", "fixed<4>", "khot<6,2>", "fixed<8>"),
    ("fixed<2>", "e2m1", "fixed<4>", "e3m2", "fixed<8>"),
)
CASES = (
    Case("digits-cnn", *FIVE, fps=500_000, held=400),
    Case("mlp", *SEVEN, fps=500_000, held=400),
    Case("mnist-cnn", *SEVEN, fps=10_000, held=800),
)


def split(data: Dataset, held: int) -> tuple[Dataset, NDArray[Any], NDArray[Any]]:
    """The data without some training samples, drawn evenly; and those."""
    order = np.random.default_rng(0).permutation(len(data.train_x))
    out, kept = np.sort(order[:held]), np.sort(order[held:])
    rest = dataclasses.replace(data, train_x=data.train_x[kept], train_y=data.train_targets[kept])
    return rest, data.train_x[out], data.train_targets[out]


class Bench:
    """A trained network, its prices, and the quality of every point."""

    def __init__(self, case: Case, cache: Path, bar: Bar) -> None:
        self.case = case
        rest, held_x, held_y = split(load_dataset(model_entry(case.model).dataset), case.held)
        self.data, self.cache = rest, cache / case.model
        checkpoints.prepare_folder(self.cache)
        self.model, self.held = self._trained(), Held(held_x, Judge(rest.kind, rest.figure, held_y))
        samples = torch.from_numpy(rest.train_x[:CALIBRATION]).float()
        settings = SpaceSettings(weights=case.weights, activations=case.activations)
        self.space = settings.space(sites_of(self.model, QuantConfig(), samples[:2]), QuantConfig())
        self.variants = Variants(self.model, self.space, samples)
        self.points = self.space.every()
        self.costs, self.fits = self._priced()
        self.qualities = self._exhausted(bar)

    def _trained(self) -> nn.Module:
        recipe = dataclasses.replace(model_entry(self.case.model).recipe(), seed=0)
        model = build_model(self.case.model, self.data, seed=0)
        start = checkpoints.fingerprint(checkpoints.weights_hash(model), self.data.sha256, torch.__version__)
        phase = Phase("float", recipe.float_epochs, recipe.learning_rate, recipe, self.cache, start)
        phase.run(model, self.data, None)
        return model.eval()

    def _priced(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        choices = {(path, v.kind): i for i, v in enumerate(self.space.variables) for path in v.layers}
        graphs = [lower(to_onnx(module)) for module in self.variants.modules]
        wanted = Wanted(fps=self.case.fps)
        board = load_board(BOARD)
        pricer = PointPricer(graphs, choices, self.space.counts, load_flow(FLOW), board, wanted)
        found = pricer.price(self.points)
        return found.objective(OBJECTIVE), found.fits

    def _exhausted(self, bar: Bar) -> NDArray[np.float64]:
        """The quality of every point, from the cache if it is there."""
        identity = checkpoints.fingerprint(self.case, checkpoints.weights_hash(self.model), self.data.sha256)
        path = self.cache / f"exhaustive-{identity[:12]}.npy"
        if path.is_file():
            return np.load(path, allow_pickle=False)
        evaluator = evaluator_class("calibrated")(self.variants, self.held)
        task = bar.add_task(f"{self.case.model}, every point", total=len(self.points))
        qualities = np.empty(len(self.points))
        for place, point in enumerate(self.points):
            qualities[place] = evaluator.evaluate(tuple(map(int, point))).quality
            bar.update(task, completed=place + 1)
        np.save(path, qualities, allow_pickle=False)
        return qualities


def main() -> None:
    cache = Path("/tmp/strat_cache")
    torch.set_num_threads(1)
    import sys
    with Bar(console=Console(stderr=True)) as bar:
        for case in CASES:
            if sys.argv[1:] and case.model not in sys.argv[1:]: continue
            t=time.time()
            b = Bench(case, cache, bar)
            print(case.model, time.time()-t, b.space.size, b.fits.mean(), b.costs.min(), b.costs.max(), b.qualities.min(), b.qualities.max(), np.quantile(b.qualities,[.1,.5,.9]))
            np.savez(cache/f"{case.model}.npz", q=b.qualities,c=b.costs,f=b.fits)


if __name__ == "__main__":
    main()
