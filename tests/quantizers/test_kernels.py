"""The compiled kernels against the eager ones (same bits), and both against the formats themselves."""

from __future__ import annotations

import ast
import itertools
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qhw import native
from qhw.errors import ToolMissingError, UnsupportedError
from qhw.formats.fixed import Fixed
from qhw.formats.modes import Overflow, Rounding
from qhw.quantizers import IDENTITY, RELU, RELU6, Rule, kernels, leaky_relu, quantize
from qhw.quantizers.kernels import build, eager
from qhw.quantizers.kernels.compiled import Compiled
from qhw.quantizers.kernels.problem import Operands, same_order, units_of

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

ACTIVATIONS = (IDENTITY, RELU, RELU6, leaky_relu(0.125))


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int64)


def assert_same_bits(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert torch.equal(bits(a), bits(b))


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return Compiled(build.library())


def legal_modes() -> list[tuple[Rounding, Overflow]]:
    return list(itertools.product(Rounding, Overflow))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Operands, Tensor, np.ndarray, Rule]:
    """Any shape, memory order, operands and rule, with plenty of ties and overflows."""
    shape = draw(
        st.sampled_from([(1,), (17,), (5000,), (3, 5), (2, 3, 40), (2, 5, 3, 7), (1, 3, 40, 41), (200, 96)])
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))

    def numbers() -> Tensor:
        fine = torch.randn(shape, generator=generator, dtype=dtype) * 6
        halves = torch.randint(-40, 40, shape, generator=generator).to(dtype) / 4
        return torch.where(torch.rand(shape, generator=generator) < 0.5, fine, halves)

    x = numbers()
    axis = draw(st.sampled_from([None, *range(len(shape))]))
    if len(shape) == 4 and axis in (None, 1) and draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    channels = 1 if axis is None else shape[axis]
    kind = draw(st.sampled_from(["plain", "add", "affine"]))
    gain = torch.randn(channels, generator=generator, dtype=torch.float64)
    operands = {
        "plain": Operands(x, axis=axis),
        "add": Operands(x, same_order(numbers(), x), axis=axis),
        "affine": Operands(x, gain=gain, offset=gain.flip(0), axis=axis),
    }[kind]
    rule = Rule(
        width=draw(st.integers(1, 30)),
        signed=draw(st.booleans()),
        rounding=draw(st.sampled_from(Rounding)),
        overflow=draw(st.sampled_from(Overflow)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        passes_outside=draw(st.booleans()),
        free=draw(st.booleans()),
    )
    theta = torch.rand(channels, generator=generator) * 15 - 3
    return operands, same_order(numbers(), x), units_of(theta, rule), rule


@needs_compiler
@settings(max_examples=400, deadline=None)
@given(problem=problems())
def test_compiled_gives_the_bits_of_eager(compiled: Compiled, problem: tuple) -> None:
    operands, grad, unit, rule = problem
    assert_same_bits(compiled.forward(operands, unit, rule), eager.forward(operands, unit, rule))
    for ours, theirs in zip(
        compiled.backward(operands, grad, unit, rule),
        eager.backward(operands, grad, unit, rule),
        strict=True,
    ):
        assert_same_bits(ours, theirs)
    if operands.gain is None:
        return
    assert_same_bits(
        compiled.affine_sums(operands, grad, unit, rule),
        eager.affine_sums(operands, grad, unit, rule),
    )
    constants = (operands.gain, operands.gain * 2)
    assert_same_bits(
        compiled.affine_backward(operands, grad, unit, rule, *constants),
        eager.affine_backward(operands, grad, unit, rule, *constants),
    )
    if operands.axis is not None:
        assert_same_bits(
            compiled.moments(operands.x, operands.axis), eager.moments(operands.x, operands.axis)
        )


@pytest.mark.parametrize(("rounding", "overflow"), legal_modes())
@pytest.mark.parametrize("signed", [True, False])
def test_values_are_those_of_the_format(rounding: Rounding, overflow: Overflow, signed: bool) -> None:
    """Exhaustive over sixteenths well beyond the range; the format itself is checked against ap_fixed."""
    if overflow is Overflow.WRAP_SM and not signed:
        return
    fixed = Fixed(5, 3, signed, rounding, overflow)
    x = torch.arange(-1024, 1024, dtype=torch.float32) / 32
    theta = torch.tensor(float(fixed.fraction))
    expected = torch.from_numpy(fixed.quantize(x.numpy()))
    assert torch.equal(quantize(x, theta, Rule.of(fixed)).double(), expected)
    with kernels.use_eager():
        assert torch.equal(quantize(x, theta, Rule.of(fixed)).double(), expected)


@given(
    width=st.integers(1, 50),
    integer=st.integers(-8, 40),
    values=st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=20),
    modes=st.sampled_from(legal_modes()),
)
@settings(max_examples=300, deadline=None)
def test_wide_formats_in_float64(
    width: int, integer: int, values: list[float], modes: tuple[Rounding, Overflow]
) -> None:
    fixed = Fixed(width, integer, True, *modes)
    x = torch.tensor(values, dtype=torch.float64)
    units = x.abs() * 2.0**fixed.fraction  # from 2^-1000 on: below, x/s may underflow
    x = torch.where((units < 2.0**52) & (units > 2.0**-1000), x, 0.0)
    y = quantize(x, torch.tensor(float(fixed.fraction)), Rule.of(fixed))
    assert np.array_equal(y.numpy(), fixed.quantize(x.numpy()))


