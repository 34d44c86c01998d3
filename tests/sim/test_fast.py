"""The fast executor against the interpreter: the same codes on every operation, backend and lane width."""

import subprocess
import sys

import numpy as np
import pytest
from graph_factory import resnet8_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import ALL_OPERATIONS, operations_of, random_graph, random_inputs

from qhw.errors import InputError
from qhw.formats import Fixed, parse_format
from qhw.formats.integer import Integer
from qhw.formats.modes import Overflow, Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import InputEncoding
from qhw.sim import plan
from qhw.sim.backends import (
    CheckedConvolution,
    TorchBackend,
    exact_float,
    product_bound,
    select_backend,
    split_weight,
)
from qhw.sim.compare import compare
from qhw.sim.fast import FastExecutor
from qhw.sim.native import elementwise_kernel

torch = pytest.importorskip("torch")


def assert_same(graph, inputs, executor):
    """All layers one by one, then the outputs with everything fused, equal the interpreter's."""
    expected = interpret(graph, inputs, keep="all")
    for keep in ("all", "outputs"):
        result = executor(inputs, keep=keep)
        assert set(result) == (set(expected) if keep == "all" else set(graph.outputs))
        compare(graph, expected, result, names=("interpreter", executor.backend)).require_equal()


def executor_without(graph, monkeypatch, *, int8=True, kernel=True, batch=256):
    """An executor as a machine without 8-bit dot products, or without a compiler, has it."""
    if not kernel:
        monkeypatch.setattr(plan, "elementwise_kernel", lambda: None)
    executor = FastExecutor(graph, "torch", batch=batch)
    if not int8:
        executor._backend = TorchBackend(use_int8=False)
    return executor


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([20, 40, 70]), st.sampled_from(["torch", "numpy"]))
def test_random_graphs(seed, widest, backend):
    graph = random_graph(seed, widest=widest)
    assert_same(graph, random_inputs(graph, 4, seed), FastExecutor(graph, backend, batch=3))


@pytest.mark.parametrize("missing", ["int8", "kernel"])
def test_random_graphs_on_lesser_machines(missing, monkeypatch):
    for seed in range(25):
        graph = random_graph(seed)
        executor = executor_without(graph, monkeypatch, **{missing: False})
        assert_same(graph, random_inputs(graph, 3, seed), executor)


def test_random_graphs_cover_every_operation():
    assert set.union(*(operations_of(random_graph(seed)) for seed in range(40))) == ALL_OPERATIONS


@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_resnet8(backend):
    graph = resnet8_graph()
    inputs = random_inputs(graph, 6)
    executor = FastExecutor(graph, backend, batch=4)
    assert_same(graph, inputs, executor)
    assert np.unique(executor(inputs)["fc"]).size > 50


def test_resnet8_runs_in_a_dozen_fused_steps_of_32_bit_lanes():
    graph = resnet8_graph()
    planner = plan.ExecutionPlanner(graph, select_backend("torch"), frozenset(graph.outputs), 1)
    chains = [planner._grow(node, set(graph.tensors))[1] for node in graph.nodes if node.op == "Conv"]
    assert len(planner.plan()) == 12
    assert all(planner._peak(chain) < 2**31 for chain in chains)


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("overflow", Overflow)
@pytest.mark.parametrize("bits", [12, 45])
def test_every_mode_on_every_tie(rounding, overflow, bits):
    """All 4096 codes of 12 bits, per channel with other shifts; 45 bits take the 64-bit lanes."""
    builder = GraphBuilder("modes")
    x = builder.input("x", (4,), Integer(bits), exponent=-5)
    scale = builder.constant("scale", np.array([1, 1, 3, -1]))
    y = builder.affine("affine", x, scale)
    y = builder.requant("requant", y, Integer(6), -2, rounding=rounding, overflow=overflow)
    graph = builder.finish([y])
    codes = np.arange(-2048, 2048).repeat(4).reshape(-1, 4) << (bits - 12) // 8
    assert_same(graph, {"x": codes}, FastExecutor(graph, "torch"))
    assert_same(graph, {"x": codes}, FastExecutor(graph, "numpy"))


