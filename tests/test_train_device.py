"""Training elsewhere than on the CPU, as far as a CPU can show it: names, moving, recording, resuming."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_train import QUANT, QUICK, dropout_net, few_digits
from torch import Tensor, nn

from qhw import train as training
from qhw.accelerator import CPU, Batches, RecordedStep, memory_of, move
from qhw.checkpoints import weights_hash
from qhw.convert import QuantConfig, convert
from qhw.errors import InputError
from qhw.formats import Fixed
from qhw.quantizers import FixedQuantizer, functional, kernels
from qhw.quantizers.kernels import eager
from qhw.torch_device import chosen_device, is_device
from qhw.train import TrainConfig, train

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


@pytest.mark.parametrize("name", ["cpu", "auto", "cuda", "cuda:0", "cuda:12"])
def test_names_of_devices(name):
    assert is_device(name)
    assert TrainConfig(device=name).device == name


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "", 0, None])
def test_what_is_no_device(name):
    assert not is_device(name)
    with pytest.raises(InputError, match=r"training setting device is .*\n.*cpu, cuda, cuda:N, auto"):
        TrainConfig(device=name)


def test_what_is_no_precision():
    with pytest.raises(InputError, match=r"training setting precision is 'fp8'\nAllowed: float32, bf16"):
        TrainConfig(precision="fp8")


@without_gpu
def test_a_gpu_that_is_not_there_is_refused_before_anything_else():
    assert chosen_device("auto") == CPU
    config = dataclasses.replace(QUICK, device="cuda:1")
    with pytest.raises(InputError, match=r"device cuda:1 is not there: .* sees 0 CUDA devices\n.*cpu, auto"):
        train(dropout_net(), few_digits(), config, QUANT)


@without_gpu
def test_auto_is_the_cpu_without_a_gpu():
    """The same weights, and the same checkpoints."""
    first, second = (
        train(dropout_net(), few_digits(), dataclasses.replace(QUICK, device=device), QUANT)
        for device in ("cpu", "auto")
    )
    assert weights_hash(first.quantised_model) == weights_hash(second.quantised_model)


def test_used_up_memory_is_one_message():
    with (
        pytest.raises(
            InputError, match=r"cuda:0 has not enough memory.*batches of 128\n.*batch_size to 64; kept"
        ),
        memory_of(torch.device("cuda:0"), 128, lambda: "kept"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_used_up_memory_keeps_the_checkpoint(tmp_path, monkeypatch):
    """The message says what is kept, and a run with the same settings goes on from there."""
    expected = weights_hash(train(dropout_net(), few_digits(), QUICK, QUANT).quantised_model)
    steps = iter(range(7))  # five steps are an epoch
    whole = training._train_step

    def until_full(*arguments):
        if next(steps, None) is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(*arguments)

    monkeypatch.setattr(training, "_train_step", until_full)
    with pytest.raises(
        InputError, match=r"batch_size to 16; the checkpoint after epoch 1 of the float phase"
    ):
        train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=tmp_path)
    monkeypatch.setattr(training, "_train_step", whole)
    result = train(dropout_net(), few_digits(), QUICK, QUANT, checkpoints=tmp_path)
    assert weights_hash(result.quantised_model) == expected


def test_a_shared_scale_stays_shared_when_a_model_moves():
    first, second = FixedQuantizer(Fixed(8)), FixedQuantizer(Fixed(8))
    second.share_scale(first)
    model = nn.ModuleList([first, second])
    move(model, torch.device("meta"))
    assert first.started.device.type == "meta"
    assert first.started is second.started
    assert first.theta is second.theta


def test_batches_on_a_device_are_those_of_the_cpu():
    data = few_digits()
    chosen = np.array([[3, 5, 9], [0, 1, 159]])
    pairs = zip(Batches.of(data, CPU).epoch(chosen), Batches.holding(data, CPU).epoch(chosen), strict=True)
    for copied, held in pairs:
        for a, b in zip(copied, held, strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


def repeating(
    step: Callable[..., Tensor], samples: Tensor, targets: Tensor
) -> tuple[Callable[[], object], Tensor]:
    """A recorder without a GPU: repeats the step on what lies in the tensors, as a CUDA graph does."""
    loss = torch.zeros(())
    return lambda: loss.copy_(step(samples, targets)), loss


def failing(
    step: Callable[..., Tensor], samples: Tensor, targets: Tensor
) -> tuple[Callable[[], object], Tensor]:
    raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


@pytest.mark.parametrize("record", [repeating, failing])
def test_recorded_steps_are_the_steps(record, caplog):
    """Whether they can be recorded or not: the same batches in the same order, one warning at most."""
    seen: list[tuple[float, int]] = []

    def step(samples: Tensor, targets: Tensor) -> Tensor:
        seen.append((float(samples[0]), int(targets[0])))
        return samples.sum()

    recorded = RecordedStep(step, record)
    batches = [(torch.full((2,), float(i)), torch.full((2,), i)) for i in range(8)]
    losses = [float(recorded(*batch)) for batch in batches]
    assert losses == [2.0 * i for i in range(8)]
    assert seen == [(float(i), i) for i in range(8)]
    assert recorded.is_recorded == (record is repeating)
    assert len(caplog.records) == (record is failing)
    if record is failing:
        assert caplog.text.count("operation not permitted") == 1
        assert "more of it" not in caplog.text


@pytest.mark.parametrize(
    "quant",
    [QuantConfig(), QuantConfig(scaling="free"), QuantConfig(weights="e4m3", per_channel=True)],
    ids=["fixed", "free", "minifloats"],
)
def test_a_step_stays_on_its_device(quant, monkeypatch):
    """Forward and backward where tensors have no numbers: what reads one back, or stays on the CPU, fails.

    Reading one waits for a GPU, and a step that does cannot be recorded.
    """
    monkeypatch.setattr(kernels, "_chosen", [eager])
    monkeypatch.setattr(functional, "_check", lambda x: None)
    samples = torch.from_numpy(few_digits().train_x[:8]).float()
    model = convert(dropout_net(), quant, samples[:2]).train()
    model(samples), model(samples)
    move(model, torch.device("meta"))
    loss = nn.functional.cross_entropy(model(samples.to("meta")), torch.zeros(8, device="meta").long())
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert {gradient.device.type for gradient in gradients.values()} == {"meta"}
    with pytest.raises(RuntimeError, match="item"):
        loss.item()


def test_bf16_trains_with_exact_quantizers():
    """Products in bfloat16; what quantizers give is still on their grids, and the network learns."""
    data = few_digits(640)
    config = dataclasses.replace(QUICK, float_epochs=6, precision="bf16")
    result = train(dropout_net(), data, config, QUANT)
    assert {p.dtype for p in result.quantised_model.parameters()} == {torch.float32}
    assert result.quantised_accuracy > 0.6
    other = train(dropout_net(), data, dataclasses.replace(config, precision="float32"), QUANT)
    assert weights_hash(other.quantised_model) != weights_hash(result.quantised_model)
    again = train(dropout_net(), data, config, QUANT)
    assert weights_hash(again.quantised_model) == weights_hash(result.quantised_model)


def test_a_quantizer_under_autocast_is_exact():
    quantizer = FixedQuantizer(Fixed(8, 4))
    x = torch.randn(50).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = quantizer.quantize(x)
    assert torch.equal(y, quantizer.quantize(x.float()))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_gives_the_same(backend):
    data = few_digits()
    samples = torch.from_numpy(data.train_x[:16]).float()
    model = convert(dropout_net(), QUANT, samples[:2]).train()
    model(samples)
    torch.compiler.reset()
    compiled = torch.compile(model.eval(), backend=backend)
    for batch in (samples, samples + 1.0):
        assert torch.equal(compiled(batch), model(batch))
    with torch.no_grad():
        for quantizer in model.modules():
            if isinstance(quantizer, FixedQuantizer):
                quantizer.theta -= 1.0  # a trained binary point is no constant of the compiled form
    assert torch.equal(compiled(samples), model(samples))


@needs_gpu
def test_training_on_a_gpu_repeats_and_resumes(tmp_path):
    config = dataclasses.replace(QUICK, device="cuda")
    results = [
        train(dropout_net(), few_digits(), config, QUANT, checkpoints=tmp_path / "a") for _ in range(2)
    ]
    results.append(train(dropout_net(), few_digits(), config, QUANT))
    assert len({weights_hash(result.quantised_model) for result in results}) == 1
    assert next(results[0].quantised_model.parameters()).device == CPU
    state = torch.load(tmp_path / "a" / "quantised.pt", weights_only=True)
    assert {value.device.type for value in state["model"].values()} == {"cpu"}
