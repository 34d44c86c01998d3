"""The first stages of a build on a function whose model is quantised already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qhw.errors import InputError
from qhw.pipeline.build_stages import MODEL_FILE, _weighing, stages
from qhw.pipeline.options import BuildOptions
from qhw.pipeline.run import make_plan
from qhw.pipeline.source import load_module
from qhw.pipeline.stages import Outcome, opened, run_stages

NET = """
import torch
from brevitas import nn as qnn
from torch import nn

def net():
    model = nn.Sequential(
        qnn.QuantIdentity(bit_width=5),
        nn.Flatten(),
        qnn.QuantLinear(64, 10, bias=False, weight_bit_width=4),
        qnn.QuantIdentity(bit_width=12),
    )
    model(torch.rand(32, 1, 8, 8) * 16)
    return model.eval()
"""


def options(folder: Path) -> BuildOptions:
    (folder / "brevitas_net.py").write_text(NET)
    given = f"{folder / 'brevitas_net.py'}:net"
    return BuildOptions(model=given, board="ultra96", data="digits", out=folder / "out")


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_model_of_a_function_is_exported_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("hls4ml")
    plan = make_plan(options(tmp_path))
    outcomes: list[Outcome] = []
    with opened(plan.folder):
        run_stages(plan.folder, stages(plan)[:2], outcomes)
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [("train", "done"), ("export", "done")]
    assert (plan.folder / MODEL_FILE).is_file()
    assert plan.data is not None
    images = torch.from_numpy(plan.data.dataset.test_x).double()
    with torch.no_grad():
        expected = load_module(plan.source, plan.data.dataset, 0).double()(images).numpy()
    answers = np.load(plan.folder / "torch" / "outputs.npy")
    assert np.array_equal(answers, expected)
    assert len(np.unique(answers)) > 100


def test_formats_for_it_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("hls4ml")
    plan = make_plan(replace(options(tmp_path), weights="fixed<4>"))
    with pytest.raises(InputError, match="weights would change nothing"), opened(plan.folder):
        run_stages(plan.folder, stages(plan)[:1], [])
    assert not plan.folder.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="what auto stands for differs")
def test_a_stage_is_keyed_by_the_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU by any name is the CPU, and one GPU is as good as another of them."""
    for name in ("cpu", "auto"):
        assert _weighing({"batch_size": 32, "device": name}) == {"batch_size": 32}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    kinds = [_weighing({"batch_size": 32, "device": name}) for name in ("cuda", "cuda:1", "auto")]
    assert kinds == [{"batch_size": 32, "device": "cuda"}] * 3
    assert _weighing({"device": "gpu"}) == {"device": "gpu"}  # refused where training starts