@pytest.mark.parametrize("value", [-1, 255, 256, 1664])
@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_padding_beyond_the_type_that_a_product_reads(backend, value):
    """A convolution reads bytes; what is put around them for the other reader does not fit one."""
    builder = GraphBuilder("padded")
    encoding = InputEncoding(1.0, 0.0, 0, 200, Rounding.RND_CONV, exact=True)
    x = builder.input("x", (3, 5, 5), Integer(12), 0, encoding)
    ones = builder.constant("ones", np.ones((2, 3, 3, 3), dtype=np.int64))
    wide = builder.pad("pad", x, (0, 1, 0, 0, 0, 1), value)
    outputs = [builder.conv("conv", x, ones), builder.requant("requant", wide, Integer(8), 2)]
    graph = builder.finish(outputs)
    codes = np.random.default_rng(0).integers(0, 201, (4, 3, 5, 5))
    assert_same(graph, {"x": codes}, FastExecutor(graph, backend))


@pytest.mark.parametrize("layout", ["channels last", "rows"])
def test_thresholds_at_and_beside_every_step(layout):
    builder = GraphBuilder("steps")
    x = builder.input("x", (3, 4, 5), Integer(16))
    if layout == "channels last":
        ones = builder.constant("ones", np.eye(3, dtype=np.int64).reshape(3, 3, 1, 1))
        x = builder.conv("conv", x, ones)
    thresholds = np.sort(np.random.default_rng(0).choice(60000, (3, 255), replace=False) - 30000, axis=1)
    thresholds[1, -1] = 2**40
    levels = np.stack([np.arange(-128, 128), np.arange(127, -129, -1), np.zeros(256, dtype=np.int64)])
    constants = builder.constant("thresholds", thresholds), builder.constant("levels", levels)
    graph = builder.finish([builder.threshold("threshold", x, *constants, Integer(8))])
    near = np.clip(thresholds[:, :, None] + np.array([-1, 0, 1]), -32768, 32767).reshape(3, -1)
    codes = np.resize(near, (3, 40, 20)).transpose(1, 0, 2).reshape(40, 3, 4, 5)
    assert_same(graph, {"x": codes}, FastExecutor(graph, "torch"))


def weighted_sum(weight, low, high):
    """A graph that sums one input with itself, weighted, over one 3x3 window."""
    builder = GraphBuilder("sum")
    bits = max(abs(low), abs(high)).bit_length() + 1
    x = builder.input("x", (len(weight[0]), 3, 3), Integer(bits))
    return builder.finish([builder.conv("conv", x, builder.constant("w", weight))])


@pytest.mark.parametrize("backend", ["torch", "numpy"])
@pytest.mark.parametrize("bits", [24, 31, 53, 62, 80])
def test_sums_at_the_edge_of_each_arithmetic(backend, bits):
    """Sums within a few units of a power of two: float32, float64, integers, Python integers."""
    random = np.random.default_rng(bits)
    x_bits = bits // 2
    top = (1 << (bits - x_bits)) // 18
    weight = random.integers(max(1, top - 9), top + 2, (4, 2, 3, 3))
    graph = weighted_sum(weight, -(1 << x_bits), 1 << x_bits)
    high = 1 << (x_bits - 0)
    codes = random.integers(max(-high, -(2**62)), high - 1, (5, 2, 3, 3), endpoint=True)
    codes[0], codes[1] = high - 1, -high
    assert_same(graph, {"x": codes}, FastExecutor(graph, backend))


