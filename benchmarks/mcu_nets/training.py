"""Short training of networks of benchmarks/quantmcu.py with the widths that QuantMCU chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from qhw.data import Dataset
from qhw.export import export_qonnx
from qhw.quant_config import QuantConfig
from qhw.train import TrainConfig, predict, quant_of, train

STEPS, BATCH, RATE = 500, 64, 1e-3
"""Of training: what makes it short. A step has so many samples; AdamW, the rate falls to 0."""


def retrained(
    path: Path,
    model: torch.nn.Module,
    samples: NDArray[Any],
    overrides: Mapping[str, Mapping[str, str]],
    tell: Callable[[str], None],
) -> Path:
    """The QONNX file of a float network after quantised training in such formats, made once.

    Its teacher is the float network: the outputs are to be the float network's (Ba and Caruana: Do Deep Nets
    Really Need to be Deep?, arXiv 1312.6184, equation 1), so samples need no labels.

    Args:
        overrides: of a :class:`qhw.quant_config.QuantConfig`.
    """
    if not path.exists():
        taught = predict(model, samples)
        few = samples[:BATCH], taught[:BATCH]
        data = Dataset(path.stem, path.stem, samples, taught, *few, task="regression")
        epochs = max(1, round(STEPS * BATCH / len(samples)))
        recipe = TrainConfig(
            0,
            epochs,
            batch_size=BATCH,
            quantised_learning_rate=RATE,
            freeze_norms=0.0,
            threads=torch.get_num_threads(),
        )
        quant = quant_of(QuantConfig(overrides=dict(overrides)), data, model)
        tell(f"{path.stem}: {epochs} epochs of {len(samples):,} samples")
        export_qonnx(train(model, data, recipe, quant).quantised_model, path)
    return path
