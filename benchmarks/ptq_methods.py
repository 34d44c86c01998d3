"""Post-training quantisation: accuracy by method and format, three seeds.

python benchmarks/ptq_methods.py [--network NAME]... [--seeds 3] [--folder qhw-build/ptq-methods] [--report]

A network is trained in float once per seed, and kept in the folder; so is each figure, and a run that was
interrupted goes on. A fifth of the training split is held out of training and calibration: recipes are ranked
by it, and the test split is only reported.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qhw.data import Dataset, load_dataset
from qhw.data.base import holdout
from qhw.models import build_model, model_entry
from qhw.ptq.calibrated import Calibrated, sqnr
from qhw.ptq.run import chosen_samples
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.train import TrainConfig, evaluate, train_float

RESULT = Path(__file__).parent / "results" / "ptq_methods.md"

SAMPLES = 512


@dataclass(frozen=True)
class Formats:
    """Formats of weights and activations, and what else the configuration says."""

    title: str
    weights: str
    activations: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def config(self) -> QuantConfig:
        return QuantConfig(weights=self.weights, activations=self.activations, **self.settings)


def same(text: str) -> Formats:
    return Formats(text, text, text)


FORMATS = (
    *(same(f"fixed<{bits}>") for bits in (3, 4, 6, 8)),
    Formats("fixed<4>, free scales", "fixed<4>", "fixed<4>", {"scaling": "free"}),
    *(same(text) for text in ("e2m1", "e3m2", "e4m3")),
    Formats("e2m1, bias per channel", "e2m1", "e2m1", {"scaling": "exponent_bias", "per_channel": True}),
    Formats("khot<4,2>, fixed<4>", "khot<4,2>", "fixed<4>"),
    Formats("khot<8,2>, fixed<8>", "khot<8,2>", "fixed<8>"),
)

RECIPES = (
    "none",
    *("bn-fold", "equalize", "smoothquant", "preshift", "bias-correction", "bn-reestimate"),
    *("gptq", "gpfq", "adaround", "flexround"),
    *("bn-fold,equalize,bias-correction", "gptq,bn-reestimate", "gpfq,bn-reestimate"),
    *("gpfq,bias-correction", "equalize,gpfq,bias-correction"),
)

CALIBRATIONS = ("max", "percentile", "entropy")
"""Beside mse, with no method."""


@dataclass(frozen=True)
class Network:
    """A built-in model, and how much of its data is used."""

    name: str
    training: TrainConfig
    formats: tuple[Formats, ...] = FORMATS
    recipes: tuple[str, ...] = RECIPES
    judged: int | None = None
    train_seeds: bool = True

    def data(self) -> tuple[Dataset, Dataset]:
        """The data without the held-out fifth; and with that fifth in place of the test split."""
        data = load_dataset(model_entry(self.name).dataset)
        assert data.train_y is not None
        rest, out = holdout(data.train_y)
        test = slice(self.judged)
        kept = dataclasses.replace(
            data,
            train_x=data.train_x[rest],
            train_y=data.train_y[rest],
            test_x=data.test_x[test],
            test_y=data.test_targets[test],
        )
        held_out = dataclasses.replace(kept, test_x=data.train_x[out][test], test_y=data.train_y[out][test])
        return kept, held_out


NETWORKS = {
    network.name: network
    for network in (
        Network("digits-cnn", TrainConfig(15, 0, batch_size=64, learning_rate=4e-3, threads=1)),
        Network(
            "resnet8",
            TrainConfig(3, 0, batch_size=128, learning_rate=4e-3),
            tuple(
                formats for formats in FORMATS if formats.title in ("fixed<4>", "e2m1", "khot<4,2>, fixed<4>")
            ),
            ("none", "equalize", "bias-correction", "bn-reestimate", "gptq", "gpfq", "gpfq,bn-reestimate"),
            judged=1000,
            train_seeds=False,
        ),
    )
}


def float_network(network: Network, seed: int, data: Dataset, folder: Path) -> nn.Module:
    """The trained float network, from the folder where it is there."""
    seed = seed if network.train_seeds else 0
    model = build_model(network.name, data, seed=seed)
    path = folder / f"{network.name}-{seed}.pt"
    if not path.exists():
        recipe = dataclasses.replace(network.training, seed=seed)
        trained, _ = train_float(model, data, recipe, QuantConfig())
        torch.save(trained.state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def cases(network: Network) -> Iterator[tuple[str, str, Formats]]:
    """Recipe, calibration, formats."""
    for recipe in network.recipes:
        for formats in network.formats:
            yield recipe, "mse", formats
    for calibration in CALIBRATIONS:
        for formats in network.formats:
            yield "none", calibration, formats


def measure(network: Network, seed: int, folder: Path, note: Callable[[dict[str, Any]], None]) -> None:
    """Every figure of one seed that is not there yet."""
    kept, held_out = network.data()
    done = {key_of(row) for row in rows_in(folder, network)}
    wanted = [case for case in cases(network) if (seed, case[0], case[1], case[2].title) not in done]
    if not wanted:
        return
    model = float_network(network, seed, kept, folder)
    shared = {"network": network.name, "seed": seed}
    if (seed, "float", "", "") not in done:
        figures = {"held_out": evaluate(model, held_out), "test": evaluate(model, kept)}
        note(shared | {"recipe": "float", "calibration": "", "formats": "", **figures})
    others = torch.from_numpy(held_out.test_x).float()
    with torch.no_grad():
        answers = model(others)
    calibrated: dict[tuple[str, str], Calibrated] = {}
    for recipe, calibration, formats in wanted:
        settings = PtqSettings(recipe, calibration, SAMPLES, seed)
        if (recipe, calibration) not in calibrated:
            samples, _ = chosen_samples(kept, settings)
            calibrated = {(recipe, calibration): Calibrated(model, samples, settings, pixels=True)}
        start = time.perf_counter()
        quantised = calibrated[recipe, calibration].quantised(formats.config)
        seconds = time.perf_counter() - start
        with torch.no_grad():
            noise = sqnr(answers, quantised(others))
        figures = {"held_out": evaluate(quantised, held_out), "test": evaluate(quantised, kept)}
        row = {"recipe": recipe, "calibration": calibration, "formats": formats.title}
        note(shared | row | figures | {"sqnr": noise, "seconds": seconds})


def key_of(row: dict[str, Any]) -> tuple[int, str, str, str]:
    return row["seed"], row["recipe"], row["calibration"], row["formats"]


def rows_in(folder: Path, network: Network) -> list[dict[str, Any]]:
    path = folder / f"{network.name}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def mean_of(rows: list[dict[str, Any]], name: str, **wanted: str) -> float:
    return statistics.fmean(
        row[name] for row in rows if all(row[key] == value for key, value in wanted.items())
    )


def report(network: Network, rows: list[dict[str, Any]]) -> list[str]:
    """The tables of one network."""
    in_float = [row for row in rows if row["recipe"] == "float"]
    rows = [row for row in rows if row["recipe"] != "float"]
    seeds = sorted({row["seed"] for row in rows})
    kept, held_out = network.data()
    titles = [formats.title for formats in network.formats]
    runs = list(dict.fromkeys((recipe, calibration) for recipe, calibration, _ in cases(network)))
    names = {run: run[0] if run[1] == "mse" else f"none, {run[1]}" for run in runs}
    ranked = sorted(runs, key=lambda run: -mean_of(rows, "sqnr", recipe=run[0], calibration=run[1]))
    lines = [
        f"## {network.name}",
        "",
        f"{len(seeds)} seeds of {'training and ' if network.train_seeds else ''}calibration.",
        f"Float: {mean_of(in_float, 'test'):.1%} on {len(kept.test_x):,} test samples, "
        f"{mean_of(in_float, 'held_out'):.1%} on {len(held_out.test_x):,} held-out ones.",
        "",
    ]
    for title, name, style in (
        ("Accuracy on the test split, mean of the seeds, in percent", "test", "{:.1f}"),
        ("SQNR of the network's result on held-out samples, mean of the seeds, in dB", "sqnr", "{:.1f}"),
    ):
        lines += [f"{title}:", "", f"| methods | {' | '.join(f'`{t}`' for t in titles)} | mean |"]
        lines.append("|---" * (len(titles) + 2) + "|")
        scale = 100 if name == "test" else 1
        for recipe, calibration in ranked:
            wanted = {"recipe": recipe, "calibration": calibration}
            cells = [scale * mean_of(rows, name, formats=title, **wanted) for title in titles]
            written = [style.format(cell) for cell in (*cells, statistics.fmean(cells))]
            lines.append(f"| {names[recipe, calibration]} | {' | '.join(written)} |")
        lines.append("")
    lines += ["| methods | held-out accuracy | SQNR, dB | seconds per design point |", "|---|---|---|---|"]
    for recipe, calibration in ranked:
        wanted = {"recipe": recipe, "calibration": calibration}
        median = statistics.median(
            row["seconds"] for row in rows if key_of(row)[1:3] == (recipe, calibration)
        )
        lines.append(
            f"| {names[recipe, calibration]} | {mean_of(rows, 'held_out', **wanted):.2%} "
            f"| {mean_of(rows, 'sqnr', **wanted):.1f} | {median:.2f} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", action="append", choices=NETWORKS, default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("qhw-build") / "ptq-methods")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for network in [] if options.report else [NETWORKS[name] for name in options.network or ["digits-cnn"]]:
        with (options.folder / f"{network.name}.jsonl").open("a", encoding="utf-8") as file:

            def note(row: dict[str, Any]) -> None:
                file.write(json.dumps(row) + "\n")
                file.flush()
                sys.stderr.write(f"{row}\n")

            for seed in range(options.seeds):
                measure(network, seed, options.folder, note)
    lines = [
        "Trained float networks that were quantised without training, by `benchmarks/ptq_methods.py`:",
        f"{SAMPLES} calibration samples, MSE calibration unless another is named. A column is the format of",
        "weights and activations (k-hot: weights, then activations); all else has the usual formats. Methods",
        "are ordered by the SQNR on held-out samples of the training split over all formats, by which the",
        "default was chosen. Seconds were taken on a busy machine: they tell the order of magnitude.",
        "",
    ]
    for network in NETWORKS.values():
        if rows := rows_in(options.folder, network):
            lines += report(network, rows)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines), encoding="utf-8")
    sys.stdout.write("\n".join(lines))


if __name__ == "__main__":
    main()
