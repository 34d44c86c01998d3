"""Tasks: which targets are of which, and their metrics against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from qhw.errors import InputError
from qhw.tasks import Judge, task_named, task_of, tasks

RANDOM = np.random.default_rng(0)


def test_every_task_is_found_by_its_file() -> None:
    assert set(tasks()) == {"autoencoder", "classification", "multilabel", "regression", "segmentation"}


@pytest.mark.parametrize(
    ("targets", "name"),
    [
        (None, "autoencoder"),
        (np.zeros(3, np.int64), "classification"),
        (np.zeros(3, np.uint8), "classification"),
        (np.zeros(3), "regression"),
        (np.zeros((3, 2), np.float32), "regression"),
        (np.zeros((3, 2), np.int64), "multilabel"),
        (np.zeros((3, 2), bool), "multilabel"),
        (np.zeros((3, 4, 4), np.int64), "segmentation"),
    ],
)
def test_targets_tell_their_task(targets: np.ndarray | None, name: str) -> None:
    assert task_of(targets).name == name


@pytest.mark.parametrize("targets", [np.zeros((3, 4, 4)), np.array(["a", "b"]), np.zeros((2, 2, 2, 2), int)])
def test_other_targets_fit_no_task(targets: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"fit no task[\s\S]*segmentation: one integer per pixel"):
        task_of(targets)


def test_metrics_of_classes_are_scikit_learns() -> None:
    outputs, targets = RANDOM.normal(size=(200, 4)), RANDOM.integers(0, 4, 200)
    task = task_named("classification")
    found = {metric.name: metric.score(outputs, targets) for metric in task.metrics}
    guess = outputs.argmax(axis=1)
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    assert found["top-1"] == sk.accuracy_score(targets, guess)
    assert found["f1"] == sk.f1_score(targets, guess, average="macro")
    assert task.metric("auc").score(shares, targets) == pytest.approx(
        sk.roc_auc_score(targets, shares, multi_class="ovr"), abs=1e-12
    )


def test_one_logit_is_enough_for_two_classes() -> None:
    task, targets = task_named("classification"), np.array([0, 1, 1, 0])
    assert task.takes_outputs((1,), (2,))
    assert not task.takes_outputs((1,), (3,))
    assert task.metric().score(np.array([[-1.0], [2.0], [-3.0], [-4.0]]), targets) == 0.75
    loss = task.loss(torch.tensor([[0.0], [0.0]]), torch.tensor([0, 1]))
    assert float(loss) == pytest.approx(np.log(2))


def test_metrics_of_numbers_are_scikit_learns() -> None:
    outputs, targets = RANDOM.normal(size=(50, 3)), RANDOM.normal(size=(50, 3))
    task = task_named("regression")
    assert task.metric("rmse").score(outputs, targets) == pytest.approx(
        sk.mean_squared_error(targets, outputs) ** 0.5
    )
    mae = sk.mean_absolute_error(targets, outputs)
    assert task.metric("mae").score(outputs, targets) == pytest.approx(mae)
    assert task.metric("r2").score(outputs, targets) == pytest.approx(
        sk.r2_score(targets, outputs, multioutput="variance_weighted")
    )
    assert task.metric("rmse").score(outputs[:, :1], targets[:, 0]) == pytest.approx(
        sk.mean_squared_error(targets[:, 0], outputs[:, 0]) ** 0.5
    )


def test_metrics_of_pixels_are_scikit_learns() -> None:
    outputs, targets = RANDOM.normal(size=(5, 3, 8, 8)), RANDOM.integers(0, 3, (5, 8, 8))
    task = task_named("segmentation")
    guess = outputs.argmax(axis=1)
    assert task.metric("iou").score(outputs, targets) == pytest.approx(
        sk.jaccard_score(targets.ravel(), guess.ravel(), average="macro")
    )
    assert task.metric("pixel-accuracy").score(outputs, targets) == np.mean(guess == targets)


def test_metrics_of_labels_are_scikit_learns() -> None:
    outputs, targets = RANDOM.normal(size=(80, 3)), RANDOM.integers(0, 2, (80, 3))
    task = task_named("multilabel")
    assert task.metric("f1").score(outputs, targets) == sk.f1_score(targets, outputs > 0, average="macro")
    assert task.metric("auc").score(outputs, targets) == pytest.approx(sk.roc_auc_score(targets, outputs))
    assert task.metric("exact-match").score(outputs, targets) == sk.accuracy_score(targets, outputs > 0)


def test_an_area_that_is_not_defined_is_refused() -> None:
    with pytest.raises(InputError, match="AUC is not defined: class 0"):
        task_named("multilabel").metric("auc").score(RANDOM.normal(size=(4, 1)), np.ones((4, 1), int))


@pytest.mark.parametrize(
    ("name", "outputs", "targets"),
    [
        ("classification", (6, 4), RANDOM.integers(0, 4, 6)),
        ("regression", (6, 1), RANDOM.normal(size=6)),
        ("regression", (6, 2), RANDOM.normal(size=(6, 2))),
        ("segmentation", (6, 3, 4, 4), RANDOM.integers(0, 3, (6, 4, 4))),
        ("segmentation", (6, 1, 4, 4), RANDOM.integers(0, 2, (6, 4, 4))),
        ("multilabel", (6, 3), RANDOM.integers(0, 2, (6, 3))),
        ("autoencoder", (6, 5), RANDOM.normal(size=(6, 5)).astype(np.float32)),
    ],
)
def test_a_step_down_the_gradient_lowers_the_loss(name: str, outputs: tuple, targets: np.ndarray) -> None:
    task = task_named(name)
    values = torch.zeros(outputs, requires_grad=True)
    wanted = torch.from_numpy(task.trained_on(targets))
    loss = task.loss(values, wanted)
    loss.backward()
    lower = task.loss(values - 0.1 * values.grad, wanted)
    assert loss.ndim == 0
    assert lower.item() < loss.item()


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "fits"),
    [
        ("classification", (5, 4), np.array([0, 2, 1, 1, 0]), True),
        ("classification", (5, 2), np.array([0, 2, 1, 1, 0]), False),
        ("regression", (5, 4), np.zeros((5, 1)), False),
        ("segmentation", (2, 3, 4, 4), np.ones((2, 4, 4), int), True),
        ("segmentation", (2, 3, 4, 5), np.ones((2, 4, 4), int), False),
        ("multilabel", (5, 2), np.zeros((5, 3), int), False),
        ("autoencoder", (5, 7), np.zeros((5, 8)), False),
    ],
)
def test_outputs_that_do_not_fit_are_refused(
    name: str, outputs: tuple, targets: np.ndarray, fits: bool
) -> None:
    task = task_named(name)
    judge = Judge(task, task.metric(), targets)
    if fits:
        assert 0 <= judge.score(RANDOM.normal(size=outputs)) <= 1
    else:
        with pytest.raises(InputError, match=r"the model gives .* targets for"):
            judge.score(RANDOM.normal(size=outputs))
