"""How well cheap evaluators rank points: each against full quantised training, on points drawn evenly.

Points of the default space (integers, minifloats, k-hot, ternary and binary numbers, layer by layer) are
judged by every evaluator. The network is trained in float on a part of its training split; the samples that
judge are held out of the same split, and the test split is not looked at. Judgements are kept as they come,
so a run that was stopped goes on.

    python benchmarks/search_evaluators.py [--cache build/search_evaluators] [--points 60] [--seeds 2]
        [--networks mlp-digits ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from scipy.stats import kendalltau, spearmanr
from torch import nn

from qhw import checkpoints
from qhw.data import load_dataset
from qhw.data.base import Dataset, holdout
from qhw.models import build_model, model_entry
from qhw.quant_config import QuantConfig
from qhw.search.evaluators import make_evaluator
from qhw.search.evaluators.base import Evaluator, Held
from qhw.search.network import CALIBRATION, Variants, sites_of
from qhw.search.space import Point, SpaceSettings
from qhw.tasks.base import Judge
from qhw.train import Phase

RESULT = Path(__file__).parent / "results" / "search_evaluators.md"
CACHE = Path(__file__).parents[1] / "build" / "search_evaluators"

NETWORKS = ("mlp-digits", "digits-cnn-digits")

EVALUATORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "second-order": ("second-order", ()),
    "output-error": ("output-error", ()),
    "calibrated, no method": ("calibrated", ()),
    "calibrated, gpfq": ("calibrated", ("gpfq",)),
    "short-qat": ("short-qat", ()),
    "full-qat": ("full-qat", ()),
}
"""What judges, cheapest first, and its methods; the last one is what others are compared with."""

EVERY = 3
"""Every third sample of a class of the training split judges."""


@dataclass(frozen=True)
class Judged:
    """A network's points and what each evaluator says of them: (figures, seconds) per point."""

    name: str
    points: list[Point]
    figures: dict[str, list[float]]
    seconds: dict[str, float]
    held: int


def network_of(name: str) -> tuple[nn.Module, Dataset, Held, Variants]:
    """A network trained by its own recipe, in all formats of the default space."""
    model_name, data_name = name.rsplit("-", 1)
    whole = load_dataset(data_name)
    kept, out = holdout(whole.train_targets, EVERY)
    data = dataclasses.replace(whole, train_x=whole.train_x[kept], train_y=whole.train_targets[kept])
    held = Held(whole.train_x[out], Judge(whole.kind, whole.figure, whole.train_targets[out]))
    recipe = dataclasses.replace(model_entry(model_name).recipe(), seed=0)
    model = build_model(model_name, data, seed=0)
    Phase("float", recipe.float_epochs, recipe.learning_rate, recipe, None, "").run(model, data, None)
    samples = torch.from_numpy(data.train_x[:CALIBRATION]).float()
    space = SpaceSettings().space(sites_of(model.eval(), QuantConfig(), samples[:2]), QuantConfig())
    return model, data, held, Variants(model, space, samples)


def judged(name: str, points: int, seeds: int, cache: Path) -> Judged:
    """Every point by every evaluator, from the cache where it is there."""
    model, data, held, variants = network_of(name)
    drawn = variants.space.sample(np.random.default_rng(1), points)
    path = cache / f"{name}-{checkpoints.weights_hash(model)[:12]}.json"
    known: dict[str, list[float]] = json.loads(path.read_text()) if path.is_file() else {}
    figures: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    recipe = dataclasses.replace(model_entry(name.rsplit("-", 1)[0]).recipe(), threads=1)
    for title, (kind, methods) in EVALUATORS.items():
        for seed in range(seeds if title == list(EVALUATORS)[-1] else 1):
            shown = title if seed == 0 else f"{title}, seed {seed}"
            training = (data, dataclasses.replace(recipe, seed=seed))
            evaluator: Evaluator | None = None
            rows = []
            for point in track(drawn, description=f"{name}, {shown}", console=Console(stderr=True)):
                key = f"{shown} {point}"
                if key not in known:
                    evaluator = evaluator or make_evaluator(kind, variants, held, training, methods)
                    found = evaluator.evaluate(point)
                    known[key] = [found.quality, found.seconds]
                    path.write_text(json.dumps(known, indent=0))
                rows.append(known[key])
            figures[shown] = [row[0] for row in rows]
            seconds[shown] = statistics.median(row[1] for row in rows)
    return Judged(name, drawn, figures, seconds, len(held.samples))


def table(found: Judged) -> list[str]:
    """Rank correlations with full training, of all points and of the better half by it."""
    last = list(EVALUATORS)[-1]
    truth = np.array(found.figures[last])
    better = truth >= np.median(truth)
    lines = [
        f"## {found.name}",
        "",
        f"{len(found.points)} points, {found.held} samples held out; full training gives them "
        f"{truth.min():.1%} to {truth.max():.1%}, half of them {np.median(truth):.1%} or more. A coefficient "
        f"of so many points has a standard error of about {1 / np.sqrt(len(truth) - 1):.2f}.",
        "",
        "| evaluator | Spearman | Kendall | Spearman, better half | seconds a point |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, figures in found.figures.items():
        if name == last:
            continue
        values = np.array(figures)
        ranks = spearmanr(values, truth).statistic, kendalltau(values, truth).statistic
        near = spearmanr(values[better], truth[better]).statistic
        lines.append(f"| {name} | {ranks[0]:.2f} | {ranks[1]:.2f} | {near:.2f} | {found.seconds[name]:.3f} |")
    return [*lines, ""]


INTRODUCTION = """# Evaluators: how well they rank points

Spearman's and Kendall's rank correlation of each evaluator with the last one, full quantised training by
the model's recipe ({epochs}), on points drawn evenly from the default space. *Better half*: of the points
that full training puts into the upper half, which is where fronts lie. Held-out samples of the training
split judge. A row of full training with another seed, where it was run, says how far any evaluator can
agree with it. Seconds are medians on a busy machine; what a proxy is made from once is not in them.
"""


def main() -> None:
    """Judge, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument(
        "--seeds", type=int, default=2, help="of full training: how well it agrees with itself"
    )
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), metavar="N")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    epochs = {model_entry(name.rsplit("-", 1)[0]).recipe().quantised_epochs for name in given.networks}
    lines = [INTRODUCTION.format(epochs=f"{', '.join(map(str, sorted(epochs)))} epochs")]
    for name in given.networks:
        lines += table(judged(name, given.points, given.seeds, given.cache))
    RESULT.write_text("\n".join(lines))
    Console().print(RESULT.read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    main()
