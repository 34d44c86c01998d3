"""Data and settings that no training can use: one message and exit code 2, and no build folder is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhw.cli import main

MINE = """
import numpy as np
from torch import nn

X = np.random.default_rng(0).normal(size=(100, 8)).astype("float32")
Y = np.arange(100) % 3


def net():
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))


def wide():
    return nn.Sequential(nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3))


def one():
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 1))


def good():
    return X, Y


def no_task():
    return X, np.zeros((100, 3, 4, 5), "float32")


def nan():
    x = X.copy()
    x[55, 3] = np.nan
    return x, Y


def huge():
    return X * 1e30, Y.astype("float32") * 1e30


def typo():
    return X, X.labels
"""


@pytest.mark.parametrize(
    ("model", "data", "options", "says"),
    [
        (
            "wide",
            "good",
            (),
            ("does not run on an input of shape (2, 8)", "2x8 and 12x4", "To do: give data"),
        ),
        ("net", "no_task", (), ("shape (80, 3, 4, 5) fit no task", "regression: floats (N,)")),
        ("net", "nan", (), ("data set nan: sample 55 holds nan at (3,)", "finite numbers")),
        ("one", "huge", (), ("the loss became inf in the float phase, epoch 1, step 1", "values around 1")),
        ("net", "good", ("--task", "regression"), ("the model gives (3,)", "targets for (1,)")),
        ("net", "good", ("--metric", "mae"), ("'mae' is not a metric of classification", "top-1, f1, auc")),
        ("net", "good", ("--device", "cuda:99"), ("cuda:99 is not there", "cpu")),
        ("net", "typo", (), ("data mine.py:typo raised AttributeError",)),
        ("nett", "good", (), ("mine.py has no function 'nett'", "did you mean net")),
        ("net", "god", (), ("mine.py has no function 'god'", "did you mean good")),
    ],
)
def test_it_is_one_message(
    model: str,
    data: str,
    options: tuple[str, ...],
    says: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    given = (f"mine.py:{model}", "--data", f"mine.py:{data}", "--board", "pynq-z2", "--out", "out")
    with pytest.raises(SystemExit) as ended:
        main(["build", *given, "--float-epochs", "1", *options])
    told = capfd.readouterr().err
    assert ended.value.code == 2, told
    assert told.count("\nError: ") + told.startswith("Error: ") == 1
    assert "Traceback" not in told
    assert all(text in told for text in says), told
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
