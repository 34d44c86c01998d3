"""The Triton kernels against the eager ones: values and input gradients bit for bit, sums up to their order.

On the CPU they run in Triton's interpreter (one program after the other, so tensors are small); on a machine
with a GPU, on that. Which instructions a GPU is given is looked at in either case.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from test_kernels import problems
from torch import Tensor

from qhw.formats import parse_format
from qhw.formats.modes import Overflow, Rounding
from qhw.quantizers import IDENTITY, RELU, RELU6, FixedQuantizer, Rule, kernels, leaky_relu
from qhw.quantizers.kernels import eager
from qhw.quantizers.kernels.problem import Operands, units_of, units_on

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed (Linux alone has it)", allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

TABLE_FORMATS = ("e4m3", "e5m2", "e2m1", "e3m0", "khot<6,2>", "khot<6,2,csd>", "pow2<4>", "binary", "ternary")


@pytest.fixture(scope="module")
def ours() -> Any:
    """The backend; without a GPU conftest.py has asked for the interpreter, before Triton was imported."""
    from qhw.quantizers.kernels.triton_backend import Triton

    return Triton()


def on(value: Any) -> Any:
    """Operands or a tensor on the device."""
    if isinstance(value, Operands):
        parts = (value.x, value.other, value.gain, value.offset)
        return Operands(*(None if part is None else part.to(DEVICE) for part in parts), axis=value.axis)
    return torch.as_tensor(value).to(DEVICE)


def assert_same_bits(found: Tensor, expected: Tensor) -> None:
    """Equal bits; of a NaN, that it is one."""
    found, integer = found.cpu(), torch.int32 if expected.dtype == torch.float32 else torch.int64
    assert torch.equal(found.isnan(), expected.isnan())
    as_bits = [torch.where(x.isnan(), 0.0, x).contiguous().view(integer) for x in (found, expected)]
    assert torch.equal(*as_bits)


def assert_close(found: Tensor, expected: Tensor, terms: int) -> None:
    """Equal but for the order of summation in float64."""
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-12 * terms, atol=1e-11 * terms)


def check(ours: Any, operands: Operands, grad: Tensor, unit: np.ndarray, rule: Rule) -> None:
    there, size = on(operands), operands.x.numel()
    assert_same_bits(ours.forward(there, on(unit), rule), eager.forward(operands, unit, rule))
    passed, sums = ours.backward(there, on(grad), on(unit), rule)
    expected, expected_sums = eager.backward(operands, grad, unit, rule)
    assert_same_bits(passed, expected)
    assert_close(sums, expected_sums, size)
    if operands.gain is None:
        return
    found = ours.affine_sums(there, on(grad), on(unit), rule)
    assert_close(found, eager.affine_sums(operands, grad, unit, rule), size)
    constants = (operands.gain, operands.gain * 2)
    found = ours.affine_backward(there, on(grad), on(unit), rule, *map(on, constants))
    assert_same_bits(found, eager.affine_backward(operands, grad, unit, rule, *constants))
    if operands.axis is not None:
        found = ours.moments(there.x, operands.axis)
        assert_close(found, eager.moments(operands.x, operands.axis), 100 * size)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(problem=problems())
def test_any_problem(ours: Any, problem: tuple) -> None:
    from qhw.quantizers.kernels.triton_backend import _Tiling

    assume(_Tiling.of(problem[0].layout).programs <= 6)  # the interpreter runs one after the other
    check(ours, *problem)


def edges(dtype: torch.dtype) -> Tensor:
    """Ties and their neighbours, both zeros, denormals, the largest numbers, infinities and NaN."""
    information = torch.finfo(dtype)
    whole = 2.0 ** (23 if dtype == torch.float32 else 52)
    numbers = [information.tiny, information.tiny / 2, information.max, information.max / 4]
    numbers += [information.smallest_subnormal if hasattr(information, "smallest_subnormal") else 2.0**-149]
    numbers += [float("inf"), float("nan"), whole, whole - 1, whole / 2 - 0.5, 2 * whole, 2.0**31]
    numbers += [k / 4 for k in range(48)] + [126.5, 127.0, 127.5, 128.0, 254.5, 255.0, 255.5, 1e10]
    numbers += [0.5 - information.eps / 4, 0.5 + information.eps / 2, 1 - information.eps / 2]
    tensor = torch.tensor(numbers, dtype=dtype)
    return torch.cat([tensor, -tensor])


def edge_rules() -> list[Rule]:
    """Every mode, activation and kind of format, each once at least."""
    activations = [IDENTITY, RELU, RELU6, leaky_relu(0.125)]
    fixed = [
        Rule(8, bool(i % 5), rounding, overflow, activations[i % 4], bool(i % 3))
        for i, (rounding, overflow) in enumerate((r, o) for r in Rounding for o in Overflow)
    ]
    listed = [
        Rule.of(parse_format(text), RELU if i % 2 else IDENTITY) for i, text in enumerate(TABLE_FORMATS)
    ]
    return [
        *fixed,
        *listed,
        *(Rule(width, free=True) for width in (1, 8, 24)),
        Rule.of(parse_format("e4m3"), free=True),
    ]


@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")  # NumPy's, of infinities in the interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edges(ours: Any, dtype: torch.dtype) -> None:
    x = edges(dtype)
    grad = torch.linspace(-3, 3, len(x), dtype=dtype)
    for i, rule in enumerate(edge_rules()):
        for theta in (0.0, (3.0, -100.0, 100.0)[i % 3]):
            unit = units_of(torch.tensor(theta), rule)
            operands = Operands(x)
            assert_same_bits(ours.forward(on(operands), on(unit), rule), eager.forward(operands, unit, rule))
            passed, _ = ours.backward(on(operands), on(grad), on(unit), rule)
            assert_same_bits(passed, eager.backward(operands, grad, unit, rule)[0])


def test_sums_over_many_tiles_are_the_same_every_time(ours: Any) -> None:
    torch.manual_seed(0)
    x, grad = torch.randn(2, 3, 2, 10_000)
    for axis in (None, 0, 1):
        unit = np.full(1 if axis is None else x.shape[axis], 0.125)
        first, second = (
            ours.backward(on(Operands(x, axis=axis)), on(grad), on(unit), Rule(6))[1] for _ in range(2)
        )
        assert torch.equal(first, second)
        assert_close(first, eager.backward(Operands(x, axis=axis), grad, unit, Rule(6))[1], 10_000)


def test_interleaved_channels_beyond_one_tile(ours: Any) -> None:
    torch.manual_seed(1)
    x, grad = torch.randn(2, 70, 130)
    unit = units_of(torch.rand(130) * 6, Rule(6))
    check(
        ours,
        Operands(x, gain=torch.rand(130).double(), offset=torch.rand(130).double(), axis=1),
        grad,
        unit,
        Rule(6),
    )


def test_units_are_those_of_numpy(ours: Any) -> None:
    theta = torch.cat(
        [torch.arange(-120, 121).float() / 1.0, torch.tensor([0.5, 1.5, 2.5, -0.5, 99.5, -0.49])]
    )
    expected = torch.from_numpy(units_of(theta, Rule(8)))
    assert_same_bits(ours.units(on(theta), Rule(8)), expected)
    assert_same_bits(units_on(on(theta), Rule(8)), expected)
    free = Rule(8, free=True)
    small = torch.rand(200) * 20 - 10
    assert_same_bits(ours.units(on(small), free), torch.from_numpy(units_of(small, free)))


@pytest.mark.parametrize("shape", [(0, 3), (5, 3, 0), (2, 0)])
def test_empty_tensors(ours: Any, shape: tuple[int, ...]) -> None:
    x = torch.empty(shape)
    passed, sums = ours.backward(on(Operands(x, axis=1)), on(x), on(np.ones(shape[1])), Rule(8))
    assert passed.shape == shape
    assert sums.tolist() == [0.0] * shape[1]
    assert ours.moments(on(x), 1).tolist() == [[0.0] * shape[1]] * 2


def test_a_quantizer_trains_alike(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole quantizer: the same values and input gradient, θ's gradient but for the order of its sum."""
    torch.manual_seed(2)
    x, grad = torch.randn(2, 6, 50)
    results = []
    for backend in (eager, ours):
        monkeypatch.setattr(kernels, "_chosen", [backend])
        device = "cpu" if backend is eager else DEVICE
        quantizer = FixedQuantizer(parse_format("fixed<6>"), channels=6, axis=0)
        quantizer.start(x)
        quantizer.to(device)
        numbers = x.to(device).requires_grad_()
        y = quantizer.quantize(numbers)
        y.backward(grad.to(device))
        results.append((y.detach().cpu(), numbers.grad, quantizer.theta.grad.cpu()))
    assert_same_bits(results[1][0], results[0][0])
    assert_same_bits(results[1][1], results[0][1].cpu())
    torch.testing.assert_close(results[1][2], results[0][2])


COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from qhw.quantizers.kernels import triton_kernels as k
from qhw.quantizers.kernels.triton_backend import OPTIONS

doubles = {"unit_in", "gain", "offset", "constant", "slope", "table", "partial", "unit_out"}
integers = {"tiles", "outer", "channels", "inner"}
per_tensor = dict(ROWS=1, COLUMNS=4096, INTERLEAVED=False)
per_channel = dict(ROWS=64, COLUMNS=64, INTERLEAVED=True)

def show(kernel, real, **constants):
    kinds = {n: "*fp64" if n in doubles else "i32" if n in integers else "*" + real for n in kernel.arg_names}
    kinds |= dict.fromkeys(constants, "constexpr")
    source, target = ASTSource(kernel, kinds, constants), GPUTarget("cuda", 90, 32)
    print(compile(source, target=target, options=OPTIONS).asm["ptx"])

for real in ("fp32", "fp64"):
    for rounding, overflow, grid, free in [(4, 0, 0, 0), (0, 2, 1, 0), (5, 3, 2, 0), (8, 1, 0, 1)]:
        modes = dict(ROUNDING=rounding, OVERFLOW=overflow, GRID=grid, FREE=free)
        modes |= dict(SLOPE=k.LEAKY, HAS_CAP=True, PASSES=False)
        affine = dict(OPERAND=k.AFFINE, AFFINE_CHANNELS=True, UNIT_CHANNELS=True, other=None, **modes)
        show(k.forward_kernel, real, **affine, **per_channel)
        sums = dict(WITH_DX=True, SUMS=1, WITH_STATISTICS=False)
        sums |= dict.fromkeys(("constant", "slope", "gain", "offset"))
        plain = dict(OPERAND=k.SUM, AFFINE_CHANNELS=False, UNIT_CHANNELS=False, **modes)
        # As for a tensor with one scale: Triton compiles anew where an integer is 1.
        show(k.backward_kernel, real, outer=1, channels=1, **sums, **plain, **per_tensor)
    statistics = dict(WITH_DX=True, SUMS=0, WITH_STATISTICS=True, partial=None)
    show(k.backward_kernel, real, **statistics, **affine, **per_channel)
    show(k.moments_kernel, real, inner=1, **per_channel)
    show(k.unit_kernel, real, LARGEST=100.0, CHANNELS=128)
