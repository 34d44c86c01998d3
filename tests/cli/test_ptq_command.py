"""``qhw ptq``: a trained network becomes a QONNX file without training; and what cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qhw import simulate
from qhw.cli import main
from qhw.data import load_dataset
from qhw.models import build_model
from qhw.quant_config import QuantConfig
from qhw.train import TrainConfig, evaluate, train_float

Command = Callable[..., tuple[int, str, str]]

OWN = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))

def bare():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def ptq(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs ``qhw ptq`` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_info:
            main(["ptq", *map(str, arguments)])
        return int(exit_info.value.code or 0), *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a trained digits-cnn, and networks of a user's own."""
    root = tmp_path_factory.mktemp("ptq")
    data = load_dataset("digits")
    recipe = TrainConfig(float_epochs=6, batch_size=32, learning_rate=4e-3, threads=1)
    model, _ = train_float(build_model("digits-cnn", data), data, recipe, QuantConfig())
    torch.save(model.state_dict(), root / "w.pt")
    (root / "net.py").write_text(OWN, encoding="utf-8")
    return root


def test_a_trained_network_becomes_a_file_that_runs_exactly(
    ptq: Command, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small.onnx"
    code, printed, errors = ptq(
        *("--state", folder / "w.pt", "--format", "fixed<4>", "--out", out, "--json"),
        *("--methods", "equalize,bias-correction,gptq", "--calibration", "percentile:99.9", "--samples", 200),
    )
    assert code == 0, errors
    document = json.loads(printed)
    assert document["file"] == str(out)
    assert document["methods"] == ["bias-correction", "equalize", "gptq"]
    assert (document["calibration"], document["samples"]) == ("percentile:99.9", 200)
    assert document["quantised"] > document["float"] - 0.05
    assert simulate(out, data="digits").accuracy == document["quantised"]
    assert {layer["path"] for layer in document["layers"]} >= {"conv1", "norm1", "conv2", "classify"}


def test_a_person_sees_accuracy_and_layers(ptq: Command, folder: Path, tmp_path: Path) -> None:
    code, printed, _ = ptq("--state", folder / "w.pt", "--format", "e3m2", "--out", tmp_path / "m.onnx")
    assert code == 0
    assert "top-1, float → quantised" in printed
    assert "364 test samples" in printed
    assert "SQNR" in printed
    assert "classify" in printed


def test_without_data(ptq: Command, folder: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "m.onnx", load_dataset("digits")
    given = ("--state", folder / "w.pt", "--data", "none", "--format", "fixed<5>", "--samples", 64)
    code, printed, errors = ptq(*given, "--out", out, "--json")
    assert code == 0, errors
    assert json.loads(printed)["float"] is None
    model = build_model("digits-cnn", data)
    model.load_state_dict(torch.load(folder / "w.pt", weights_only=True))
    accuracy = simulate(out, data="digits").accuracy
    assert accuracy is not None
    assert accuracy > evaluate(model, data) - 0.05


def test_without_data_and_of_ones_own(ptq: Command, folder: Path, tmp_path: Path) -> None:
    given = (f"{folder}/net.py:net", "--trained", "--data", "none", "--samples", 16)
    code, _, errors = ptq(*given, "--shape", "1,8,8", "--input", "uint8", "--out", tmp_path / "m.onnx")
    assert code == 0, errors
    assert (tmp_path / "m.onnx").is_file()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--methods", "gptk"], r"'gptk' is not a method[\s\S]*did you mean gptq"),
        (["--calibration", "median"], "the calibration is 'median'"),
        (["--data", "none"], r"is not trained[\s\S]*--state"),
        (["--data", "none", "--trained", "--expect", "90%"], "no accuracy can be checked"),
        (["--shape", "1,8,8"], "A shape would change nothing"),
        (["--data", "none", "--trained", "--shape", "1,x"], "The shape '1,x' is none"),
        (["--out", "nowhere/m.onnx"], "folder nowhere does not exist"),
        (["NET:net", "--trained"], "has no data to calibrate with"),
        (["NET:net", "--trained", "--data", "none"], r"not known what[\s\S]*--shape 1,28,28"),
        (["NET:bare", "--trained", "--data", "none", "--shape", "1,8,8"], "has no batch norm"),
        (["NET:net", "--trained", "--data", "none", "--shape", "3,8,8"], "does not run on an input"),
        (["w.onnx"], "w.onnx does not exist"),
    ],
)
def test_what_cannot_be_quantised_is_told_in_one_message(
    ptq: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, errors = ptq(*(text.replace("NET", f"{folder}/net.py") for text in given))
    assert code == 2
    assert not printed
    assert "Traceback" not in errors
    assert re.search(says, errors)
    assert not list(tmp_path.iterdir())


def test_a_file_of_onnx_is_no_float_network(ptq: Command, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    assert ptq("--state", folder / "w.pt", "--methods", "none", "--samples", 16, "--out", out)[0] == 0
    before = out.read_bytes()
    code, _, errors = ptq(out, "--data", "digits", "--out", out)
    assert code == 2
    assert "is an ONNX file" in errors
    assert out.read_bytes() == before
