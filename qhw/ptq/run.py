"""Post-training quantisation from data to figures: what ``qhw.ptq``, ``qhw ptq`` and a build's stage do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from qhw.data import Dataset
from qhw.errors import InputError, UnsupportedError
from qhw.ptq.calibrated import REPORTED, Calibrated, LayerError, sqnr
from qhw.ptq.distillation import distil
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.report.tables import Cell, Shown, Table
from qhw.tasks import Metric
from qhw.tracing import trace
from qhw.train import evaluate, predict

Tell = Callable[[float | None, str], None]


@dataclass(frozen=True)
class Shape:
    """What samples are like where there are no data: the shape of one, and whether it holds pixels."""

    shape: tuple[int, ...]
    pixels: bool = False


@dataclass(frozen=True, repr=False)
class PtqResult(Shown):
    """A network that was quantised without training, and how far it is from the float network.

    Args:
        model: the quantised network, in eval mode.
        settings: how it was made.
        changed: by method, how many places of the float network it changed.
        errors: of each layer's result, on samples that were not calibrated with, where there are any.
        output_sqnr: of the network's result, in dB.
        seconds: the quantisation alone.
        metric: the data set's; None without data.
        in_float, quantised: its figure on the test split.
        test_samples: of the test split.
    """

    model: fx.GraphModule
    settings: PtqSettings
    changed: Mapping[str, int]
    errors: tuple[LayerError, ...]
    output_sqnr: float
    seconds: float
    metric: Metric | None = None
    in_float: float | None = None
    quantised: float | None = None
    test_samples: int = 0

    def to_json(self) -> dict[str, Any]:
        """Figures as JSON values; a layer without any error has no SQNR."""
        return {
            "methods": list(self.settings.methods),
            "calibration": self.settings.calibration,
            "samples": self.settings.samples,
            "seed": self.settings.seed,
            "metric": None if self.metric is None else self.metric.name,
            "float": self.in_float,
            "quantised": self.quantised,
            "test_samples": self.test_samples,
            "sqnr_db": _finite(self.output_sqnr),
            "layers": [asdict(error) | {"sqnr": _finite(error.sqnr)} for error in self.errors],
            "seconds": round(self.seconds, 3),
        }

    def tables(self) -> list[Table]:
        """The figures, and a row per layer."""
        rows: list[tuple[Cell, ...]] = [("methods", ", ".join(self.settings.methods) or "none")]
        rows.append(("calibration", f"{self.settings.calibration}, {self.settings.samples} samples"))
        if idle := [name for name, places in self.changed.items() if name in _IN_FLOAT and not places]:
            rows.append(("WARNING", f"{', '.join(idle)} found no place in this network to change"))
        if self.metric is not None and self.in_float is not None and self.quantised is not None:
            written = f"{self.metric.written(self.in_float)} → {self.metric.written(self.quantised)}"
            rows.append(
                (f"{self.metric.name}, float → quantised", f"{written} on {self.test_samples} test samples")
            )
        rows.append(("SQNR of the result", f"{self.output_sqnr:.1f} dB"))
        layers = tuple((e.path, e.format, _written(e.sqnr)) for e in self.errors)
        return [
            Table("Post-training quantisation", ("", ""), tuple(rows)),
            Table("Error of each layer's result", ("layer", "format", "SQNR, dB"), layers),
        ]


_IN_FLOAT = ("bn-fold", "equalize", "smoothquant", "preshift")
"""Methods that look for places in the float network."""


def quantise(
    model: nn.Module,
    data: Dataset | Shape,
    config: QuantConfig,
    settings: PtqSettings | None = None,
    *,
    tell: Tell | None = None,
) -> PtqResult:
    """Quantise a trained float network without training.

    Args:
        model: the network; it is left as it is.
        data: what it was trained on, of which some samples of the training split are looked at, and the
            figures are those of the test split; or without data what samples are like, which are then
            distilled from the network's batch norms.
        tell: receives the progress, as (None, what is being done).

    Raises:
        InputError: without data, the network has no batch norms; or it does not run on such samples.
        UnsupportedError: a layer cannot be converted.
    """
    settings, tell = settings or PtqSettings(), tell or (lambda fraction, text: None)
    if isinstance(data, Shape):
        tell(None, "samples from batch norms")
        samples = held_out = distilled(model, data, settings)
    else:
        samples, held_out = chosen_samples(data, settings)
    tell(None, f"{len(samples)} samples through the float network")
    start = time.perf_counter()
    calibrated = Calibrated(
        model, samples, settings, pixels=data.pixels if isinstance(data, Shape) else data.has_pixels
    )
    tell(None, ", ".join(settings.methods) or "scales")
    quantised = calibrated.quantised(config)
    seconds = time.perf_counter() - start
    tell(None, "errors by layer")
    errors = calibrated.errors(quantised, config, held_out)
    first = held_out[:REPORTED].numpy()
    answers = [torch.from_numpy(predict(network, first)) for network in (model, quantised)]
    result = PtqResult(
        quantised, settings, calibrated.changed, tuple(errors), sqnr(*answers), seconds=seconds
    )
    if isinstance(data, Shape):
        return result
    figures = evaluate(model, data), evaluate(quantised, data)
    return replace(
        result, metric=data.figure, in_float=figures[0], quantised=figures[1], test_samples=len(data.test_x)
    )


def one_input(data: Dataset) -> NDArray[Any]:
    """The training samples of a data set with one input; UnsupportedError for several."""
    inputs = data.inputs("train")
    if len(inputs) > 1:
        raise UnsupportedError(
            f"data set {data.name} has {len(inputs)} inputs",
            allowed="one, for post-training quantisation",
            hint="train the network in its formats: --quantise training",
        )
    return inputs[0]


def chosen_samples(data: Dataset, settings: PtqSettings) -> tuple[Tensor, Tensor]:
    """Samples of the training split to calibrate with, and others of it to measure errors on.

    Where there are no others, they are the same. The test split is left alone.
    """
    samples = one_input(data)
    order = np.random.default_rng(settings.seed).permutation(len(samples))
    first, rest = order[: settings.samples], order[settings.samples : settings.samples + REPORTED]
    chosen, others = (
        torch.from_numpy(np.ascontiguousarray(samples[np.sort(indices)])).float()
        for indices in (first, rest if len(rest) else first[:REPORTED])
    )
    return chosen, others


def distilled(model: nn.Module, like: Shape, settings: PtqSettings) -> Tensor:
    """Samples made from a network's batch norms alone.

    Raises:
        InputError: it has none, or does not run on such samples.
    """
    if any(size < 1 for size in like.shape) or not like.shape:
        raise InputError(f"the shape of a sample is {like.shape}", allowed="positive sizes, as in 1,28,28")
    start = torch.arange(2 * math.prod(like.shape)).reshape(2, *like.shape) % 256 if like.pixels else None
    example = torch.randn(2, *like.shape) if start is None else start.float()
    network = trace(model, example)
    return distil(network, like.shape, settings.samples, pixels=like.pixels, seed=settings.seed)


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _written(value: float) -> str:
    return "exact" if value == math.inf else f"{value:.1f}"