@pytest.mark.parametrize("int8", [True, False])
@pytest.mark.parametrize("low", [0, -128])
def test_byte_sums_beyond_float32_are_split(int8, low, monkeypatch):
    """1152 products of bytes reach 2^25, where float32 drops the last bit."""
    random = np.random.default_rng(0)
    builder = GraphBuilder("wide")
    x = builder.input("x", (128, 5, 4), Integer(8, low < 0))
    weight = random.integers(115, 128, (3, 128, 3, 3))
    graph = builder.finish([builder.conv("conv", x, builder.constant("w", weight), pads=(1, 0, 1, 2))])
    high = low + 255
    codes = random.integers(high - 3, high, (4, 128, 5, 4), endpoint=True)
    codes[1] = low
    result = interpret(graph, {"x": codes})["conv"]
    assert (result.astype(np.float32).astype(np.int64) != result).any() or low
    executor = executor_without(graph, monkeypatch, int8=int8)
    assert len(split_weight(weight, (low, high))) > 1
    assert_same(graph, {"x": codes}, executor)


@pytest.mark.parametrize(
    ("activations", "weights", "kind"),
    [
        ("int8", "int8", np.float32),
        ("e2m1", "e2m1", np.float32),
        ("ufixed<8>", "khot<8,2>", np.float32),
        ("int8", "e3m2", np.float32),
        ("e3m2", "e3m2", np.float64),
        ("e4m3", "khot<8,2>", np.float64),
        ("e4m3", "e4m3", np.float64),
        ("e5m2", "e5m2", None),
    ],
)
def test_sums_of_any_formats_run_in_the_narrowest_float_that_holds_them(activations, weights, kind):
    """A 3x3 convolution over 16 channels, of all the largest numbers: at matrix speed up to 53 bits."""
    a, w = (parse_format(text) for text in (activations, weights))
    a, w = (Integer(f.width, f.signed) if isinstance(f, Fixed) else f for f in (a, w))
    builder = GraphBuilder("g")
    x = builder.input("x", (16, 5, 5), a)
    random = np.random.default_rng(0)
    weight = random.choice(w.mantissa_of(w.codes()), (8, 16, 3, 3))
    weight[0] = w.mantissa_high
    y = builder.conv("conv", x, builder.constant("w", weight, w), pads=[1, 1, 1, 1])
    graph = builder.finish([y])
    mantissas = random.choice(a.mantissa_of(a.codes()), (3, 16, 5, 5))
    mantissas[0] = a.mantissa_high
    executor = FastExecutor(graph)
    assert_same(graph, {"x": mantissas}, executor)
    bound = product_bound(weight, (a.mantissa_low, a.mantissa_high))
    assert exact_float(bound) == (None if kind is None else np.dtype(kind))
    planner, _ = executor._planned(frozenset(graph.outputs))
    assert bool(planner._products) == (kind is not None)


def test_float_types_are_chosen_below_their_bounds():
    assert exact_float(2**24 - 1) == np.float32
    assert exact_float(2**24) == np.float64
    assert exact_float(2**53 - 1) == np.float64
    assert exact_float(2**53) is None


def test_reduced_precision_settings_are_overridden_and_restored():
    graph = resnet8_graph()
    inputs = random_inputs(graph, 4)
    expected = interpret(graph, inputs)["fc"]
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    nnpack = torch._C._get_nnpack_enabled()
    try:
        executor = FastExecutor(graph, "torch")
        executor._backend = TorchBackend(use_int8=False)
        assert (executor(inputs)["fc"] == expected).all()
        assert torch.backends.mkldnn.conv.fp32_precision == "bf16"
        assert torch._C._get_nnpack_enabled() == nnpack
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.mkldnn.conv.fp32_precision = "none"


def test_exact_arithmetic_leaves_a_gpu_no_other_way():
    """cuDNN, which may transform a convolution, is off, and TF32 with it; both are as before afterwards."""
    backend = TorchBackend()
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with backend.exact_arithmetic():
            assert not torch.backends.cudnn.enabled
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cudnn.enabled
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_named():
    graph = resnet8_graph()
    with pytest.raises(InputError, match=r"device cuda:2 is not there[\s\S]*cpu, auto"):
        FastExecutor(graph, device="cuda:2")
    with pytest.raises(InputError, match="device is 'gpu'"):
        FastExecutor(graph, device="gpu")
    with pytest.raises(InputError, match="the backend 'numpy' runs on the CPU, not on cuda"):
        FastExecutor(graph, "numpy", device="cuda")
    assert FastExecutor(graph, device="auto").backend == "torch"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_on_a_gpu(seed):
    graph = random_graph(seed, widest=40)
    assert_same(graph, random_inputs(graph, 4, seed), FastExecutor(graph, batch=3, device="cuda"))


