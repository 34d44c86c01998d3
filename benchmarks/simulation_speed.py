"""Images per second of resnet8 on Fashion-MNIST: the exact graph's fast executor against its peers.

One run measures float32 torch with BatchNorm fused (row-major and channels-last), the quantised torch model,
the fast executor (with and without 8-bit dot products, and on NumPy alone), the interpreter, qonnx's
execute_onnx and hls4ml's C-simulation. All executions of the quantised network are first compared code by
code on the same images. The quick ones run in turns on whole batches, the slow ones on few images; medians
are reported.

    python benchmarks/simulation_speed.py [--rounds 15] [--batch 256] [--train-images 6000] [--skip-csim]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.fx.experimental.optimization import fuse

from qhw.boards import load_board
from qhw.data import Dataset, load_dataset
from qhw.export import export_qonnx
from qhw.flows.base import load_project_flow
from qhw.formats.modes import IntArray
from qhw.graph.encode import encode_input
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower
from qhw.models import build_model
from qhw.pipeline.designs import best_design
from qhw.pipeline.verification import execute_qonnx
from qhw.quant_config import QuantConfig
from qhw.sim.backends import TorchBackend
from qhw.sim.compare import compare
from qhw.sim.fast import FastExecutor
from qhw.train import TrainConfig, train

RESULT = Path(__file__).parent / "results" / "simulation_speed.md"
BASELINE = "float32 torch, BatchNorm fused, channels-last"
FAST = "qhw fast executor"
QONNX_IMAGES, INTERPRETER_IMAGES, CSIM_IMAGES = 9, 16, 17

Contestant = Callable[[], object]


def trained(data: Dataset, images: int) -> tuple[nn.Module, nn.Module]:
    """resnet8 in float and quantised, after one short epoch each: real weights, whatever their accuracy."""
    short = dataclasses.replace(data, train_x=data.train_x[:images], train_y=data.train_y[:images])
    settings = TrainConfig(float_epochs=1, quantised_epochs=1, batch_size=64)
    result = train(build_model("resnet8", data), short, settings, QuantConfig())
    return result.float_model.eval(), result.quantised_model.eval()


def float_contestants(model: nn.Module, images: NDArray[np.uint8]) -> dict[str, Contestant]:
    """Float inference with every BatchNorm folded into its convolution."""
    fused = fuse(model)
    rows = torch.from_numpy(images).float()
    last = rows.to(memory_format=torch.channels_last)
    fused_last = fuse(model).to(memory_format=torch.channels_last)
    return {
        "float32 torch, BatchNorm fused": inference(fused, rows),
        BASELINE: inference(fused_last, last),
    }


def inference(model: nn.Module, x: torch.Tensor) -> Contestant:
    def run() -> torch.Tensor:
        with torch.inference_mode():
            return model(x)

    return run


def without_int8(graph: ExactGraph) -> FastExecutor:
    """The executor of a processor without 8-bit dot products."""
    executor = FastExecutor(graph, "torch")
    executor._backend = TorchBackend(use_int8=False)
    return executor


def measure(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, float]:
    """Median seconds of each, measured in turns after two warm-ups."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if turn > 1:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def seconds_per_image(run: Callable[[int], object], count: int) -> float:
    """Seconds per image in a run of ``count``, less the run of a single one with its loading and starting."""
    times = []
    for images in (1, count):
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return (times[1] - times[0]) / (count - 1)


def compiled_project(graph: ExactGraph, folder: Path) -> tuple[Callable[..., dict[str, IntArray]], float]:
    """hls4ml's C-simulation as a function of mantissas, and the seconds it took to compile."""
    flow, board = load_project_flow("hls4ml"), load_board("zcu102")
    project = flow.write(best_design(graph, board, flow), folder / "project")
    return functools.partial(flow.simulate, project), flow.compile(project)


