"""Bit widths trained against EBOPs (HGQ, by pquant-ml) and against LUT (`gradient`), and uniform training.

All start from the same float weights and train for as many epochs; points are chosen by the samples held out,
and priced by the same calibrated forms at the same rate.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minifloat_vs_integer import packages
from minifloat_vs_integer.networks import CACHE, Network
from minifloat_vs_integer.store import Store
from qhw.boards import load_board
from qhw.errors import ToolMissingError
from qhw.export import to_onnx
from qhw.flows.base import load_flow
from qhw.graph.lower import lower
from qhw.quant_config import QuantConfig
from qhw.search.evaluators.full_qat import FullQat
from qhw.search.network import CALIBRATION, Variants, sites_of
from qhw.search.pareto import front
from qhw.search.pricing import CircuitPricer
from qhw.search.space import ACTIVATIONS, WEIGHTS, Point, SpaceSettings
from qhw.search.strategies.gradient import Gradient, GradientSettings
from qhw.search.strategies.training import TrainingProblem
from qhw.train import TrainConfig, evaluate, quant_of

NETWORK = "mlp"
GRADIENT = GradientSettings(cycles=8, epochs=2)
EPOCHS = GRADIENT.cycles * GRADIENT.epochs
BETA = (3e-7, 3e-4)
"""The weight of pquant-ml's EBOPs in the loss, in the first and in the last epoch."""

WIDTHS = tuple(range(2, 11))
UNIFORM = (
    *((f"fixed<{bits}>", f"fixed<{bits}>") for bits in (2, 3, 4, 5, 6, 8)),
    ("e2m1", "e2m1"),
    ("khot<4,1>", "fixed<3>"),
)
"""Formats of weights and of results that are trained as they are."""

SPACES = {
    "gradient": SpaceSettings(),
    "gradient, integers": SpaceSettings(
        weights=tuple(text for text in WEIGHTS if not text.startswith(("e", "khot"))),
        activations=tuple(text for text in ACTIVATIONS if not text.startswith("e")),
    ),
}

Record = dict[str, Any]
"""A point: ``cost``, ``held``, ``test`` and ``formats``."""


