"""Hypervolume against evaluations: every search strategy on spaces that are small enough to try out.

Each network is trained in float on a part of its training split; the rest of that split is held out, and
every point of the space is evaluated on it once (evaluator `calibrated`: no training). A strategy then asks
for points and is told what is known of them. Test splits are not looked at. What was trained, evaluated or
run lies in the cache, by its settings, and is not done again: delete the cache after a change of a strategy.

    python benchmarks/search_strategies.py [--cache build/search_strategies] [--seeds 0 1 2] [--most 0.02]
        [--jobs 2] [--methods gpfq] [--trained 0] [--strategies S ...] [--networks digits-cnn-digits ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from scipy.stats import spearmanr
from torch import nn

from qhw import checkpoints
from qhw.boards import load_board
from qhw.data import load_dataset
from qhw.data.base import Dataset
from qhw.export import to_onnx
from qhw.flows.base import load_flow
from qhw.formats.modes import IntArray
from qhw.graph.lower import lower
from qhw.models import build_model, model_entry
from qhw.pipeline.designs import Wanted
from qhw.quant_config import QuantConfig
from qhw.search.evaluators import evaluator_class, list_evaluators, make_evaluator
from qhw.search.evaluators.base import Held
from qhw.search.evaluators.output_error import OutputError
from qhw.search.evaluators.second_order import SecondOrder
from qhw.search.network import CALIBRATION, Variants, sites_of
from qhw.search.pareto import front, hypervolume
from qhw.search.pricing import CircuitPricer
from qhw.search.space import Point, SpaceSettings
from qhw.search.strategies import DEFAULT, Problem, Trial, strategy_class
from qhw.search.strategies._improving import reference_of
from qhw.tasks.base import Judge
from qhw.train import Phase

RESULT = Path(__file__).parent / "results" / "search_strategies.md"
CACHE = Path(__file__).parents[1] / "build" / "search_strategies"
BOARD, FLOW, OBJECTIVE = "ultra96", "hls4ml", "lut"
SHARES = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Shares of a space's points at which strategies are compared."""

LIMIT, PROMISE = 0.02, 0.99
"""The default is to reach such a part of the hypervolume with such a share of the evaluations."""

STRATEGIES = ("surrogate", "boosted", "tpe", "nsga2", "ilp", "greedy", "hessian", "uniform", "random")

Results = dict[tuple[int, str, int], dict[str, Any]]
"""Searches by the network's place, the strategy and the seed."""


@dataclass(frozen=True)
class Case:
    """A network with a space of formats small enough to exhaust.

    Args:
        model: a built-in model, trained by its own recipe.
        data: what it is trained on.
        weights, activations: the formats to choose from.
        fps: images per second that every point must reach.
        held: samples of the training split that are held out.
    """

    model: str
    data: str
    weights: tuple[str, ...]
    activations: tuple[str, ...]
    fps: float
    held: int

    @property
    def name(self) -> str:
        """The model and its data."""
        return f"{self.model}-{self.data}"


SEVEN = (
    ("ternary", "fixed<3>", "e2m1", "fixed<4>", "khot<6,2>", "fixed<6>", "fixed<8>"),
    ("fixed<2>", "fixed<3>", "e2m1", "fixed<4>", "e3m2", "fixed<6>", "fixed<8>"),
)
FIVE = (
    ("ternary", "e2m1", "fixed<4>", "khot<6,2>", "fixed<8>"),
    ("fixed<2>", "e2m1", "fixed<4>", "e3m2", "fixed<8>"),
)
CASES = (
    Case("digits-cnn", "digits", *FIVE, fps=500_000, held=400),
    Case("mlp", "mnist", *SEVEN, fps=500_000, held=1000),
    Case("mlp", "digits", *SEVEN, fps=500_000, held=400),
)


def split(data: Dataset, held: int) -> tuple[Dataset, NDArray[Any], NDArray[Any]]:
    """The data without some training samples, drawn evenly; and those."""
    order = np.random.default_rng(0).permutation(len(data.train_x))
    out, kept = np.sort(order[:held]), np.sort(order[held:])
    rest = dataclasses.replace(data, train_x=data.train_x[kept], train_y=data.train_targets[kept])
    return rest, data.train_x[out], data.train_targets[out]


