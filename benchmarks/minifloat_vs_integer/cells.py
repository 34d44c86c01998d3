"""The cells of the tables: a trained network in one format for its weights and one for its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from minifloat_vs_integer.formats import ACTIVATIONS, WEIGHTS, Formats, every
from minifloat_vs_integer.networks import Network, Target
from minifloat_vs_integer.store import Store
from qhw.boards import load_board
from qhw.export import to_onnx
from qhw.flows.base import load_flow
from qhw.formats import parse_format
from qhw.graph.lower import lower
from qhw.ptq.calibrated import Calibrated
from qhw.ptq.run import chosen_samples
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.search.network import CALIBRATION, Variants, sites_of
from qhw.search.pricing import CircuitPricer
from qhw.search.space import Space, SpaceSettings
from qhw.train import evaluate, predict, quant_of

SAMPLES = 256
"""Calibration samples, of the training part."""

Tell = Callable[[str], None]


def cell_key(network: str, seed: int, methods: str, formats: Formats) -> str:
    """The key of a cell."""
    return f"{network} {seed} {methods}: {formats.key}"


def cost_key(network: str, formats: Formats) -> str:
    """The key of a cell's costs."""
    return f"{network}: {formats.key}"


def measure(
    network: Network, seed: int, methods: str, wanted: Sequence[Formats], store: Store, tell: Tell
) -> None:
    """Every cell that is not there yet: accuracy on the samples held out, and on the test split."""
    missing = [f for f in wanted if not store.has("cells", cell_key(network.name, seed, methods, f))]
    if not missing:
        return
    part, held = network.parts
    model = network.trained(seed)
    if not store.has("float", f"{network.name} {seed}"):
        on_held = held.judge.score(predict(model, held.samples))
        store.put("float", f"{network.name} {seed}", {"held": on_held, "test": evaluate(model, network.data)})
    settings = PtqSettings(methods, samples=SAMPLES, seed=seed)
    samples, _ = chosen_samples(part, settings)
    calibrated = Calibrated(model, samples, settings, pixels=part.has_pixels)
    for formats in missing:
        start = time.perf_counter()
        quantised = calibrated.quantised(formats.config)
        seconds = time.perf_counter() - start
        record = {
            "held": round(held.judge.score(predict(quantised, held.samples)), 5),
            "test": round(evaluate(quantised, network.data), 5),
            "seconds": round(seconds, 2),
        }
        store.put("cells", cell_key(network.name, seed, methods, formats), record)
        tell(f"{cell_key(network.name, seed, methods, formats)}: {record}")


def stored_bits(model: nn.Module, formats: Formats) -> int:
    """Bits of all weights as designs store them: k-hot numbers as the shifts of their ones."""
    each = parse_format(formats.weights).operand().stored_bits
    return each * sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)


def uniform_space(model: nn.Module, base: QuantConfig, example: torch.Tensor) -> Space:
    """The space of the formats that are compared."""
    settings = SpaceSettings(weights=WEIGHTS, activations=ACTIVATIONS)
    return settings.space(sites_of(model, base, example), base)


def price(network: Network, store: Store, tell: Tell) -> None:
    """The costs of every cell, at the network's rate: LUT of the smallest design, and bits of weights."""
    missing = [f for f in every() if not store.has("costs", cost_key(network.name, f))]
    if not missing:
        return
    part, _ = network.parts
    model = network.trained(0)
    samples = torch.from_numpy(part.train_x[:CALIBRATION]).float()
    base = quant_of(QuantConfig(), part, model)
    space = uniform_space(model, base, samples[:2])
    for formats, costs in priced(model, space, samples, missing, network.target, tell):
        store.put("costs", cost_key(network.name, formats), costs)


def priced(
    model: nn.Module,
    space: Space,
    samples: torch.Tensor,
    wanted: Sequence[Formats],
    target: Target,
    tell: Tell,
) -> Iterator[tuple[Formats, dict[str, Any]]]:
    """Points of one format for weights and one for results, with their costs on a target."""
    start = time.perf_counter()
    variants = Variants(model, space, samples)
    graphs = [lower(to_onnx(module)) for module in variants.modules]
    tell(f"{len(graphs)} variants in {time.perf_counter() - start:.0f} s")
    pricer = CircuitPricer(
        graphs,
        variants.sources(),
        space.counts,
        load_flow(target.flow),
        load_board(target.board),
        target.wanted,
    )
    for formats in wanted:
        point = space.point(
            {v.name: formats.weights if v.kind == "weights" else formats.activations for v in space.variables}
        )
        costs = pricer.price([point])
        resources = {name: float(costs.objective(name)[0]) for name in ("lut", "dsp", "bram18", "memory")}
        resources |= {"weight_bits": stored_bits(model, formats), "fits": bool(costs.fits[0])}
        tell(f"{formats.key}: {resources}")
        yield formats, resources