def rows_of(
    graph: ExactGraph,
    model_file: Path,
    models: tuple[nn.Module, nn.Module],
    images: NDArray[np.uint8],
    options: argparse.Namespace,
    folder: Path,
) -> tuple[dict[str, float], list[str]]:
    """Images per second of every contestant, and the notes on what was compared."""
    name = graph.inputs[0]
    mantissas = {name: encode_input(graph, name, images)}
    executor, floats_only, numpy_only = FastExecutor(graph), without_int8(graph), FastExecutor(graph, "numpy")
    outputs = executor(mantissas)
    notes: list[str] = []

    def check(title: str, other: Mapping[str, IntArray], count: int) -> None:
        ours = {t: x[:count] for t, x in outputs.items()}
        shown = compare(graph, ours, other, names=(FAST, title)).require_equal()
        notes.append(f"{title}: {shown.codes:,} output codes on {count} images, none differs")

    def head(count: int) -> dict[str, IntArray]:
        return {t: x[:count] for t, x in mantissas.items()}

    quick = float_contestants(models[0], images) | {
        FAST: lambda: executor(mantissas),
        "qhw fast executor, floats only": lambda: floats_only(mantissas),
        "qhw fast executor, NumPy": lambda: numpy_only(mantissas),
        "quantised torch model": inference(models[1], torch.from_numpy(images).float()),
    }
    check("floats only", floats_only(mantissas), len(images))
    check("NumPy", numpy_only(mantissas), len(images))
    speed = {title: len(images) / s for title, s in measure(quick, options.rounds).items()}

    interpreted = interpret(graph, head(INTERPRETER_IMAGES))
    check("interpreter", interpreted, INTERPRETER_IMAGES)
    seconds = measure({"interpreter": lambda: interpret(graph, head(INTERPRETER_IMAGES))}, 1)["interpreter"]
    speed["interpreter"] = INTERPRETER_IMAGES / seconds

    def by_qonnx(count: int) -> dict[str, IntArray]:
        return execute_qonnx(graph, model_file, {name: images[:count]})

    executed = by_qonnx(QONNX_IMAGES)
    check("qonnx execute_onnx", {t: executed[t] for t in outputs if t in executed}, QONNX_IMAGES)
    speed["qonnx execute_onnx"] = 1 / seconds_per_image(by_qonnx, QONNX_IMAGES)

    if not options.skip_csim:
        simulate, compiling = compiled_project(graph, folder)
        check("hls4ml C-simulation", simulate(head(CSIM_IMAGES)), CSIM_IMAGES)
        seconds = seconds_per_image(lambda count: simulate(head(count)), CSIM_IMAGES)
        speed["hls4ml C-simulation"] = 1 / seconds
        notes.append(f"compiling the C-simulation took {compiling:.0f} s, which is not counted")
    return speed, notes


def table(speed: Mapping[str, float]) -> list[str]:
    """Fastest first, beside the baseline and the fast executor."""
    lines = [
        "| execution | images/s | time against fused float32 | fast executor is faster by |",
        "|---|---:|---:|---:|",
    ]
    for title, rate in sorted(speed.items(), key=lambda item: -item[1]):
        lines.append(
            f"| {title} | {rate:,.1f} | {speed[BASELINE] / rate:,.2f}x | {speed[FAST] / rate:,.1f}x |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--train-images", type=int, default=6000)
    parser.add_argument("--skip-csim", action="store_true")
    options = parser.parse_args()
    data = load_dataset("fashion-mnist")
    models = trained(data, options.train_images)
    images = data.test_x[: options.batch]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model_file = export_qonnx(models[1], folder / "model.onnx")
        speed, notes = rows_of(lower(model_file), model_file, models, images, options, folder)
    lines = [
        "# Simulation speed",
        "",
        f"resnet8 on Fashion-MNIST's test split, batch {options.batch}, {torch.get_num_threads()} threads; "
        f"median of {options.rounds} interleaved rounds for whole batches, one run for the slow ones.",
        "",
        *table(speed),
        "",
        *(f"- {note}" for note in notes),
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
