"""A metric of the user's own: which way is better, what it may return, and when its file is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qhw
from qhw.data import Reading
from qhw.errors import InputError
from qhw.executions import stored_judge
from qhw.pipeline.accuracy import warning_of_fall
from qhw.pipeline.data_choice import choose_data
from qhw.pipeline.own_metric import own_metric, recorded_metric
from qhw.pipeline.user_file import user_function
from qhw.quant_config import QuantConfig
from qhw.tasks import Judge, Metric, task_named

DISTANCE = """
import numpy as np

def metric(outputs, targets):
    return np.abs(outputs.argmax(axis=1) - targets).mean()
"""


def of_file(folder: Path, text: str) -> Metric:
    (folder / "mine.py").write_text(text)
    function = user_function(f"{folder}/mine.py:metric", "metric")
    assert function is not None
    return own_metric(function)


def test_more_is_better_unless_the_function_says_otherwise(tmp_path: Path) -> None:
    up = of_file(tmp_path, DISTANCE)
    down = of_file(tmp_path, f"{DISTANCE}\nmetric.higher_is_better = False\n")
    outputs, targets = np.eye(4)[[0, 2, 1, 3]], np.array([0, 1, 2, 3])
    assert up.score(outputs, targets) == down.score(outputs, targets) == 0.5
    config = QuantConfig()
    for metric, worse, better in ((up, 0.2, 0.5), (down, 0.5, 0.2)):
        assert metric.name == "metric"
        assert metric.loss_against(better, worse) > 0 > metric.loss_against(worse, better)
        assert warning_of_fall(metric, better, worse, config, 5) is not None
        assert warning_of_fall(metric, worse, better, config, 5) is None
    assert up.written(0.5) == "0.5"
    share = of_file(tmp_path, f"{DISTANCE}\nmetric.is_share = True\n")
    assert share.written(0.5) == "50.00%"


def test_an_error_that_is_larger_than_expected_is_refused(tmp_path: Path) -> None:
    """What an untrained network gives is far above, and not below, what is said to be its error."""
    (tmp_path / "mine.py").write_text(
        f"{DISTANCE}\nmetric.higher_is_better = False\n"
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    with pytest.raises(InputError, match=r"the network's metric is [\d.]+ on data set digits, not 0\.1"):
        qhw.build(
            f"{tmp_path}/mine.py:net",
            board="pynq-z2",
            data="digits",
            metric=f"{tmp_path}/mine.py:metric",
            trained=True,
            expect=0.1,
            out=tmp_path / "b",
        )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def metric(outputs, targets):\n    raise KeyError('weights')\n", "metric .* raised KeyError"),
        ("def metric(outputs, targets):\n    return outputs\n", "returned a ndarray[\\s\\S]*one number"),
        ("def metric(outputs, targets):\n    return 'good'\n", "returned a str"),
        ("def metric(outputs):\n    return 1.0\n", "raised TypeError: .*positional argument"),
        ("metric = 3\n", "has no function 'metric'"),
        (f"{DISTANCE}\nmetric.higher_is_better = 'no'\n", r"higher_is_better is 'no'[\s\S]*True or False"),
    ],
)
def test_a_function_that_is_no_metric_is_refused_before_training(
    text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=says):
        qhw.build(
            "digits-cnn",
            board="ultra96",
            metric=f"{tmp_path}/mine.py:metric",
            training={"float_epochs": 100_000},
            out=tmp_path / "b",
        )
    assert not (tmp_path / "b").exists()


def test_a_function_in_place_of_its_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"of type function[\s\S]*own_metric"):
        qhw.build("digits-cnn", board="ultra96", metric=lambda outputs, targets: 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("figure", ["nan", "inf"])
def test_a_figure_that_is_no_number_is_refused(figure: str, tmp_path: Path) -> None:
    metric = of_file(tmp_path, f"def metric(outputs, targets):\n    return float('{figure}')\n")
    judge = Judge(task_named("classification"), metric, np.array([0, 1]))
    with pytest.raises(InputError, match=f"metric is {figure} on 2 samples"):
        judge.score(np.eye(2))


def test_a_file_that_changes_during_a_build_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(DISTANCE)
    choice = choose_data("digits", Reading(metric=f"{tmp_path}/mine.py:metric"))
    (tmp_path / "mine.py").write_text(f"raise SystemExit\n{DISTANCE}")
    with pytest.raises(InputError, match="was changed meanwhile"):
        choice.dataset  # noqa: B018  (is loaded when it is asked for)


def test_a_change_of_the_same_size_within_a_second_is_run(tmp_path: Path) -> None:
    """A cached .pyc is valid by size and seconds."""
    figures = [
        of_file(tmp_path, f"def metric(outputs, targets):\n    return {value}\n").score(np.eye(2), np.eye(2))
        for value in (1, 2, 3)
    ]
    assert figures == [1.0, 2.0, 3.0]


def test_a_file_may_hold_dataclasses(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Weights:\n    first: float = 2.0\n\n"
        "def metric(outputs, targets):\n    return Weights().first\n"
    )
    assert of_file(tmp_path, text).score(np.eye(2), np.eye(2)) == 2.0


def test_without_a_record_of_ones_own_nothing_is_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that only says where a file is: nobody vouches for it."""
    (tmp_path / "out" / "vectors").mkdir(parents=True)
    (tmp_path / "mine.py").write_text(f"raise SystemExit\n{DISTANCE}")
    assert recorded_metric(tmp_path / "out", "metric") is None
    targets = tmp_path / "out" / "vectors" / "targets.npz"
    np.savez(targets, task="classification", metric="", own_metric="metric", targets=np.array([0, 1]))
    assert stored_judge(targets, 2) is None
    assert "'metric' is left out" in caplog.text
    assert "no code is run because of it" in caplog.text


def test_another_metric_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(DISTANCE)
    targets = tmp_path / "targets.npz"
    np.savez(targets, task="classification", metric="", targets=np.array([0, 1]))
    named = {"": "top-1", "f1": "f1", f"{tmp_path}/mine.py:metric": "metric"}
    for given, name in named.items():
        judge = stored_judge(targets, 2, given)
        assert judge is not None
        assert judge.metric.name == name
    with pytest.raises(InputError, match="'rmse' is not a metric of classification"):
        stored_judge(targets, 2, "rmse")
