"""The interpreter against onnxruntime on small integers, where its float32 arithmetic is exact."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from qhw.errors import InputError
from qhw.formats.integer import Integer
from qhw.formats.modes import Overflow, Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import Exponent
from qhw.sim.fast import FastExecutor


def onnxruntime_run(op, arrays, **attributes):
    """One ONNX operation, executed by onnxruntime in float32."""
    names = [f"i{i}" for i in range(len(arrays))]
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(op, names, ["y"], **attributes)], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {n: a.astype(np.float32) for n, a in zip(names, arrays, strict=True)})
    assert np.abs(result).max() < 2**24
    return result.astype(np.int64)


@st.composite
def windows(draw, spatial_rank):
    """Sizes, kernel, strides, pads and dilations of a window that fits."""
    kernel = draw(st.lists(st.integers(1, 3), min_size=spatial_rank, max_size=spatial_rank))
    dilations = draw(st.lists(st.integers(1, 2), min_size=spatial_rank, max_size=spatial_rank))
    pads = [draw(st.integers(0, (k - 1))) for k in (*kernel, *kernel)]
    strides = draw(st.lists(st.integers(1, 3), min_size=spatial_rank, max_size=spatial_rank))
    sizes = [(k - 1) * d + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilations, strict=True)]
    return sizes, kernel, strides, pads, dilations


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2), st.data())
def test_conv(spatial_rank, data):
    sizes, kernel, strides, pads, dilations = data.draw(windows(spatial_rank))
    groups, depth, per_group = (data.draw(st.integers(1, 3)) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.integers(-8, 8, (2, groups * depth, *sizes))
    w = rng.integers(-8, 8, (groups * per_group, depth, *kernel))
    b = rng.integers(-99, 99, groups * per_group)
    builder = GraphBuilder("g")
    name = builder.conv(
        "conv",
        builder.input("x", x.shape[1:], Integer(4)),
        builder.constant("w", w),
        builder.constant("b", b),
        strides=strides,
        pads=pads,
        dilations=dilations,
        groups=groups,
    )
    ours = interpret(builder.finish([name]), {"x": x})[name]
    theirs = onnxruntime_run(
        "Conv", [x, w, b], strides=strides, pads=pads, dilations=dilations, group=groups, kernel_shape=kernel
    )
    assert (ours == theirs).all()
    assert ours.shape[1:] == builder.type(name).shape


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2), st.data())
def test_pools(spatial_rank, data):
    sizes, kernel, strides, pads, dilations = data.draw(windows(spatial_rank))
    x = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-128, 128, (2, 3, *sizes))
    builder = GraphBuilder("g")
    tensor = builder.input("x", x.shape[1:], Integer(8))
    maximum = builder.max_pool("max", tensor, kernel, strides, pads, dilations)
    total = builder.sum_pool("sum", tensor, kernel, strides, pads)
    ours = interpret(builder.finish([maximum, total]), {"x": x})
    theirs = onnxruntime_run(
        "MaxPool", [x], kernel_shape=kernel, strides=strides, pads=pads, dilations=dilations
    )
    assert (ours[maximum] == theirs).all()
    ones = np.ones((3, 1, *kernel))
    assert (ours[total] == onnxruntime_run("Conv", [x, ones], strides=strides, pads=pads, group=3)).all()


def test_matmul_of_computed_operands():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-8, 8, (5, 2, 3, 4)), rng.integers(-8, 8, (5, 2, 4, 6))
    builder = GraphBuilder("g")
    name = builder.matmul(
        "m", builder.input("a", a.shape[1:], Integer(4)), builder.input("b", b.shape[1:], Integer(4))
    )
    ours = interpret(builder.finish([name]), {"a": a, "b": b})[name]
    assert (ours == onnxruntime_run("MatMul", [a, b])).all()


def test_codes_are_moved_unchanged():
    x = np.random.default_rng(1).integers(-8, 8, (2, 3, 4, 5))
    builder = GraphBuilder("g")
    tensor = builder.input("x", x.shape[1:], Integer(4))
    names = {
        "Transpose": builder.transpose("t", tensor, (2, 0, 1)),
        "Pad": builder.pad("p", tensor, (0, 1, 2, 0, 3, 4), value=-7),
        "Slice": builder.slice("s", tensor, 2, 1, 5, 2),
        "Concat": builder.concat("c", [tensor, tensor], 1),
        "Reshape": builder.reshape("r", tensor, (60,)),
    }
    ours = interpret(builder.finish(list(names.values())), {"x": x})
    assert (ours[names["Transpose"]] == x.transpose(0, 3, 1, 2)).all()
    assert (ours[names["Pad"]] == np.pad(x, [(0, 0), (0, 0), (1, 3), (2, 4)], constant_values=-7)).all()
    assert (ours[names["Slice"]] == x[..., 1:5:2]).all()
    assert (ours[names["Concat"]] == np.concatenate([x, x], axis=2)).all()
    assert (ours[names["Reshape"]] == x.reshape(2, 60)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2), st.data())
def test_transposed_convolutions_are_zeros_between_elements_and_a_convolution(spatial_rank, data):
    """Zeros behind the last element are cut off where the padding behind would be negative."""
    numbers = st.lists(st.integers(1, 3), min_size=spatial_rank, max_size=spatial_rank)
    kernel, strides, dilations, sizes = (data.draw(numbers) for _ in range(4))
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    pads = [data.draw(st.integers(0, r // 2)) for r in (*reach, *reach)]
    further = [data.draw(st.integers(0, stride - 1)) for stride in strides]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x, w = rng.integers(-8, 8, (2, 3, *sizes)), rng.integers(-8, 8, (3, 2, *kernel))
    builder = GraphBuilder("g")
    y = builder.upsample("between", builder.input("x", x.shape[1:], Integer(4)), strides, zeros=True)
    begins = [r - pad for r, pad in zip(reach, pads[:spatial_rank], strict=True)]
    ends = [
        r + 1 - s - pad + more
        for r, s, pad, more in zip(reach, strides, pads[spatial_rank:], further, strict=True)
    ]
    for axis, end in enumerate(ends):
        if end < 0:
            y = builder.slice("cut", y, axis + 1, 0, builder.type(y).shape[axis + 1] + end)
    flipped = np.flip(w, axis=tuple(range(2, w.ndim))).swapaxes(0, 1)
    weight = builder.constant("w", flipped)
    y = builder.conv("conv", y, weight, pads=[*begins, *(max(end, 0) for end in ends)], dilations=dilations)
    graph = builder.finish([y])
    expected = onnxruntime_run(
        "ConvTranspose", [x, w], strides=strides, dilations=dilations, pads=pads, output_padding=further
    )
    for result in (interpret(graph, {"x": x}), FastExecutor(graph)({"x": x})):
        assert (result[y] == expected).all()


@pytest.mark.parametrize("factors", [(2, 3), (1, 2), (4, 1)])
def test_copies_are_a_nearest_neighbour_resize(factors):
    x = np.random.default_rng(5).integers(-128, 128, (2, 3, 4, 5))
    resized = np.array([1, 1, *factors], dtype=np.float32)
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], resized)
    node = helper.make_node(
        "Resize",
        ["x", "", "scales"],
        ["y"],
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(
        helper.make_graph([node], "g", ports, outputs, [scales]),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x.astype(np.float32)})
    builder = GraphBuilder("g")
    y = builder.upsample("up", builder.input("x", x.shape[1:], Integer(8), Exponent((-1, 0, 2), 0)), factors)
    graph = builder.finish([y])
    assert graph.tensors[y].exponent == Exponent((-1, 0, 2), 0)
    for result in (interpret(graph, {"x": x}), FastExecutor(graph)({"x": x})):
        assert (result[y] == expected).all()


def test_sums_and_maxima_over_axes():
    x = np.random.default_rng(2).integers(-8, 8, (2, 3, 4, 5))
    builder = GraphBuilder("g")
    tensor = builder.input("x", x.shape[1:], Integer(4))
    total = builder.reduce_sum("sum", tensor, (1, 2), False)
    maximum = builder.reduce_max("max", tensor, (0,), True)
    ours = interpret(builder.finish([total, maximum]), {"x": x})
    assert (ours[total] == x.sum(axis=(2, 3))).all()
    assert (ours[maximum] == x.max(axis=1, keepdims=True)).all()


def test_add_and_mul_align_exponents():
    rng = np.random.default_rng(3)
    a, b = rng.integers(-8, 8, (2, 3, 4)), rng.integers(0, 16, (2, 3, 4))
    builder = GraphBuilder("g")
    x = builder.input("a", (3, 4), Integer(4), exponent=-1)
    y = builder.input("b", (3, 4), Integer(4, False), exponent=-3)
    total, product = builder.add("sum", x, y), builder.mul("product", x, y)
    ours = interpret(builder.finish([total, product]), {"a": a, "b": b})
    assert builder.type(total).exponent == Exponent.scalar(-3)
    assert builder.type(product).exponent == Exponent.scalar(-4)
    assert (ours[total] == a * 4 + b).all()
    assert (ours[product] == a * b).all()


def test_affine_then_requant_is_a_fixed_point_batch_norm():
    rng = np.random.default_rng(4)
    x = rng.integers(-200, 200, (2, 3, 4))
    scale, shift = np.array([3, -5, 7]), np.array([100, -9, 1])
    builder = GraphBuilder("g")
    tensor = builder.input("x", (3, 4), Integer(9), exponent=-6)
    norm = builder.affine(
        "bn", tensor, builder.constant("s", scale, exponent=-4), builder.constant("o", shift, exponent=-8)
    )
    out = builder.requant("q", norm, Integer(6, False), -5, rounding=Rounding.RND_CONV, overflow=Overflow.SAT)
    ours = interpret(builder.finish([out]), {"x": x})[out]
    value = (x * 2.0**-6) * (scale * 2.0**-4)[None, :, None] + (shift * 2.0**-8)[None, :, None]
    assert (ours == np.clip(np.rint(value * 2**5), 0, 63)).all()


def test_requant_shifts_every_channel_by_its_own_exponent():
    x = np.arange(-32, 32).reshape(8, 2, 4)
    builder = GraphBuilder("g")
    tensor = builder.input("x", (2, 4), Integer(6), exponent=Exponent((-3, -1), 0))
    out = builder.requant("q", tensor, Integer(8), -2, rounding=Rounding.RND)
    ours = interpret(builder.finish([out]), {"x": x})[out]
    assert (ours[:, 0] == np.floor(x[:, 0] / 2 + 0.5)).all()
    assert (ours[:, 1] == x[:, 1] * 2).all()


def test_threshold_and_table():
    x = np.arange(-8, 8).reshape(4, 2, 2)
    builder = GraphBuilder("g")
    tensor = builder.input("x", (2, 2), Integer(4))
    thresholds = builder.constant("t", [[-3, 0, 20], [-8, 1, 5]])
    levels = builder.constant("l", [[-1, 0, 2, 3], [3, 2, 1, 0]])
    counted = builder.threshold("thr", tensor, thresholds, levels, Integer(4))
    table = builder.table(
        "tab", tensor, builder.constant("e", [[v * v for v in range(-8, 8)]]), -8, Integer(7, False)
    )
    ours = interpret(builder.finish([counted, table]), {"x": x})
    assert (ours[counted][:, 0] == np.where(x[:, 0] >= 0, 2, np.where(x[:, 0] >= -3, 0, -1))).all()
    assert (ours[counted][:, 1] == 3 - (x[:, 1] >= -8) - (x[:, 1] >= 1) - (x[:, 1] >= 5)).all()
    assert (ours[table] == x * x).all()


@pytest.mark.parametrize("run", [interpret, lambda graph, x: FastExecutor(graph, "numpy")(x)])
def test_padding_of_numbers_beyond_63_bits(run):
    builder = GraphBuilder("wide")
    x = builder.input("x", (1, 2), Integer(60))
    padded = builder.pad("pad", x, pads=(0, 1, 0, 1), value=3)
    weight = builder.constant("w", np.full((1, 1, 3), 1 << 20), Integer(24))
    y = builder.conv("conv", padded, weight, pads=(1, 1))
    graph = builder.finish([y])
    big = 1 << 58
    total = run(graph, {"x": np.array([[[big, -big + 1]]])})[y]
    assert total.tolist() == [[[v << 20 for v in (3 + big, 4, 4, 4 - big)]]]


@pytest.mark.parametrize("value", [3, -1, 1 << 40, -(1 << 59)])
@pytest.mark.parametrize("bits", [8, 33, 60])
def test_padding_changes_no_other_number(bits, value):
    """The type that holds both a number of 60 bits and a large padding is no float."""
    builder = GraphBuilder("g")
    x = builder.input("x", (1, 2), Integer(bits), encoding=None)
    y = builder.exact_at("wide", x, -(60 - bits)) if bits < 60 else x
    graph = builder.finish([builder.pad("pad", y, (0, 1, 0, 0), value)])
    high = (1 << (bits - 1)) - 1
    codes = {"x": np.array([[[high, -high]]])}
    moved = high << (60 - bits)
    for result in (interpret(graph, codes), FastExecutor(graph, "numpy")(codes)):
        assert result["pad"].tolist() == [[[value, moved, -moved]]]


def test_the_wrong_input_shape_is_named():
    builder = GraphBuilder("g")
    tensor = builder.input("x", (2, 2), Integer(4))
    with pytest.raises(InputError, match=r"'x' has shape \(1, 3\)"):
        interpret(builder.finish([tensor]), {"x": np.zeros((1, 3))})
