"""The time of a build, of the same build again, and of a simulation of its folder; against another version's.

A model is trained for an epoch, and its QONNX file built: lowering, cost, project, compilation and
verification in a process of its own, then the same command again, with every stage unchanged. Two checkouts
take turns; medians of wall-clock and of processor time (compilers included) are reported.

    python benchmarks/build_time.py [--base CHECKOUT] [--rounds 5] [--model digits-cnn]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qhw.data import load_dataset
from qhw.export import export_qonnx
from qhw.models import build_model
from qhw.quant_config import QuantConfig
from qhw.train import TrainConfig, train

RESULT = Path(__file__).parent / "results" / "build_time.md"
HERE = Path(__file__).resolve().parents[1]
STEPS = ("build", "the same build again", "simulate the folder")
Times = dict[str, list[tuple[float, float]]]


def model_file(folder: Path, name: str) -> Path:
    """A quantised built-in model as a QONNX file."""
    data = load_dataset("digits")
    config = TrainConfig(float_epochs=1, quantised_epochs=1)
    model = train(build_model(name, data), data, config, QuantConfig()).quantised_model
    return export_qonnx(model, folder / "model.onnx")


def timed(checkout: Path, *arguments: object) -> tuple[float, float]:
    """Seconds by the clock, and of the processor, of one command of a checkout."""
    command = [sys.executable, "-m", "qhw", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, cwd=checkout, check=True, capture_output=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_round(checkout: Path, model: Path, out: Path, times: Times) -> None:
    """Measure every step once, from an empty folder on."""
    shutil.rmtree(out, ignore_errors=True)
    build = ("build", model, "--board", "ultra96", "--data", "digits", "--out", out, "--json")
    for step, command in zip(STEPS, (build, build, ("simulate", out, "--json")), strict=True):
        times.setdefault(step, []).append(timed(checkout, *command))


def medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Of the clock's, and of the processor's."""
    wall, processor = zip(*times, strict=True)
    return statistics.median(wall), statistics.median(processor)


def table(ours: Times, theirs: Times) -> list[str]:
    """A row per step; ratios to the other checkout, where there is one."""
    lines = ["| step | seconds | processor seconds | of the base's | processor |", "|---|---|---|---|---|"]
    for step in STEPS:
        wall, processor = medians(ours[step])
        ratios = ("", "")
        if theirs:
            base = medians(theirs[step])
            ratios = (f"{wall / base[0]:.2f}x", f"{processor / base[1]:.2f}x")
        lines.append(f"| {step} | {wall:.2f} | {processor:.2f} | {ratios[0]} | {ratios[1]} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, help="a folder with another version of qhw")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="digits-cnn", help="a built-in model for digits")
    options = parser.parse_args()
    ours: Times = {}
    theirs: Times = {}
    with tempfile.TemporaryDirectory() as scratch:
        model = model_file(Path(scratch), options.model)
        for _ in range(options.rounds):
            one_round(HERE, model, Path(scratch, "ours"), ours)
            if options.base:
                one_round(options.base.resolve(), model, Path(scratch, "theirs"), theirs)
    against = ", in turns with the base" if options.base else ""
    lines = [
        "# Time of a build",
        "",
        f"{options.model} from its QONNX file, on 364 samples; medians of {options.rounds} rounds{against}.",
        "",
        *table(ours, theirs),
    ]
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
