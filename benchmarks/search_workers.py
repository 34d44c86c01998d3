"""Two workers against one: the same points of resnet8 on Fashion-MNIST, evaluated as a search does.

Rounds take turns, so that other work on the machine slows both alike: one process evaluates some points, then
two workers the same ones, none of which was seen before. Every evaluation must be the same. Beside the ratio
stands how busy the workers were: the time inside of evaluations over that of all workers.

    python benchmarks/search_workers.py
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import psutil
import torch
from rich.console import Console
from torch import nn

from qhw.data import load_dataset
from qhw.models import build_model
from qhw.quant_config import QuantConfig
from qhw.search.evaluators.base import Evaluation, Held
from qhw.search.network import sites_of
from qhw.search.space import Point, SpaceSettings
from qhw.search.workers import Pool, Setup, pool
from qhw.tasks import Judge

RESULT = Path(__file__).parent / "results" / "search_workers.md"
TRAINED, HELD, ROUNDS, POINTS, WORKERS = 4096, 1000, 5, 12, 2
SETTINGS = SpaceSettings(
    weights=("ternary", "fixed<4>", "e2m1", "khot<6,2>"), activations=("fixed<4>", "e2m2", "fixed<8>")
)


def setup() -> Setup:
    """resnet8, trained for an epoch on a part of the images, and others to judge points by."""
    data = load_dataset("fashion-mnist")
    torch.manual_seed(0)
    model = build_model("resnet8", data, seed=0)
    x = torch.from_numpy(data.train_x[: TRAINED + HELD]).float()
    y = torch.from_numpy(data.train_y[: TRAINED + HELD]).long()
    optimiser = torch.optim.AdamW(model.parameters(), 0.003)
    for rows in torch.randperm(TRAINED).split(64):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimiser.step()
    model.eval()
    samples = x[:64]
    space = SETTINGS.space(sites_of(model, QuantConfig(), samples[:2]), QuantConfig())
    judge = Judge(data.judge.task, data.judge.metric, y[TRAINED:].numpy())
    return Setup(model, space, samples, Held(x[TRAINED:].numpy(), judge), "calibrated", methods=("gpfq",))


def evaluated(workers: Pool, points: list[Point]) -> tuple[float, dict[Point, Evaluation]]:
    """Seconds for some points, kept in flight as a search keeps them; and their evaluations."""
    start = time.perf_counter()
    waiting, flying, found = list(points), 0, {}
    results = workers.results()
    while waiting or flying:
        while waiting and flying < workers.size:
            workers.submit(waiting.pop())
            flying += 1
        point, result = next(results)
        flying -= 1
        if isinstance(result, Exception):
            raise result
        found[point] = result
    return time.perf_counter() - start, found


def warmed(workers: Pool, points: list[Point]) -> float:
    """Seconds until every worker has made its evaluator."""
    start = time.perf_counter()
    evaluated(workers, points)
    return time.perf_counter() - start


def busy(seconds: float, found: dict[Point, Evaluation], workers: int) -> float:
    """The part of all workers' time that evaluations took."""
    return sum(evaluation.seconds for evaluation in found.values()) / (seconds * workers)


def processor() -> float:
    """Processor seconds of the processes below this one, so far."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(1)
    given = setup()
    space = given.space
    points = list(dict.fromkeys(space.sample(np.random.default_rng(0), 2 * (ROUNDS + 1) * POINTS)))
    rounds = [points[start : start + POINTS] for start in range(0, (ROUNDS + 1) * POINTS, POINTS)]
    ratios, free, dearer, lines = [], [], [], []
    start = time.perf_counter()
    with pool(given) as one, pool(given, WORKERS) as several:
        starting = time.perf_counter() - start
        making = warmed(several, rounds[0])
        evaluated(one, rounds[0])
        for index, chosen in enumerate(rounds[1:], 1):
            own = time.process_time()
            alone, expected = evaluated(one, chosen)
            own, theirs = time.process_time() - own, processor()
            together, found = evaluated(several, chosen)
            theirs = processor() - theirs
            assert {p: e.figure for p, e in found.items()} == {p: e.figure for p, e in expected.items()}
            ratios.append(alone / together)
            share = busy(together, found, WORKERS)
            free.append(WORKERS * share * own / theirs)
            dearer.append(theirs / own)
            row = (f"{index}", f"{alone:.1f}", f"{together:.1f}", f"{ratios[-1]:.2f}", f"{share:.0%}")
            lines.append(f"| {' | '.join(row)} | {own:.1f} | {theirs:.1f} | {free[-1]:.2f} |")
    text = [
        "# Two workers against one",
        "",
        f"resnet8 on Fashion-MNIST, `calibrated` by GPFQ on {HELD:,} images, "
        f"{len(space.variables)} variables; {POINTS} new points a round, the same for both, "
        "one thread each; every evaluation was the same. "
        f"Starting took {starting:.0f} s (with this process's own evaluator), the first {POINTS} points with "
        f"the making of two evaluators {making:.0f} s.",
        "",
        f"Measured: median ratio **{statistics.median(ratios):.2f}**, on {os.cpu_count()} processors whose "
        f"mean load over the last 15 minutes was {os.getloadavg()[2]:.0f}. Two workers "
        f"took {statistics.median(dearer):.2f} times that of one for the same points. "
        f"Modelled for processors that are free: median "
        f"{statistics.median(free):.2f}, which is {WORKERS} workers, times how busy they were, times the "
        "processor time that one process takes over that of all workers.",
        "",
        "| round | one, s | two, s | ratio | busy, two | processor s, one | two | modelled |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *lines,
        "",
    ]
    RESULT.write_text("\n".join(text))
    Console().print(RESULT.read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    main()
