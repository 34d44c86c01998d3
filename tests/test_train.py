"""Training: accuracy on unseen data, the same weights every time, and what goes wrong."""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qhw.checkpoints import weights_hash
from qhw.convert import QuantConfig, convert
from qhw.data import Dataset, load_dataset
from qhw.data.fashion_mnist import DEBIAN_FOLDER
from qhw.errors import InputError, UnsupportedError
from qhw.models import build_model, model_entry
from qhw.train import Phase, Progress, TrainConfig, evaluate, predict, train

QUICK = TrainConfig(float_epochs=2, quantised_epochs=2, batch_size=32, learning_rate=5e-3)
QUANT = QuantConfig(activations="fixed<6>")


def few_digits(count: int = 160) -> Dataset:
    digits = load_dataset("digits")
    return dataclasses.replace(digits, train_x=digits.train_x[:count], train_y=digits.train_y[:count])


def dropout_net() -> nn.Module:
    """Small, with dropout, so that its random numbers count too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(6 * 36, 10),
        )


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[str, str]:
    result = train(dropout_net(), few_digits(), QUICK, QUANT)
    return weights_hash(result.float_model), weights_hash(result.quantised_model)


@pytest.mark.slow
def test_digits_by_default():
    data = load_dataset("digits")
    result = train(build_model("digits-cnn", data), data, model_entry("digits-cnn").recipe(), QuantConfig())
    assert result.float_accuracy >= 0.97
    assert result.quantised_accuracy >= 0.97
    assert result.samples == len(data.test_y)
    assert evaluate(result.quantised_model, data) == result.quantised_accuracy
    # A network of the same kind that has learned nothing is at a tenth.
    assert evaluate(build_model("digits-cnn", data), data) < 0.3


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_resnet8_within_a_point_of_float():
    """On a quarter of the training images, to stay within minutes; tested on all 10,000."""
    data = load_dataset("fashion-mnist")
    data = dataclasses.replace(data, train_x=data.train_x[:15000], train_y=data.train_y[:15000])
    config = dataclasses.replace(model_entry("resnet8").recipe(), float_epochs=3, quantised_epochs=1)
    result = train(build_model("resnet8", data), data, config, QuantConfig())
    assert result.float_accuracy > 0.85
    assert result.quantised_accuracy >= result.float_accuracy - 0.01


def test_repeatable(uninterrupted):
    model = dropout_net()
    before = weights_hash(model)
    torch.manual_seed(99)  # the caller's random state is neither used nor touched
    state = torch.get_rng_state()
    result = train(model, few_digits(), QUICK, QUANT)
    assert torch.equal(torch.get_rng_state(), state)
    assert (weights_hash(result.float_model), weights_hash(result.quantised_model)) == uninterrupted
    assert weights_hash(model) == before


def test_another_seed_gives_other_weights(uninterrupted):
    result = train(dropout_net(), few_digits(), dataclasses.replace(QUICK, seed=1), QUANT)
    assert weights_hash(result.float_model) != uninterrupted[0]


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("stop", [("float", 1, 3), ("float", 2, 5), ("quantised", 1, 1), ("quantised", 2, 4)])
def test_interrupted_training_goes_on_bit_for_bit(tmp_path, uninterrupted, stop):
    def interrupt(progress: Progress) -> None:
        if (progress.phase, progress.epoch, progress.step) == stop:
            raise Interrupt

    with pytest.raises(Interrupt):
        train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=tmp_path, progress=interrupt)
    seen: list[Progress] = []
    result = train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=tmp_path, progress=seen.append)
    assert (weights_hash(result.float_model), weights_hash(result.quantised_model)) == uninterrupted
    assert (seen[0].phase, seen[0].epoch, seen[0].step) == (*stop[:2], 1)
    names = {path.name.removesuffix(".before") for path in tmp_path.iterdir()}
    assert names == {"float.pt", "quantised.pt"}
    assert (
        train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=tmp_path).quantised_accuracy
        == result.quantised_accuracy
    )


KILLED = """
import sys
sys.path[:0] = {paths!r}
import torch
from test_train import *
def tell(progress):
    print(progress.phase, progress.epoch, progress.step, flush=True)