@needs_compiler
def test_sums_do_not_depend_on_the_number_of_threads(compiled: Compiled) -> None:
    torch.manual_seed(0)
    x, grad = torch.randn(2, 300_000)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(compiled.backward(Operands(x), grad, np.array([4]), Rule(6))[1])
    torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_not_a_number_stays_one() -> None:
    x = torch.tensor([float("nan"), 1.0])
    for activation in ACTIVATIONS:
        y = quantize(x, torch.tensor(4.0), Rule(8, activation=activation))
        assert y.isnan().tolist() == [True, False]


def test_a_saturated_number_stays_inside_the_format_in_float32() -> None:
    """2^31 - 1 is no float32: the largest one below it is taken, not 2^31."""
    y = quantize(torch.tensor([1e30, -1e30]), torch.tensor(0.0), Rule(32))
    assert y.tolist() == [2.0**31 - 2.0**7, -(2.0**31)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(UnsupportedError, match="float32 and float64"):
        quantize(torch.ones(3, dtype=dtype), torch.tensor(0.0), Rule(8))


def test_empty_tensors() -> None:
    x = torch.empty(0, 3, requires_grad=True)
    theta = torch.zeros(3, requires_grad=True)
    quantize(x, theta, Rule(8), axis=1).sum().backward()
    assert theta.grad is not None
    assert theta.grad.tolist() == [0.0, 0.0, 0.0]


@needs_compiler
def test_the_library_is_compiled_once(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()
    first = build.library()
    build.library.cache_clear()
    second = build.library()
    build.library.cache_clear()
    assert (first.cached, second.cached) == (False, True)
    assert first.path == second.path
    assert second.compile_seconds == pytest.approx(first.compile_seconds, abs=1e-3)
    assert first.path.is_relative_to(tmp_path)


def test_without_a_compiler_the_eager_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.shutil, "which", lambda _: None)
    build.library.cache_clear()
    kernels._default.cache_clear()
    with pytest.raises(ToolMissingError, match="g\\+\\+ is not installed"):
        build.library()
    assert kernels.backend() is eager
    assert kernels.status() == kernels.Status("eager", reason="g++ is not installed")
    monkeypatch.undo()
    build.library.cache_clear()
    kernels._default.cache_clear()


@needs_compiler
def test_status_reports_the_compile_time() -> None:
    status = kernels.status()
    assert status.name == "compiled"
    assert status.compile_seconds is not None
    assert status.compile_seconds > 0
    with kernels.use_eager():
        assert kernels.status() == kernels.Status("eager", reason="asked for")


@needs_compiler
def test_one_pool_of_threads() -> None:
    """The kernels and torch use one and the same OpenMP library."""
    script = (
        "import torch; from qhw.quantizers.kernels.build import library\n"
        "torch.ones(100_000).add(1); library().load()\n"
        "print({line.split()[-1] for line in open('/proc/self/maps') if 'gomp' in line or 'iomp' in line})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert len(ast.literal_eval(done.stdout)) == 1, done.stdout
