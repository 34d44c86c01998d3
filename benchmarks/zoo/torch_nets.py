"""Common plain torch networks (`tests/common_nets.py`), through `qhw.convert` and `qhw.export`."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.entries import Entry, Kind

NETS = Path(__file__).parents[2] / "tests"
MLPS = {"MLP", "dense autoencoder", "MLP-Mixer"}
BATCH = 16


def networks() -> Any:
    """The module that builds them."""
    if str(NETS) not in sys.path:
        sys.path.append(str(NETS))
    return importlib.import_module("common_nets")


def kind_of(name: str) -> Kind:
    """What a network is counted as."""
    return "MLP" if name in MLPS else "CNN"


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A network in eval mode, its statistics and weights drawn at random, and a batch of normal inputs."""
    model, shape = networks().build(name)
    torch.manual_seed(0)
    return model, torch.randn(BATCH, *shape)


def write(name: str, scaling: str, folder: Path) -> Path:
    """Converted, its scales and statistics from a batch of random inputs, exported."""
    from qhw.convert import convert
    from qhw.export import export_qonnx
    from qhw.quant_config import QuantConfig

    plain, x = build(name)
    model = convert(plain, QuantConfig(scaling=scaling), x).train()  # type: ignore[arg-type]
    with torch.no_grad():
        model(x)
    return Path(export_qonnx(model.eval(), folder / "model.onnx"))


def entries(cache: Path) -> Iterator[Entry]:
    """Every network with scales that are powers of two, then each with free ones."""
    names = list(networks().COMMON)
    for scaling, group in (("power_of_two", "torch"), ("free", "torch, free scales")):
        for name in names:
            make = functools.partial(write, name, scaling)
            yield Entry(f"{group}/{name}", kind_of(name), make, exported=True)