result = train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=sys.argv[1], progress=tell)
print("weights", weights_hash(result.quantised_model))
"""


@pytest.mark.slow
def test_killed_training_goes_on_bit_for_bit(tmp_path):
    program = KILLED.format(paths=[str(Path(__file__).parent), str(Path(__file__).parents[1])])
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}

    def start(folder: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, str(tmp_path / folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    whole = start("whole").communicate()[0].split()[-1]
    child = start("killed")
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("quantised 2 2"):
            child.send_signal(signal.SIGKILL)
            break
    child.communicate()
    resumed = start("killed").communicate()[0]
    assert resumed.startswith("quantised 2 1\n")
    assert resumed.split()[-1] == whole


def test_checkpoints_of_other_settings_are_not_used(tmp_path, uninterrupted):
    train(dropout_net(), few_digits(), dataclasses.replace(QUICK, seed=1), QUANT, checkpoints=tmp_path)
    result = train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=tmp_path)
    assert (weights_hash(result.float_model), weights_hash(result.quantised_model)) == uninterrupted


def test_other_formats_keep_the_float_phase(tmp_path):
    train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=tmp_path)
    seen: list[Progress] = []
    other = QuantConfig(activations="fixed<5>")
    train(dropout_net(), few_digits(), QUICK, other, checkpoints=tmp_path, progress=seen.append)
    assert {progress.phase for progress in seen} == {"quantised"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"x" * 99,
        lambda data: data[:1500] + bytes([data[1500] ^ 1]) + data[1501:],
    ],
)
def test_damaged_checkpoints_are_not_used(tmp_path, uninterrupted, damage):
    train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    result = train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=tmp_path)
    assert weights_hash(result.quantised_model) == uninterrupted[1]


class Payload:
    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


def test_checkpoints_are_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"version": 1, "fingerprint": Payload()}, tmp_path / "float.pt")
    train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=tmp_path)
    assert not (tmp_path / "unpickled").exists()


def test_unwritable_folder_is_found_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    started = time.monotonic()
    with pytest.raises(InputError, match=r"checkpoints cannot be written to .*file/here"):
        train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=tmp_path / "file" / "here")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("phase", ["float", "quantised"])
def test_loss_that_is_no_number(monkeypatch, phase):
    config = dataclasses.replace(QUICK, float_epochs=2 if phase == "float" else 0)
    steps = iter([1.5, 0.7, float("nan")])
    monkeypatch.setattr("qhw.train._train_step", lambda *_: next(steps))
    with pytest.raises(InputError, match=f"loss became nan in the {phase} phase, epoch 1, step 3"):
        train(dropout_net(), few_digits(), config, QUANT)


def test_a_learning_rate_beyond_reason_is_noticed():
    config = dataclasses.replace(QUICK, learning_rate=1e30, float_epochs=20)
    with pytest.raises(InputError, match="lower the learning rate"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), few_digits(), config, QUANT)


def test_what_cannot_be_converted_is_refused_before_training():
    seen: list[Progress] = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.LayerNorm(10))
    with pytest.raises(UnsupportedError, match="layer 2: LayerNorm"):
        train(model, few_digits(), QUICK, QUANT, progress=seen.append)
    assert not seen


def test_without_epochs_statistics_set_the_binary_points():
    data = load_dataset("digits")
    config = TrainConfig(float_epochs=8, quantised_epochs=0)
    result = train(build_model("mlp", data), data, config, QuantConfig())
    assert result.float_accuracy > 0.9
    assert result.quantised_accuracy > result.float_accuracy - 0.02


@pytest.mark.parametrize(("share", "batches"), [(0.0, 0), (0.25, 2), (0.5, 5), (0.79, 8), (1.0, 10)])
def test_norms_take_the_statistics_of_so_many_batches(share, batches):
    """Two epochs of five steps; a batch norm counts the batches whose statistics it used."""
    result = train(dropout_net(), few_digits(), dataclasses.replace(QUICK, freeze_norms=share), QUANT)
    counts = [
        model.get_submodule("1").num_batches_tracked for model in (result.float_model, result.quantised_model)
    ]
    assert counts[1] - counts[0] == batches
    assert not result.quantised_model.get_submodule("1").frozen


def test_frozen_norms_are_trained_by_the_numbers_of_evaluation():
    """The gradient that reaches the weights is that of the network which is built."""
    data = few_digits(64)
    model = convert(dropout_net(), QuantConfig(scales="fixed<3>", biases="fixed<3>"), torch.rand(2, 1, 8, 8))
    seen: list[float] = []
    config = dataclasses.replace(QUICK, batch_size=64, freeze_norms=0.5)
    model.get_submodule("3").p = 0.0
    samples = torch.from_numpy(data.train_x).float()
    expected: list[float] = []

    def look(progress: Progress) -> None:
        seen.append(progress.loss)
        with torch.no_grad():
            outputs = copy.deepcopy(model).eval()(samples)
        expected.append(float(nn.functional.cross_entropy(outputs, torch.from_numpy(data.train_y))))

    Phase("quantised", 4, 1e-2, config, None, "").run(model, data, look)
    # One batch holds all samples: a step's loss is that of the network which the step before it left.
    assert seen[2:] == pytest.approx(expected[1:3], rel=1e-4)
    assert abs(seen[1] - expected[0]) > 1e-3


def test_a_step_is_made_anew_once_norms_are_frozen():
    """A recorded step would go on with the statistics of each batch."""
    made: list[bool] = []

    class Watched(Phase):
        def step_of(self, model, *rest):
            made.append(model.get_submodule("1").frozen)
            return super().step_of(model, *rest)

    model = convert(dropout_net(), QUANT, torch.rand(2, 1, 8, 8))
    Watched("quantised", 2, 1e-3, QUICK, None, "").run(model, few_digits(), None)
    assert made == [False, True]


def test_predictions_in_float64_leave_the_model_alone():
    data = few_digits()
    result = train(dropout_net(), data, QUICK, QUANT)
    outputs = predict(result.quantised_model, data.test_x, dtype=torch.float64, batch_size=100)
    assert outputs.dtype == np.float64
    assert outputs.shape == (len(data.test_x), 10)
    assert next(result.quantised_model.parameters()).dtype == torch.float32
    whole = predict(result.quantised_model, data.test_x, dtype=torch.float64, batch_size=10**6)
    assert np.array_equal(outputs, whole)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"float_epochs": -1}, "float_epochs is -1"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"quantised_learning_rate": 0.0}, "quantised_learning_rate is 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"quantised_epochs": 1.5}, "quantised_epochs is 1.5"),
        ({"float_epochs": True}, "float_epochs is True"),
        ({"weight_decay": None}, "weight_decay is None"),
        ({"freeze_norms": 1.5}, "freeze_norms is 1.5"),
        ({"freeze_norms": -0.1}, "freeze_norms is -0.1"),
        ({"freeze_norms": True}, "freeze_norms is True"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(InputError, match=says):
        TrainConfig(**settings)


ONE_EPOCH = TrainConfig(float_epochs=1, quantised_epochs=1, batch_size=32, learning_rate=1e-2)


def linear_net(*rest: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), *(rest or (nn.Linear(12, 10),))
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_nets_in_other_types(dtype):
    result = train(linear_net().to(dtype), load_dataset("digits"), ONE_EPOCH, QUANT)
    wanted = torch.float64 if dtype is torch.float64 else torch.float32
    assert {p.dtype for p in result.float_model.parameters()} == {wanted}
    assert result.quantised_accuracy > 0.6


def test_lazy_layers():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(12), nn.ReLU(), nn.LazyLinear(10))
    assert train(model, load_dataset("digits"), ONE_EPOCH, QUANT).quantised_accuracy > 0.6


def test_a_head_of_one_pixel():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 6))
    result = train(model, load_dataset("digits"), ONE_EPOCH, QUANT)
    assert predict(result.quantised_model, load_dataset("digits").test_x[:3]).shape == (3, 10, 1, 1)
    assert result.quantised_accuracy > 0.6


def test_frozen_parameters_are_not_trained():
    model = linear_net()
    model[1].requires_grad_(False)
    result = train(model, load_dataset("digits"), ONE_EPOCH, QUANT)
    for trained in (result.float_model, result.quantised_model):
        assert torch.equal(trained.get_submodule("1").weight, model[1].weight)
        assert not torch.equal(trained.get_submodule("4").weight, model[4].weight)
    whole = train(model.requires_grad_(False), load_dataset("digits"), ONE_EPOCH, QUANT)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.float_model.parameters(), model.parameters(), strict=True)
    )
    assert torch.equal(whole.quantised_model.get_submodule("4").weight, model[4].weight)


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ((nn.Linear(12, 5),), r"gives \(5,\).*targets for \(10,\)[\s\S]*nn\.Linear\(…, 10\)"),
        ((nn.Linear(12, 1),), r"gives \(1,\)"),
        ((nn.Linear(12, 40), nn.Unflatten(1, (10, 2, 2))), r"\(10, 2, 2\)[\s\S]*AdaptiveAvgPool2d"),
    ],
)
def test_outputs_that_are_no_classes(rest, says):
    with pytest.raises(InputError, match=says):
        train(linear_net(*rest), load_dataset("digits"), ONE_EPOCH, QUANT)
