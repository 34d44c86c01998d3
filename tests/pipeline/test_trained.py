"""A network that was trained elsewhere: its weights, its preprocessing, and the figure that it had."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from qonnx_factory import Net
from torch import nn
from torch.nn import functional

import qhw
from qhw.data import load_dataset
from qhw.errors import InputError
from qhw.pipeline.options import BuildOptions
from qhw.pipeline.run import make_plan
from qhw.pipeline.state import load_state

PREPROCESS = "scale=1/16 mean=0.3 std=0.37"
SOURCE = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network's file and its weights, trained on samples of mean 0 and deviation 1."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "net.py").write_text(SOURCE)
    names: dict[str, object] = {}
    exec(SOURCE, names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = names["net"]()  # type: ignore[operator]
        data = load_dataset("digits")
        x = (torch.from_numpy(data.train_x).float() / 16 - 0.3) / 0.37
        y = torch.from_numpy(data.train_y)  # type: ignore[arg-type]
        optimizer = torch.optim.Adam(net.parameters(), 5e-3)
        for _ in range(10):
            for batch in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                functional.cross_entropy(net(x[batch]), y[batch]).backward()
                optimizer.step()
    torch.save(net.state_dict(), folder / "net.pt")
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, folder / "lightning.pt")
    return folder


def test_what_its_training_did_to_samples_has_to_be_said(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"top-1 is \d\d\.\d\d% on data set digits, not 95.00%[\s\S]*--preprocess"
    ):
        qhw.build(
            f"{trained}/net.py:net",
            board="pynq-z2",
            data="digits",
            state=trained / "net.pt",
            expect=0.95,
            out=tmp_path / "b",
        )
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_it_is_fine_tuned_behind_its_preprocessing(trained: Path, tmp_path: Path) -> None:
    result = qhw.build(
        f"{trained}/net.py:net",
        board="pynq-z2",
        data="digits",
        state=trained / "lightning.pt",
        expect=0.95,
        preprocess=PREPROCESS,
        training={"quantised_epochs": 2},
        out=tmp_path / "b",
    )
    accuracy = result.manifest["accuracy"]
    assert accuracy["float"] > 0.95
    assert accuracy["quantised"] > accuracy["float"] - 0.02
    assert all(row["mismatches"] == 0 for row in result.manifest["verification"] if "not_compared" not in row)
    encoding = next(iter(result.graph.input_encodings.values()))
    assert (encoding.scale, encoding.low, encoding.high) == (1.0, 0, 255)
    assert result.graph.nodes[0].op == "Affine"


def test_files_of_weights(trained: Path, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(InputError, match=r"holds the weights of another network: .*Unexpected key"):
        load_state(net, trained / "net.pt")
    for value, says in (([1, 2], "is not a state dict"), ({"a": 3}, "is not a state dict")):
        torch.save(value, tmp_path / "w.pt")
        with pytest.raises(InputError, match=says):
            load_state(net, tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"holds no weights[\s\S]*torch\.save"):
        load_state(net, tmp_path / "w.pt")
    torch.save({"module.0.weight": torch.ones(2, 3), "module.0.bias": torch.zeros(2)}, tmp_path / "w.pt")
    load_state(net, tmp_path / "w.pt")
    assert net[0].weight.sum().item() == 6.0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "digits-cnn-ultra96-hls4ml"),
        ({"weights": "e4m3", "activations": "e4m3"}, "digits-cnn-ultra96-hls4ml-e4m3"),
        ({"weights": "khot<8,2>", "quant": {"scales": "khot<8,2>"}}, "digits-cnn-ultra96-hls4ml-khot-8-2"),
    ],
)
def test_builds_in_other_formats_stand_side_by_side(settings: dict[str, object], name: str) -> None:
    plan = make_plan(BuildOptions(board="ultra96", **settings))  # type: ignore[arg-type]
    assert plan.folder.name == name


def test_any_other_setting_has_a_folder_of_its_own() -> None:
    names = [
        make_plan(BuildOptions(board="ultra96", **settings)).folder.name  # type: ignore[arg-type]
        for settings in ({"weights": "fixed<4>"}, {"activations": "fixed<4>"}, {"quant": {"scaling": "free"}})
    ]
    assert len({*names, "digits-cnn-ultra96-hls4ml"}) == 4


@pytest.mark.parametrize("setting", [{"preprocess": PREPROCESS}, {"trained": True}])
def test_a_quantised_model_takes_none_of_it(setting: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"not looked into yet")
    with pytest.raises(InputError, match=r"quantised already: .* would change nothing"):
        make_plan(BuildOptions(model=str(file), board="ultra96", **setting))  # type: ignore[arg-type]


def test_a_quantised_model_without_its_preprocessing_is_noticed(tmp_path: Path) -> None:
    """The figure of a file is checked, too: this one takes pixels for what its training saw."""
    file = tmp_path / "model.onnx"
    net = Net((1, 8, 8))
    x = net.node("MatMul", net.node("Flatten", "x", axis=1), net.quant(np.ones((64, 10)), 4, 0.125))
    onnx.save(net.model(net.quant(x, 8, 4.0)), file)
    with pytest.raises(InputError, match="cannot be checked: there are no data"):
        make_plan(BuildOptions(model=str(file), board="ultra96", expect=0.95))
    with pytest.raises(
        InputError,
        match=r"the model's top-1 is .*% on data set digits, not 95.00%[\s\S]*from 0 to 16 here.*in front of",
    ):
        qhw.build(file, board="ultra96", data="digits", expect=0.95, out=tmp_path / "b")


@pytest.mark.parametrize("state", ["absent.pt", "pipe"])
def test_weights_that_are_no_file_are_refused_without_waiting(
    state: str, trained: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"The state .* cannot be read"):
        qhw.build(
            f"{trained}/net.py:net",
            board="pynq-z2",
            data="digits",
            state=tmp_path / state,
            out=tmp_path / "b",
        )
    assert not (tmp_path / "b").exists()