class Bench:
    """The network of one seed: its float weights, its data and its prices."""

    def __init__(self, network: Network, seed: int) -> None:
        self.network, self.seed = network, seed
        self.part, self.held = network.parts
        self.model = network.trained(seed)
        self.samples = torch.from_numpy(self.part.train_x[:CALIBRATION]).float()
        self.config: TrainConfig = dataclasses.replace(network.training, seed=seed, quantised_epochs=EPOCHS)
        self._pricers: dict[str, tuple[Variants, CircuitPricer]] = {}

    def priced(self, settings: SpaceSettings, inputs: str | None = None) -> tuple[Variants, CircuitPricer]:
        """The network in all formats of a space, and its prices."""
        key = f"{settings} {inputs}"
        if key not in self._pricers:
            base = quant_of(QuantConfig(inputs=inputs), self.part, self.model)
            space = settings.space(sites_of(self.model, base, self.samples[:2]), base)
            variants = Variants(self.model, space, self.samples)
            graphs = [lower(to_onnx(module)) for module in variants.modules]
            target, choices = self.network.target, variants.sources()
            flow, board = load_flow(target.flow), load_board(target.board)
            pricer = CircuitPricer(graphs, choices, space.counts, flow, board, target.wanted)
            self._pricers[key] = variants, pricer
        return self._pricers[key]

    def problem(self, settings: SpaceSettings) -> TrainingProblem:
        """What a strategy that trains works on."""
        variants, pricer = self.priced(settings)

        def price(points: Sequence[Point] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            costs = pricer.price(points)
            return costs.objective("lut"), costs.fits

        return TrainingProblem(variants, price, self.part, self.held, self.config)

    def gradient(self, settings: SpaceSettings) -> list[Record]:
        """The front of one run of our strategy."""
        problem = self.problem(settings)
        return [
            {
                "cost": point.cost,
                "held": point.evaluation.figure,
                "test": evaluate(point.network(problem.variants), self.network.data),
                "formats": problem.space.formats(point.point),
            }
            for point in Gradient(problem, GRADIENT).run()
        ]

    def uniform(self) -> list[Record]:
        """One format for all weights and one for all results, trained as they are."""
        problem = self.problem(SPACES["gradient"])
        qat, space = FullQat(problem.variants, self.held, self.part, self.config), problem.space
        records = []
        for weights, activations in UNIFORM:
            point = space.point(
                {v.name: weights if v.kind == "weights" else activations for v in space.variables}
            )
            held = qat.evaluate(point).figure
            test = evaluate(qat.network(point), self.network.data)
            cost = float(problem.price([point])[0][0])
            records.append({"cost": cost, "held": held, "test": test, "formats": space.formats(point)})
        return records

    def hgq(self) -> list[Record]:
        """The epochs of one run of pquant-ml that no other beats."""
        given = {f"w.{name}": value.numpy() for name, value in self.model.state_dict().items()}
        given |= {
            "train_x": self.part.train_x,
            "train_y": self.part.train_y,
            "test_x": self.network.data.test_x,
        }
        given |= {"held_x": self.held.samples, "classes": self.part.classes, "seed": self.seed, "beta": BETA}
        given |= {
            "epochs": EPOCHS,
            "rate": self.config.quantised_learning_rate,
            "batch": self.config.batch_size,
        }
        found = [self.priced_epoch(epoch) for epoch in trained_by_pquant(given)]
        return [found[place] for place in front([p["cost"] for p in found], [p["held"] for p in found])]

    def priced_epoch(self, epoch: dict[str, Any]) -> Record:
        """An epoch of pquant-ml: its widths as fixed point of as many bits, and what they cost here."""
        bits = {name: int(min(max(width, WIDTHS[0]), WIDTHS[-1])) for name, width in epoch["widths"].items()}
        integers = tuple(f"fixed<{width}>" for width in WIDTHS)
        settings = SpaceSettings(weights=integers, activations=integers)
        variants, pricer = self.priced(settings, f"fixed<{bits['hidden1.input']}>")
        formats = {
            f"{name}.weights": f"fixed<{bits[f'{name}.weight']}>"
            for name in ("hidden1", "hidden2", "classify")
        }
        formats["norm1.activations"] = f"fixed<{bits['hidden2.input']}>"
        formats["norm2.activations"] = f"fixed<{bits['classify.input']}>"
        costs = pricer.price([variants.space.point(formats)])
        score = {"held": self.held.judge.targets, "test": self.network.data.test_targets}
        shares = {split: float(np.mean(np.array(epoch[split]) == wanted)) for split, wanted in score.items()}
        formats["input"] = f"fixed<{bits['hidden1.input']}>"
        return {
            "cost": float(costs.objective("lut")[0]),
            **shares,
            "formats": formats,
            "ebops": epoch["ebops"],
        }


def trained_by_pquant(given: dict[str, Any]) -> list[dict[str, Any]]:
    """One run of pquant-ml in a process of its own, whose packages are in a folder beside."""
    folder = packages.pquant(CACHE)
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "in.npz"), Path(scratch, "out.json")
        np.savez(source, **given)
        script = Path(__file__).with_name("hgq_training.py")
        environment = os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": str(folder)}
        command = [sys.executable, str(script), str(source), str(target)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ToolMissingError(f"pquant-ml's training failed: {done.stderr.strip()[-400:]}")
        records: list[dict[str, Any]] = json.loads(target.read_text())
    return records


def measure(network: Network, store: Store, tell: Callable[[str], None]) -> None:
    """Every front that is not there yet."""
    if network.name != NETWORK:
        return
    for seed in range(network.seeds):
        bench = Bench(network, seed)
        runs: dict[str, Callable[[], list[Record]]] = {
            name: partial(bench.gradient, settings) for name, settings in SPACES.items()
        }
        runs |= {"HGQ": bench.hgq, "uniform": bench.uniform}
        for name, run in runs.items():
            key = f"{network.name} {seed} {name}"
            if not store.has("trained", key):
                start = time.process_time(), os.times().children_user
                points = run()
                seconds = time.process_time() - start[0] + os.times().children_user - start[1]
                store.put("trained", key, {"points": points, "seconds": round(seconds, 1)})
                tell(f"{key}: {len(points)} points in {seconds:.0f} s")