@pytest.mark.parametrize("int8", [True, False])
def test_shapes_that_onednn_gets_wrong(int8, monkeypatch):
    """One channel, one output column, a stride of 2: oneDNN 3.12 read the wrong inputs."""
    builder = GraphBuilder("narrow")
    x = builder.input("x", (1, 9, 3), Integer(8, False))
    weight = builder.constant("w", np.random.default_rng(0).integers(-127, 128, (8, 1, 3, 3)))
    graph = builder.finish([builder.conv("conv", x, weight, strides=(1, 2))])
    assert_same(graph, random_inputs(graph, 4), executor_without(graph, monkeypatch, int8=int8))


def test_a_wrong_library_convolution_is_replaced():
    def exact(x):
        return x.astype(np.float32) * 2

    def wrong(x):
        out = exact(x)
        out[-1, 0, 0, 0] += 1
        return out

    x = np.ones((20, 1, 2, 2), dtype=np.uint8)
    assert (CheckedConvolution(wrong, exact, (0, 255))(x) == exact(x)).all()


def test_long_and_empty_batches():
    graph = resnet8_graph()
    inputs = random_inputs(graph, 7)
    whole = FastExecutor(graph)(inputs)["fc"]
    assert (FastExecutor(graph, batch=3)(inputs)["fc"] == whole).all()
    assert FastExecutor(graph)({"image": np.empty((0, 1, 28, 28), dtype=np.int64)})["fc"].shape == (0, 10)


def test_results_do_not_share_memory_with_the_next_run():
    graph = resnet8_graph()
    executor = FastExecutor(graph)
    first, second = (random_inputs(graph, 3, seed) for seed in (1, 2))
    kept = executor(first, keep="all")
    copies = {name: x.copy() for name, x in kept.items()}
    executor(second, keep="all")
    assert all((kept[name] == copies[name]).all() for name in kept)


def test_bad_input_is_named():
    graph = resnet8_graph()
    executor = FastExecutor(graph)
    with pytest.raises(InputError, match="no array is given for input 'image'"):
        executor({})
    with pytest.raises(InputError, match=r"input 'image' has shape \(2, 28, 28\)"):
        executor({"image": np.zeros((2, 28, 28), dtype=np.int64)})
    with pytest.raises(InputError, match="input 'image' has type float64"):
        executor({"image": np.full((1, 1, 28, 28), 0.5)})
    with pytest.raises(InputError, match="holds mantissas from 0 to 256"):
        executor({"image": np.arange(784).reshape(1, 1, 28, 28) % 257})
    with pytest.raises(InputError, match="no tensor nothing to keep"):
        executor(random_inputs(graph, 1), keep=["nothing"])
    with pytest.raises(InputError, match="unknown backend 'cuda'"):
        FastExecutor(graph, "cuda")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from qhw.sim.fast import FastExecutor
from graph_factory import resnet8_graph
from random_graphs import random_inputs
graph = resnet8_graph()
executor = FastExecutor(graph)
assert executor.backend == "numpy"
print(executor(random_inputs(graph, 4))["fc"].tolist())
"""


def test_without_torch_the_codes_are_the_same():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "HOME": "/nonexistent", "PATH": ""},
    )
    graph = resnet8_graph()
    assert done.stdout.strip() == str(interpret(graph, random_inputs(graph, 4))["fc"].tolist())


def test_without_a_compiler_there_is_no_kernel(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    caplog.set_level("INFO")
    assert elementwise_kernel.__wrapped__() is None
    assert "g++ is not installed" in caplog.text
