"""Accuracy and time of every built-in model, trained by its default recipe, in float and at 8 bits.

The test splits are never trained on, nor used to choose anything. The row of a model that is not trained in
this run is kept.

    python benchmarks/training_accuracy.py [MODEL ...] [--seeds 1]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from qhw.convert import QuantConfig
from qhw.data import load_dataset
from qhw.models import build_model, model_entry, model_names
from qhw.train import Progress, TrainResult, train

RESULT = Path(__file__).parent / "results" / "training_accuracy.md"
HEADER = (
    "| model | data | test images | seeds | float | quantised | seconds, all epochs |",
    "|---|---|---|---|---|---|---|",
)


def run(name: str, seed: int) -> TrainResult:
    """One training from scratch, with its progress shown."""
    entry = model_entry(name)
    data = load_dataset(entry.dataset)
    recipe = dataclasses.replace(entry.recipe(), seed=seed)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=recipe.float_epochs + recipe.quantised_epochs)

        def show(at: Progress) -> None:
            before = at.epoch - 1 + (recipe.float_epochs if at.phase == "quantised" else 0)
            bar.update(
                task, completed=before + at.step / at.steps, description=f"{name}, seed {seed}, {at.phase}"
            )

        return train(build_model(name, data, seed=seed), data, recipe, QuantConfig(), progress=show)


def row(name: str, results: list[TrainResult]) -> str:
    """A line of the table: medians over the seeds."""
    float_accuracy = statistics.median(result.float_accuracy for result in results)
    quantised = statistics.median(result.quantised_accuracy for result in results)
    seconds = statistics.median(result.seconds for result in results)
    return (
        f"| {name} | {model_entry(name).dataset} | {results[0].samples} | {len(results)} "
        f"| {float_accuracy:.2%} | {quantised:.2%} | {seconds:.0f} |"
    )


def main() -> None:
    """Train, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(model_names()), metavar="MODEL")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    lines = RESULT.read_text().splitlines() if RESULT.is_file() else []
    rows = {
        line.split("|")[1].strip(): line for line in lines if line.startswith("| ") and line not in HEADER
    }
    for name in given.models:
        rows[name] = row(name, [run(name, seed) for seed in range(given.seeds)])
        RESULT.parent.mkdir(exist_ok=True)
        kept = [rows[model] for model in model_names() if model in rows]
        title = (
            "Default recipes, formats of 8 bits; medians over the seeds. Rows are of different runs, and "
            "what else the machine did is not known: the accuracies are comparable, the seconds are not."
        )
        RESULT.write_text("\n".join((title, "", *HEADER, *kept, "")))


if __name__ == "__main__":
    main()