show(k.finish_kernel, "fp64", TILES=64, CHANNELS=16)
"""


def test_a_gpu_is_given_no_instruction_that_rounds_otherwise() -> None:
    """Nothing is fused, flushed or approximated; only a free scale divides, in float64 and correctly rounded.

    Compiled for an H200's architecture, which needs no GPU.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".entry") == 23
    operations = set(re.findall(r"^\s*(?:@!?%p\d+ )?([a-z][a-z0-9_.]+)\s+%", done.stdout, re.M))
    arithmetic = {name for name in operations if re.search(r"\.(f32|f64)$", name)}
    assert {"mul.rn.f32", "add.rn.f32", "sub.rn.f32", "div.rn.f64"} <= arithmetic
    unusual = {name for name in arithmetic if re.match(r"fma|mad|min|max|rcp|ex2|sqrt|neg|cvt.*ftz", name)}
    assert not unusual
    assert not any("ftz" in name or "approx" in name for name in operations)
    assert {name for name in operations if name.startswith("div.") and ".f" in name} == {"div.rn.f64"}


def test_the_cpu_needs_no_triton() -> None:
    script = (
        "import sys, torch, qhw.train\n"
        "from qhw.quantizers import Rule, quantize\n"
        "quantize(torch.ones(3), torch.tensor(0.0), Rule(8))\n"
        "print('qhw.quantizers.kernels.triton_backend' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


def test_without_triton_a_gpu_runs_the_eager_kernels(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "qhw.quantizers.kernels.triton_backend", None)
    kernels._on_gpu.cache_clear()
    with caplog.at_level("WARNING"):
        assert kernels.backend(torch.device("cuda")) is eager
        assert kernels.backend(torch.device("cuda", 1)) is eager
    assert len(caplog.records) == 1
    assert "slower on the GPU" in caplog.text
    kernels._on_gpu.cache_clear()
