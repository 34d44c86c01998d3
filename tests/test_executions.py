"""The targets and the metric that a build folder holds: whoever wrote them, wrong ones get one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qhw.errors import InputError
from qhw.executions import stored_judge

GOOD: dict[str, Any] = {"task": "classification", "metric": "f1", "targets": np.array([0, 2, 1])}


def test_the_metric_is_read_back(tmp_path: Path) -> None:
    np.savez(tmp_path / "targets.npz", **GOOD)
    judge = stored_judge(tmp_path / "targets.npz", 3)
    assert judge is not None
    assert (judge.task.name, judge.metric.name) == ("classification", "f1")
    assert judge.score(np.eye(3)[[0, 2, 1]]) == 1.0
    assert stored_judge(tmp_path / "absent.npz", 3) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": "sorting"}, "'sorting' is not a task"),
        ({"metric": "rmse"}, "'rmse' is not a metric of classification"),
        ({"targets": np.array([0, 1])}, r"shape \(2,\)"),
        ({"targets": np.array(3)}, r"shape \(\)"),
        ({"targets": np.array([0.5, 1, 2])}, "not classes"),
        ({"targets": np.array([0, -2, 1])}, "run from -2 to 1"),
    ],
)
def test_others_are_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "targets.npz", **(GOOD | change))
    with pytest.raises(InputError, match=says):
        stored_judge(tmp_path / "targets.npz", 3)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "targets.npz", task="regression", targets=np.zeros(3))
    with pytest.raises(InputError, match="lacks metric"):
        stored_judge(tmp_path / "targets.npz", 3)