class Bench:
    """A trained network, its prices, and the quality of every point.

    Args:
        methods: what points are quantised by.
        seed: of the network's training.
    """

    def __init__(self, case: Case, cache: Path, bar: Bar, methods: Sequence[str] = (), seed: int = 0) -> None:
        self.case, self.methods, self.seed = case, tuple(methods), seed
        rest, held_x, held_y = split(load_dataset(case.data), case.held)
        self.data, self.cache = rest, cache / (f"{case.name}-{seed}" if seed else case.name)
        checkpoints.prepare_folder(self.cache)
        self.model, self.held = self._trained(), Held(held_x, Judge(rest.kind, rest.figure, held_y))
        samples = torch.from_numpy(rest.train_x[:CALIBRATION]).float()
        settings = SpaceSettings(weights=case.weights, activations=case.activations)
        self.space = settings.space(sites_of(self.model, QuantConfig(), samples[:2]), QuantConfig())
        self.variants = Variants(self.model, self.space, samples)
        self.points = self.space.every()
        weights = checkpoints.weights_hash(self.model)
        self.identity = checkpoints.fingerprint(case, *self.methods, weights, rest.sha256)[:12]
        self.costs, self.fits = self._priced()
        self.qualities = self._exhausted(bar)

    def _trained(self) -> nn.Module:
        recipe = dataclasses.replace(model_entry(self.case.model).recipe(), seed=self.seed)
        model = build_model(self.case.model, self.data, seed=self.seed)
        start = checkpoints.fingerprint(checkpoints.weights_hash(model), self.data.sha256, torch.__version__)
        phase = Phase("float", recipe.float_epochs, recipe.learning_rate, recipe, self.cache, start)
        phase.run(model, self.data, None)
        return model.eval()

    def _priced(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        choices = self.variants.sources()
        graphs = [lower(to_onnx(module)) for module in self.variants.modules]
        wanted = Wanted(fps=self.case.fps)
        board = load_board(BOARD)
        pricer = CircuitPricer(graphs, choices, self.space.counts, load_flow(FLOW), board, wanted)
        found = pricer.price(self.points)
        return found.objective(OBJECTIVE), found.fits

    def _exhausted(self, bar: Bar) -> NDArray[np.float64]:
        """The quality of every point, from the cache if it is there."""
        path = self.cache / f"exhaustive-{self.identity}.npy"
        if path.is_file():
            return np.load(path, allow_pickle=False)
        evaluator = make_evaluator("calibrated", self.variants, self.held, methods=self.methods)
        task = bar.add_task(f"{self.case.name}, every point", total=len(self.points))
        qualities = np.empty(len(self.points))
        for place, point in enumerate(self.points):
            qualities[place] = evaluator.evaluate(tuple(map(int, point))).quality
            bar.update(task, completed=place + 1)
        np.save(path, qualities, allow_pickle=False)
        return qualities

    @cached_property
    def best(self) -> list[int]:
        """The places of the front of all points, cheapest first."""
        usable = np.flatnonzero(self.fits & np.isfinite(self.costs))
        return [int(usable[i]) for i in front(self.costs[usable], self.qualities[usable])]

    @cached_property
    def references(self) -> dict[str, tuple[float, float]]:
        """What hypervolume is measured up to: the front's nadir, moved out by a tenth; the corner of the
        space.
        """
        known = [(float(self.costs[i]), float(self.qualities[i])) for i in self.best]
        usable = self.fits & np.isfinite(self.costs)
        corner = float(self.costs[usable].max()), float(self.qualities[usable].min())
        return {"front": reference_of(known), "space": corner}

    def shares(self, trials: Sequence[Trial]) -> dict[str, float]:
        """The part of the hypervolume of all points that some have, by the reference."""
        good = [trial for trial in trials if trial.fits]
        found = [t.cost for t in good], [t.quality for t in good]
        whole = self.costs[self.best], self.qualities[self.best]
        return {
            name: hypervolume(*found, at) / hypervolume(*whole, at) for name, at in self.references.items()
        }

    def places(self, points: IntArray | Sequence[Point]) -> IntArray:
        """Where points stand among all."""
        rows = np.asarray(points, dtype=np.int64).reshape(-1, len(self.space.counts))
        return np.ravel_multi_index(tuple(rows.T), tuple(self.space.counts))

    def price(self, points: IntArray | Sequence[Point]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Costs, and which points fit."""
        places = self.places(points)
        return self.costs[places], self.fits[places]

    @cached_property
    def second_order(self) -> SecondOrder:
        """The second-order model."""
        return SecondOrder(self.variants, self.held)

    @cached_property
    def output_error(self) -> OutputError:
        """The cheap proxy."""
        return OutputError(self.variants, self.held)

    def prepare(self) -> None:
        """Make both cheap models."""
        assert self.second_order is not None
        assert self.output_error is not None

    def run(self, name: str, seed: int, most: float) -> dict[str, Any]:
        """One search: the shares of the hypervolume after so many evaluations, and what it took."""
        proxies: dict[Point, float] = {}

        def proxy(point: Point) -> float:
            if point not in proxies:
                proxies[point] = self.output_error.evaluate(point).quality
            return proxies[point]

        start, budget = time.perf_counter(), math.ceil(most * self.space.size)
        increase = self.second_order.increase
        strategy = strategy_class(name)(Problem(self.space, self.price, proxy, increase, budget, seed))
        trials: list[Trial] = []
        while points := strategy.ask():
            places = self.places(points)
            told = zip(points, self.costs[places], self.qualities[places], self.fits[places], strict=True)
            trials += [Trial(p, float(c), float(q), bool(f)) for p, c, q, f in told]
            strategy.tell(trials[-len(points) :])
        counts = sorted({*(math.floor(share * self.space.size) for share in SHARES), *curve(budget)})
        return {
            "evaluations": len(trials),
            "curve": {count: self.shares(trials[:count]) for count in counts if count <= budget},
            "proxies": len(proxies),
            "seconds": round(time.perf_counter() - start, 1),
        }

    def correlations(self, points: int = 500) -> dict[str, tuple[float, float]]:
        """Spearman's rank correlation of cheap evaluators with `calibrated`, and seconds per point; on drawn
        points.
        """
        drawn = np.random.default_rng(1).choice(len(self.points), points, replace=False)
        found = {}
        for name in list_evaluators():
            kind = evaluator_class(name)
            if kind.rank >= evaluator_class("calibrated").rank:
                continue
            start = time.perf_counter()
            evaluator = kind(self.variants, self.held)
            cheap = [evaluator.evaluate(tuple(map(int, self.points[i]))).quality for i in drawn]
            seconds = (time.perf_counter() - start) / points
            found[name] = float(spearmanr(cheap, self.qualities[drawn]).statistic), seconds
        return found


def curve(budget: int) -> list[int]:
    """The counts of evaluations at which a curve is drawn."""
    return sorted({int(count) for count in np.geomspace(4, budget, 40)})


BENCHES: list[Bench] = []
"""What the processes that run strategies inherit."""


def job(case: int, name: str, seed: int, most: float) -> dict[str, Any]:
    """One search, in a process of its own."""
    torch.set_num_threads(1)
    return BENCHES[case].run(name, seed, most)


class Store:
    """Searches by their settings, in a JSON file that is written after every one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def put(self, key: str, record: Any) -> None:
        """Keep a record."""
        self.records[key] = json.loads(json.dumps(record))  # as a later run reads it: keys are text
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(self.records, indent=1, sort_keys=True) + "\n")
        beside.replace(self.path)


def searched(
    names: Sequence[str], seeds: Sequence[int], most: float, jobs: int, store: Store, bar: Bar
) -> Results:
    """Every strategy on every network, each seed."""
    wanted = [(c, name, seed) for seed in seeds for c in range(len(BENCHES)) for name in names]
    keys = {item: f"{BENCHES[item[0]].identity} {item[1]} {item[2]} {most:g}" for item in wanted}
    task = bar.add_task("searches", total=len(wanted))
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        running = {pool.submit(job, *item, most): item for item in wanted if keys[item] not in store.records}
        bar.update(task, completed=len(wanted) - len(running))
        for done in as_completed(running):
            store.put(keys[running[done]], done.result())
            bar.advance(task)
    return {item: store.records[keys[item]] for item in wanted}


def medians(results: Results, case: int, name: str, reference: str) -> dict[int, float]:
    """The median over seeds, by the number of evaluations."""
    runs = [record["curve"] for (c, n, _), record in results.items() if (c, n) == (case, name)]
    counts = sorted(map(int, runs[0]))
    return {count: statistics.median(run[str(count)][reference] for run in runs) for count in counts}


def table(results: Results, names: Sequence[str], case: int, most: float) -> list[str]:
    """The medians of one network at the shares of its points, the best first."""
    bench, shares = BENCHES[case], [share for share in SHARES if share <= most]
    counts = [math.floor(share * bench.space.size) for share in shares]
    columns = [f"{share:.1%} ({count})" for share, count in zip(shares, counts, strict=True)]
    columns += [f"whole space at {LIMIT:.0%}", "evaluations", "proxies", "seconds"]
    lines = [f"| strategy | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    limit = math.floor(LIMIT * bench.space.size)
    order = sorted(names, key=lambda name: -medians(results, case, name, "front")[limit])
    for name in order:
        found = medians(results, case, name, "front")
        corner = medians(results, case, name, "space")[limit]
        runs = [record for (c, n, _), record in results.items() if (c, n) == (case, name)]
        spent = [
            statistics.median(run[what] for run in runs) for what in ("evaluations", "proxies", "seconds")
        ]
        shown = [f"{100 * found[count]:.2f}" for count in counts]
        cells = [*shown, f"{100 * corner:.2f}", *(f"{value:.0f}" for value in spent)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    winners = ", ".join(
        f"{share:.1%}: {max(names, key=lambda name: medians(results, case, name, 'front')[count])}"
        for share, count in zip(shares, counts, strict=True)
    )
    return [*lines, "", f"Best at {winners}.", verdict(results, case)]


def verdict(results: Results, case: int) -> str:
    """Whether the default keeps its promise on a network."""
    limit = math.floor(LIMIT * BENCHES[case].space.size)
    runs = [r["curve"] for (c, n, _), r in results.items() if (c, n) == (case, DEFAULT)]
    if not runs:
        return ""
    reached = [run[str(limit)]["front"] for run in runs]
    first = min(
        (k for k, v in medians(results, case, DEFAULT, "front").items() if v >= PROMISE), default=None
    )
    after = f"the median reaches it after {first} evaluations" if first else "the median never reaches it"
    kept = sum(value >= PROMISE for value in reached)
    return (
        f"The default, {DEFAULT}, reaches {PROMISE:.0%} within {LIMIT:.0%} of the evaluations in {kept} of "
        f"{len(reached)} seeds ({min(reached):.2%} to {max(reached):.2%}); {after}."
    )


def described(bench: Bench) -> str:
    """A network's space and its front."""
    case, best = bench.case, bench.best
    low, high = best[0], best[-1]
    figures = (
        f"{bench.costs[low]:,.0f} LUT at {bench.qualities[low]:.2%} to "
        f"{bench.costs[high]:,.0f} LUT at {bench.qualities[high]:.2%}"
    )
    return (
        f"{bench.space.size:,} points ({len(bench.space.counts)} variables; weights "
        f"{', '.join(case.weights)}; results {', '.join(case.activations)}), "
        f"{bench.fits.mean():.1%} of them fit {BOARD} at {case.fps:,.0f} images/s; "
        f"{case.held} samples held out. Front of {len(best)} points: {figures}."
    )


def plot(results: Results, names: Sequence[str], path: Path) -> None:
    """Median hypervolume against evaluations, a panel per network."""
    rows = [
        {"network": bench.case.name, "strategy": name, "evaluations": k, "missing": max(1 - v, 5e-4)}
        for c, bench in enumerate(BENCHES)
        for name in names
        for k, v in medians(results, c, name, "front").items()
    ]
    limits = [
        {
            "network": bench.case.name,
            "evaluations": math.floor(LIMIT * bench.space.size),
            "missing": 1 - PROMISE,
        }
        for bench in BENCHES
    ]
    panels = []
    for bench in BENCHES:
        own = [row for row in rows if row["network"] == bench.case.name]
        goal = alt.Data(values=[row for row in limits if row["network"] == bench.case.name])
        lines = (
            alt.Chart(alt.Data(values=own), title=bench.case.name, width=330, height=280)
            .mark_line()
            .encode(
                alt.X("evaluations:Q", scale=alt.Scale(type="log", nice=False), title="evaluations"),
                alt.Y("missing:Q", scale=alt.Scale(type="log"), title="hypervolume missing").axis(format="%"),
                alt.Color("strategy:N", sort=list(names), scale=alt.Scale(scheme="tableau10")),
            )
        )
        rules = alt.Chart(goal).mark_rule(strokeDash=[4, 4], color="grey")
        panels.append(lines + rules.encode(x="evaluations:Q") + rules.encode(y="missing:Q"))
    drawn = io.BytesIO()
    alt.hconcat(*panels).save(drawn, format="png", scale_factor=2)
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)


INTRODUCTION = """# Search strategies: hypervolume against evaluations

Formats of weights and results, layer by layer; quality is the accuracy on samples held out of the training
split, without any training in the formats (`calibrated`, {methods}); cost is LUT ({flow}, {board}). Every
point was evaluated once, which gives the true front. A figure is the percentage of its hypervolume that a
strategy has after so many evaluations: median of {seeds} seeds of the strategy, on one trained network. The
reference is the front's nadir, moved out by a tenth of its range; *whole space* is up to the dearest and
the worst point instead, where a single lucky sample at the dear end counts most. Strategies price points
freely, and may call the SQNR proxy (*proxies*: how often) and the second-order model (one backward pass per
output, once). Some end by themselves (*evaluations*). Seconds are those of a strategy's own work, on a
shared machine.

Networks were trained with seed {trained}, strategies run with seeds {which}. The default's settings were
chosen by what it reached on digits-cnn-digits and mlp-mnist without methods, with seed 0 of training and
seeds 0 to 2: there its figures flatter it. mlp-digits had no part in that.

![hypervolume missing against evaluations]({plot})

Dashed: {promise:.0%} with {limit:.0%} of the evaluations.
"""


def report(results: Results, names: Sequence[str], seeds: Sequence[int], most: float) -> str:
    """The whole file."""
    text = INTRODUCTION.format(
        methods=" and ".join(BENCHES[0].methods) or "no method",
        trained=BENCHES[0].seed,
        which=", ".join(map(str, seeds)),
        flow=FLOW,
        board=BOARD,
        seeds=len(seeds),
        plot=RESULT.with_suffix(".png").name,
        promise=PROMISE,
        limit=LIMIT,
    )
    parts = [text]
    for case, bench in enumerate(BENCHES):
        parts += [f"## {bench.case.name}", "", described(bench), "", *table(results, names, case, most), ""]
    parts += [
        "## Cheap evaluators",
        "",
        "Spearman's rank correlation with `calibrated`, 500 drawn points.",
        "",
    ]
    found = [bench.correlations() for bench in BENCHES]
    parts += [f"| evaluator | {' | '.join(bench.case.name for bench in BENCHES)} |"]
    parts += ["|---|" + "---:|" * len(BENCHES)]
    parts += [f"| {name} | {' | '.join(f'{each[name][0]:.2f}' for each in found)} |" for name in found[0]]
    return "\n".join([*parts, ""])


def main() -> None:
    """Train and evaluate what is not in the cache, search, write the table and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of the strategies")
    parser.add_argument("--methods", nargs="*", default=[], metavar="M", help="what points are quantised by")
    parser.add_argument("--trained", type=int, default=0, help="seed of the networks' training")
    parser.add_argument("--most", type=float, default=LIMIT, help="share of the points that is evaluated")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES), metavar="S")
    parser.add_argument("--networks", nargs="*", default=[case.name for case in CASES], metavar="N")
    given = parser.parse_args()
    torch.set_num_threads(1)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        chosen = [case for case in CASES if case.name in given.networks]
        BENCHES.extend(Bench(case, given.cache, bar, given.methods, given.trained) for case in chosen)
        for bench in BENCHES:  # made once, before processes are forked
            bench.prepare()
        store = Store(given.cache / "searches.json")
        results = searched(given.strategies, given.seeds, given.most, given.jobs, store, bar)
    plot(results, given.strategies, RESULT.with_suffix(".png"))
    RESULT.write_text(report(results, given.strategies, given.seeds, given.most))
    Console().print(RESULT.read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    main()
