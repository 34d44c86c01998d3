"""``qhw.build`` from Python: a user's own quantised model, with whatever scales Brevitas gives it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from torch import nn
from torch.nn import functional

import qhw
from qhw.data import load_dataset
from qhw.pipeline.stages import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Watcher:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def started(self, name: str) -> None:
        self.seen.append(name)

    def progress(self, fraction: float | None, text: str) -> None:
        assert fraction is None or 0 <= fraction <= 1

    def finished(self, outcome: Outcome) -> None:
        assert outcome.name == self.seen[-1]


def brevitas_cnn() -> nn.Module:
    """Brevitas's defaults: scales from statistics, no powers of two; a float batch norm in between."""
    torch.manual_seed(0)
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=5),
        qnn.QuantConv2d(1, 6, 3, padding=1, weight_bit_width=4, bias=False),
        nn.BatchNorm2d(6),
        qnn.QuantReLU(bit_width=5),
        qnn.QuantConv2d(6, 6, 3, stride=2, padding=1, weight_bit_width=4, bias=False),
        qnn.QuantReLU(bit_width=5),
        nn.Flatten(),
        qnn.QuantLinear(96, 10, bias=False, weight_bit_width=4),
        qnn.QuantIdentity(bit_width=12),
    )


def test_a_users_own_brevitas_model_of_arbitrary_scales(tmp_path: Path) -> None:
    data = load_dataset("digits")
    model = brevitas_cnn()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(12):
        for start in range(0, len(data.train_x) - 100, 100):
            batch = torch.from_numpy(data.train_x[start : start + 100]).float()
            loss = functional.cross_entropy(model(batch), torch.from_numpy(data.train_y[start : start + 100]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    watcher = Watcher()
    result = qhw.build(
        model.eval(), board="ultra96", data=data, out=tmp_path / "out", vectors=100, observer=watcher
    )
    assert watcher.seen == ["export", "lower", "cost", "vectors", "project", "compile", "verify", "report"]
    assert (result.folder / "canonical.onnx").is_file()
    rows = {row["backend"]: row for row in result.manifest["verification"]}
    assert rows["hls4ml C-simulation"]["mismatches"] == 0
    assert rows["hls4ml C-simulation"]["distinct_codes"] > 100
    assert rows["canonical.onnx"]["mismatches"] == 0
    assert "canonical.onnx" in rows["exact graph"]["not_compared"]
    original = result.manifest["model"]["canonical"]
    assert original["codes_compared"] > 1000
    assert original["differing"] / original["codes_compared"] < 0.01
    with torch.no_grad():
        answers = model(torch.from_numpy(data.test_x).float()).argmax(1).numpy()
    accuracy = float(np.mean(answers == data.test_y))
    assert accuracy > 0.85
    assert abs(result.manifest["accuracy"]["quantised"] - accuracy) < 0.02
    assert "Verification" in result._repr_html_()
