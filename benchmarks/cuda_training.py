"""Training on a GPU: a step of resnet8, recorded and not, against float and Brevitas; then its whole recipe.

Steps are of batch 128, 28x28 images, forward, backward and AdamW, all in float32 with TF32 off; Brevitas's
network is that of ``training_step.py``. Before anything is timed, recorded steps are compared with steps that
were not, weight by weight, with ==. Rounds are in turns, medians are reported. The whole recipe runs on
Fashion-MNIST where it is installed, else on random images of its size, whose accuracy says nothing.

Targets: a recorded quantised step is no slower than an eager float one and at least 15 times as fast as
Brevitas's; the whole recipe takes less than 60 s. How to run it: see ``cuda_kernels.py``.

    python benchmarks/cuda_training.py [--rounds 20] [--batch 128] [--precision bf16] [--no-recipe] [--json]
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import json
import sys
from collections.abc import Callable

import numpy as np
import torch
from cuda_kernels import measure, require_gpu
from torch import Tensor, nn
from training_step import brevitas_network

from qhw.accelerator import Batches, RecordedStep, training_on
from qhw.checkpoints import weights_hash
from qhw.convert import QuantConfig, convert
from qhw.data import Dataset, load_dataset
from qhw.errors import InputError
from qhw.models import model_entry
from qhw.models.resnet8 import build
from qhw.train import _optimizer, _train_step, train

STEPS = 40
"""Steps whose weights are compared; well beyond those before the recording."""


def random_images() -> Dataset:
    """As many images and classes as Fashion-MNIST, at random."""
    generator = np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = generator.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)
        return pixels, generator.integers(0, 10, count)

    (train_x, train_y), (test_x, test_y) = split(60_000), split(10_000)
    return Dataset("random images", "numpy", train_x, train_y, test_x, test_y, 10)


def images() -> Dataset:
    try:
        return load_dataset("fashion-mnist")
    except InputError:
        return random_images()


def plain_step(
    model: nn.Module, data: Dataset, precision: str = "float32"
) -> Callable[[Tensor, Tensor], Tensor]:
    """A step as ``qhw.train`` takes it."""
    model.train()
    return functools.partial(_train_step, model, _optimizer(model, 1e-3, 1e-4), data, precision)


def quantised(data: Dataset) -> nn.Module:
    torch.manual_seed(0)
    model = build((1, 28, 28), 10, -8)
    return convert(model, QuantConfig(), torch.from_numpy(data.train_x[:2]).float()).cuda()


def recorded_is_exact(data: Dataset, batches: Batches, batch: int, precision: str) -> dict[str, object]:
    """Weights after some steps, recorded twice and not recorded."""
    order = np.arange(STEPS * batch).reshape(STEPS, batch)
    hashes, recorded = [], True
    for record in (True, True, False):
        model = quantised(data)
        step = plain_step(model, data, precision)
        taken = RecordedStep(step) if record else step
        for samples, targets in batches.epoch(order):
            taken(samples, targets)
        recorded &= not record or taken.is_recorded
        hashes.append(weights_hash(model))
    return {"recorded": recorded, "repeats": hashes[0] == hashes[1], "as_unrecorded": hashes[0] == hashes[2]}


def time_steps(data: Dataset, batches: Batches, options: argparse.Namespace) -> dict[str, float]:
    """Median milliseconds of a step of each network."""
    torch.manual_seed(0)
    plain = build((1, 28, 28), 10, -8)
    samples, targets = next(batches.epoch(np.arange(options.batch)[None]))
    ours, recorded = (plain_step(quantised(data), data, options.precision) for _ in range(2))
    steps = {
        "float": plain_step(copy.deepcopy(plain).cuda(), data, options.precision),
        "float_recorded": RecordedStep(plain_step(copy.deepcopy(plain).cuda(), data, options.precision)),
        "ours": ours,
        "ours_recorded": RecordedStep(recorded),
        "brevitas": plain_step(brevitas_network(plain).cuda(), data, options.precision),
    }
    for step in steps.values():
        for _ in range(10):
            step(samples, targets)
    return measure(
        {name: functools.partial(s, samples, targets) for name, s in steps.items()}, options.rounds
    )


def time_recipe(data: Dataset, precision: str) -> dict[str, object]:
    """resnet8's recipe from the first step to both accuracies, which are found on the CPU."""
    recipe = dataclasses.replace(model_entry("resnet8").recipe(), device="cuda", precision=precision)
    torch.manual_seed(0)
    result = train(build((1, 28, 28), 10, -8), data, recipe, QuantConfig())
    return {
        "data": data.name,
        "seconds": result.seconds,
        "float_accuracy": result.float_accuracy,
        "quantised_accuracy": result.quantised_accuracy,
        "met": result.seconds < 60.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    parser.add_argument("--no-recipe", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    gpu, data, device = require_gpu(), images(), torch.device("cuda", 0)
    with training_on(device):
        batches = Batches.of(data, device)
        exact = recorded_is_exact(data, batches, options.batch, options.precision)
        times = time_steps(data, batches, options)
    result: dict[str, object] = {
        "gpu": gpu,
        "torch": torch.__version__,
        "precision": options.precision,
        "bits": exact,
        "milliseconds": times,
        "float_over_ours_recorded": times["float"] / times["ours_recorded"],
        "brevitas_over_ours_recorded": times["brevitas"] / times["ours_recorded"],
    }
    if not options.no_recipe:
        result["recipe"] = time_recipe(data, options.precision)
    print(
        json.dumps(result)
        if options.json
        else "\n".join(f"{name}: {value}" for name, value in result.items())
    )
    if not all(exact.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
