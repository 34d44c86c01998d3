"""Every opset ends in one form, which computes what the file computed: qonnx's executor runs both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper
from onnxruntime import InferenceSession
from qonnx_factory import QONNX, Net, execute

from qhw.errors import QhwError, UnsupportedError
from qhw.graph.encode import encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.lower import lower
from qhw.graph.onnx_tools import attributes, initializers
from qhw.graph.reading.load import load_qonnx
from qhw.graph.reading.opsets import OPSET

OPSETS = (9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
SHAPE = (4, 6, 6)


def ints(net: Net, *values: int) -> str:
    return net.constant(values, dtype=np.int64)


def pool(net: Net, x: str) -> str:
    return net.node("MaxPool", x, kernel_shape=[2, 2], strides=[3, 3], auto_pad="SAME_LOWER")


def unsqueezed(net: Net, x: str) -> str:
    old = net.opset < 13
    y = net.node("Unsqueeze", x, axes=[2]) if old else net.node("Unsqueeze", x, ints(net, -3))
    return net.node("Squeeze", y, axes=[2]) if old else net.node("Squeeze", y, ints(net, 2))


def clipped(net: Net, x: str) -> str:
    if net.opset < 11:
        return net.node("Clip", x, min=-0.5, max=1.25)
    return net.node("Clip", x, -0.5, 1.25)


def clipped_below(net: Net, x: str) -> str:
    return net.node("Clip", x, min=-0.5) if net.opset < 11 else net.node("Clip", x, -0.5)


def padded(net: Net, x: str) -> str:
    pads = [0, 0, 1, 0, 0, 0, 2, 1]
    if net.opset < 11:
        return net.node("Pad", x, pads=pads, value=0.25)
    if net.opset < 18:
        return net.node("Pad", x, ints(net, *pads), 0.25)
    return net.node("Pad", x, ints(net, 1, 0, 2, 1), 0.25, ints(net, -2, -1))


def sliced(net: Net, x: str) -> str:
    if net.opset < 10:
        return net.node("Slice", x, starts=[1, -5], ends=[1 << 40, -1], axes=[1, 3])
    return net.node("Slice", x, ints(net, 1, -5), ints(net, 1 << 40, -1), ints(net, 1, -1))


def split(net: Net, x: str) -> str:
    if net.opset < 13:
        parts = net.node("Split", x, outputs=2, axis=1, split=[1, 3])
    else:
        parts = net.node("Split", x, ints(net, 1, 3), outputs=2, axis=1)
    return net.node("Concat", *reversed(parts), axis=1)


def halved(net: Net, x: str) -> str:
    more = {"num_outputs": 2} if net.opset >= 18 else {}
    parts = net.node("Split", x, outputs=2, axis=-3, **more)
    return net.node("Add", *parts)


def reduced(op: str, changed: int) -> Callable[[Net, str], str]:
    def build(net: Net, x: str) -> str:
        if net.opset < changed:
            return net.node(op, x, axes=[-1, 2], keepdims=0)
        return net.node(op, x, ints(net, -1, 2), keepdims=0)

    return build


def dropped(net: Net, x: str) -> str:
    return net.node("Dropout", x, ratio=0.3) if net.opset < 12 else net.node("Dropout", x, 0.3)


def normalized(net: Net, x: str) -> str:
    rng = np.random.default_rng(0)
    parameters = [rng.uniform(0.5, 2, 4) for _ in range(4)]
    return net.node("BatchNormalization", x, *parameters, epsilon=0.001, momentum=0.8)


def flattened(net: Net, x: str) -> str:
    return net.node("Flatten", x, axis=1 if net.opset < 11 else -3)


def enlarged(net: Net, x: str) -> str:
    scales = np.array([1, 1, 2, 3], dtype=np.float32)
    if net.opset < 10:
        return net.node("Upsample", x, scales, mode="nearest")
    if net.opset < 11:
        return net.node("Resize", x, scales, mode="nearest")
    roi = net.constant([], dtype=np.float32) if net.opset < 13 else ""
    options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return net.node("Resize", x, roi, scales, mode="nearest", **options)


def summed(net: Net, x: str) -> str:
    others = [net.node("Neg", x), net.node("Relu", x)]
    return net.node("Sum", x, *others)


def one_summed(net: Net, x: str) -> str:
    return net.node("Sum", x)


def averaged(net: Net, x: str) -> str:
    return net.node("Mean", x, net.node("Relu", x), net.node("Neg", x), x)


def larger(net: Net, x: str) -> str:
    return net.node("Max", net.constant(0.5), x)


def largest(net: Net, x: str) -> str:
    return net.node("Min", net.node("Max", x, net.node("Neg", x), np.full((1, 4, 1, 1), 0.5)), 1.5)


def multiplied(net: Net, x: str) -> str:
    flat = net.node("Flatten", x)
    w = np.random.default_rng(0).integers(-3, 4, size=(3, 144)) / 4
    return net.node("Gemm", flat, w, np.array([0.5, -1, 2]), transB=1, alpha=0.5, beta=2.0)


def old_view(net: Net, x: str) -> str:
    """``x.view(x.size(0), -1)``."""
    n = net.node("Gather", net.node("Shape", x), net.constant(0, dtype=np.int64), axis=0)
    n = net.node("Unsqueeze", n, axes=[0]) if net.opset < 13 else net.node("Unsqueeze", n, ints(net, 0))
    return net.node("Reshape", x, net.node("Concat", n, ints(net, -1), axis=0))


def gathered(net: Net, x: str) -> str:
    return net.node("Gather", x, ints(net, -4, -2), axis=-3 if net.opset >= 11 else 1)


def convolved(net: Net, x: str) -> str:
    w = np.random.default_rng(0).integers(-3, 4, size=(2, 4, 3, 2)) / 4
    return net.node("Conv", x, net.quant(w, 4, 0.25), auto_pad="SAME_UPPER", strides=[2, 1])


def mean_pool(net: Net, x: str) -> str:
    return net.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])


def even_pads(net: Net, x: str) -> str:
    return net.node("AveragePool", x, kernel_shape=[2, 4], pads=[1, 1, 1, 1], count_include_pad=1)


def ceiled(net: Net, x: str) -> str:
    options = {} if net.opset < 10 else {"ceil_mode": 1}
    return net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], **options)


def transposed(net: Net, x: str) -> str:
    w = np.random.default_rng(0).integers(-3, 4, size=(4, 2, 3, 3)) / 4
    return net.node("ConvTranspose", x, net.quant(w, 4, 0.25), strides=[2, 2], auto_pad="SAME_UPPER")


def transposed_to_shape(net: Net, x: str) -> str:
    w = np.random.default_rng(0).integers(-3, 4, size=(4, 1, 3, 3)) / 4
    options: dict[str, Any] = {
        "group": 2,
        "strides": [3, 2],
        "output_shape": [17, 12],
        "output_padding": [1, 0],
    }
    return net.node("ConvTranspose", x, net.quant(w, 4, 0.25), **options)


def mixed(op: str, **options: Any) -> Callable[[Net, str], str]:
    return lambda net, x: net.node(op, x, **options)


BUILDERS: dict[str, tuple[Callable[[Net, str], str], list[str]]] = {
    "auto_pad": (pool, ["MaxPool"]),
    "unsqueeze": (unsqueezed, ["Unsqueeze", "Squeeze"]),
    "clip": (clipped, ["Clip"]),
    "clip below": (clipped_below, ["Clip"]),
    "pad": (padded, ["Pad"]),
    "slice": (sliced, ["Slice"]),
    "split": (split, ["Split", "Concat"]),
    "split evenly": (halved, ["Split", "Add"]),
    "ReduceSum": (reduced("ReduceSum", 13), ["ReduceSum"]),
    "ReduceMean": (reduced("ReduceMean", 18), ["ReduceMean"]),
    "ReduceMax": (reduced("ReduceMax", 18), ["ReduceMax"]),
    "dropout": (dropped, []),
    "batch norm": (normalized, ["BatchNormalization"]),
    "flatten": (flattened, ["Flatten"]),
    "resize": (enlarged, ["Resize"]),
    "sum of three": (summed, ["Neg", "Relu", "Add", "Add"]),
    "sum of one": (one_summed, []),
    "mean": (averaged, ["Relu", "Neg", "Add", "Add", "Add", "Div"]),
    "max": (larger, ["Clip"]),
    "max of three": (largest, ["Neg", "Max", "Max", "Clip"]),
    "gemm": (multiplied, ["Flatten", "MatMul", "Mul", "Add"]),
    "view": (old_view, ["Reshape"]),
    "gather": (gathered, ["Gather"]),
    "conv": (convolved, ["Quant", "Conv"]),
    "average pool": (mean_pool, ["AveragePool"]),
    "padded average": (even_pads, ["AveragePool"]),
    "ceil_mode": (ceiled, ["MaxPool"]),
    "conv transpose": (transposed, ["Quant", "ConvTranspose"]),
    "conv transpose to a shape": (transposed_to_shape, ["Quant", "ConvTranspose"]),
    "space to depth": (mixed("SpaceToDepth", blocksize=2), ["Reshape", "Transpose", "Reshape"]),
    "depth to space": (mixed("DepthToSpace", blocksize=2), ["Reshape", "Transpose", "Reshape"]),
    "leaky": (mixed("LeakyRelu"), ["LeakyRelu"]),
}


def built(builder: Callable[[Net, str], str], opset: int) -> ModelProto:
    net = Net(SHAPE, opset=opset)
    y = builder(net, net.quant(net.x, 6, 0.125))
    return net.model(y)


def assert_valid(model: ModelProto) -> None:
    """Every standard node is as the schema of the loaded model's opset says."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = model.ir_version, {"": OPSET}
    for node in model.graph.node:
        if not node.domain:
            onnx.checker.check_node(node, context)


@pytest.mark.parametrize("name", BUILDERS)
def test_one_form_at_every_opset(name: str) -> None:
    builder, ops = BUILDERS[name]
    x = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    forms = set()
    for opset in OPSETS:
        original = built(builder, opset)
        loaded = load_qonnx(original)
        assert [o.version for o in loaded.model.opset_import if not o.domain] == [OPSET]
        assert_valid(loaded.model)
        nodes = [node for node in loaded.graph.node if node.name != "quant0"]
        assert [node.op_type for node in nodes] == ops
        assert [value.name for value in loaded.graph.output] == [
            value.name for value in original.graph.output
        ]
        if ops:
            stored = initializers(loaded.graph)
            last = nodes[-1]
            parameters = tuple(
                stored[n].tolist() if stored[n].size < 9 else "…" for n in last.input if n in stored
            )
            forms.add((str(parameters), tuple(last.input).count(""), str(sorted(attributes(last).items()))))
        if opset in (9, 11, 13, 18, 21):  # what this onnxruntime runs, and where a form changes
            for ours, theirs in zip(execute(loaded, x), execute(original, x), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert len(forms) <= 1 or name == "ceil_mode", forms


def test_space_to_depth_turned_back_by_either_mode() -> None:
    for mode in ("DCR", "CRD"):
        net = Net((8, 3, 5))
        model = net.model(net.node("DepthToSpace", net.quant(net.x, 6, 0.125), blocksize=2, mode=mode))
        x = np.random.default_rng(1).normal(size=(2, 8, 3, 5)).astype(np.float32)
        np.testing.assert_array_equal(execute(load_qonnx(model), x)[0], execute(model, x)[0])


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_repeating_is_said_in_one_way_and_only_where_it_is_so(coordinates: str, nearest: str) -> None:
    """The oracle is numpy.repeat, on onnxruntime's result."""
    options = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
    for factor in (2, 3, 4):
        net = Net((2, 3, 3))
        scales = np.array([1, 1, factor, factor], dtype=np.float32)
        model = net.model(
            net.node("Resize", net.quant(net.x, 6, 0.125), "", scales, mode="nearest", **options)
        )
        x = np.arange(18, dtype=np.float32).reshape(1, 2, 3, 3) / 8
        expected = execute(model, x)[0]
        loaded = load_qonnx(model)
        np.testing.assert_array_equal(execute(loaded, x)[0], expected)
        last = loaded.graph.node[-1]
        is_repeat = np.array_equal(expected, x.repeat(factor, 2).repeat(factor, 3))
        assert last.op_type == ("Resize" if is_repeat else "Gather")
        if is_repeat:
            found = attributes(last)
            assert (found["coordinate_transformation_mode"], found["nearest_mode"]) == ("asymmetric", "floor")


def test_sizes_become_scales() -> None:
    net = Net((2, 3, 4))
    y = net.node("Resize", net.quant(net.x, 6, 0.125), "", "", ints(net, 1, 2, 6, 12), mode="nearest")
    node = load_qonnx(net.model(y)).graph.node[-1]
    assert len(node.input) == 3
    stored = initializers(load_qonnx(net.model(y)).graph)
    assert stored[node.input[2]].tolist() == [1, 1, 2, 3]


def test_functions_of_the_model_are_written_out() -> None:
    """Two levels of functions, one with an attribute of its own: as torch's exporter writes layers."""
    leaky = helper.make_function(
        "mine",
        "Act",
        ["a"],
        ["b"],
        [helper.make_node("LeakyRelu", ["a"], ["b"], name="leaky")],
        [helper.make_opsetid("", 18)],
    )
    leaky.attribute.append("alpha")
    leaky.node[0].attribute.add(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    twice = helper.make_function(
        "mine",
        "Twice",
        ["a"],
        ["c"],
        [
            helper.make_node("Act", ["a"], ["b"], domain="mine", alpha=0.25),
            helper.make_node("Act", ["b"], ["c"], domain="mine", alpha=0.5),
        ],
        [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)],
    )
    net = Net((4,), opset=18)
    y = net.node("Twice", net.quant(net.x, 6, 0.125), domain="mine")
    model = net.model(y, opsets={"mine": 1})
    model.functions.extend([leaky, twice])
    loaded = load_qonnx(model)
    assert [n.op_type for n in loaded.graph.node] == ["Quant", "LeakyRelu", "LeakyRelu"]
    assert [attributes(n)["alpha"] for n in loaded.graph.node[1:]] == [0.25, 0.5]
    x = np.linspace(-2, 2, 40, dtype=np.float32).reshape(10, 4)
    q = np.clip(np.rint(x * 8), -32, 31) / 8
    np.testing.assert_array_equal(execute(loaded, x)[0], np.where(q < 0, q / 8, q))


def test_functions_that_grow_without_end() -> None:
    net = Net((4,), opset=18)
    model = net.model(net.node("F0", net.quant(net.x, 6, 0.125), domain="mine"), opsets={"mine": 1})
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]

    def function(name: str, called: str, times: int) -> onnx.FunctionProto:
        nodes = [helper.make_node(called, [f"t{i}"], [f"t{i + 1}"], domain="mine") for i in range(times)]
        return helper.make_function("mine", name, ["t0"], [f"t{times}"], nodes, opsets)

    model.functions.extend([function(f"F{i}", f"F{i + 1}", 10) for i in range(12)])
    with pytest.raises(QhwError, match="nodes"):
        load_qonnx(model)
    del model.functions[:]
    model.functions.extend([function("F0", "F1", 1), function("F1", "F0", 1)])
    with pytest.raises(QhwError, match="calls itself"):
        load_qonnx(model)


def test_outputs_keep_their_names() -> None:
    """Whatever a rewrite makes of the last node, and where outputs are inputs or each other."""
    net = Net((4, 6))
    x = net.quant(net.x, 6, 0.125)
    one = net.node("Sum", x)
    two = net.node("Identity", one)
    three = net.node("Gemm", net.node("Flatten", x), np.ones((24, 2)), np.ones(2))
    four = net.node("Transpose", net.node("Transpose", x, perm=[0, 2, 1]), perm=[0, 2, 1])
    model = net.model(one, two, three, four, x)
    loaded = load_qonnx(model)
    assert [v.name for v in loaded.graph.output] == [one, two, three, four, x]
    values = np.random.default_rng(0).normal(size=(1, 4, 6)).astype(np.float32)
    for ours, theirs in zip(execute(loaded, values), execute(model, values), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_computed_where_a_constant_must_stand() -> None:
    net = Net((4, 6), opset=13)
    x = net.quant(net.x, 6, 0.125)
    bound = net.node("ReduceMax", x, keepdims=0)
    with pytest.raises(UnsupportedError, match=r"Clip 'last': its bounds \(max\) are computed"):
        load_qonnx(net.model(net.node("Clip", x, "", bound, name="last")))


def test_training_statistics_of_old_opsets() -> None:
    net = Net((4, 6), opset=9)
    x = net.quant(net.x, 6, 0.125)
    names = [net.constant(np.ones(4)) for _ in range(4)]
    outputs = net.node("BatchNormalization", x, *names, outputs=5)
    loaded = load_qonnx(net.model(net.node("Relu", outputs[0])))
    assert list(loaded.graph.node[1].output) == [outputs[0]]
    assert QONNX in {node.domain for node in loaded.graph.node}
    with pytest.raises(UnsupportedError, match="training mode"):
        load_qonnx(net.model(outputs[0], outputs[1]))


def test_integer_inputs_that_no_hardware_has() -> None:
    net = Net((4, 6), dtype=TensorProto.INT64)
    with pytest.raises(UnsupportedError, match="The input 'x' has type INT64") as caught:
        load_qonnx(net.model(net.quant(net.x, 6, 0.125)))
    assert "uint8" in str(caught.value)


@pytest.mark.parametrize("is_chained", [False, True])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(("size", "kernel", "stride", "pad"), [(6, 1, 2, 0), (7, 2, 2, 1), (6, 2, 3, 0)])
def test_a_window_behind_the_input_is_none(
    size: int, kernel: int, stride: int, pad: int, op: str, is_chained: bool
) -> None:
    """onnx's shape inference counts one in ceil_mode; ONNX Runtime and torch, which export it, do not."""
    options: dict[str, Any] = {
        "kernel_shape": [kernel, 2],
        "strides": [stride, 2],
        "pads": [pad, 0, pad, 0],
        "ceil_mode": 1,
    } | ({"count_include_pad": 1} if op == "AveragePool" else {})
    net = Net((2, size, 8))
    y = net.node(op, net.quant(net.x, 8, 0.125), **options)
    if is_chained:
        first = net.node("Gather", net.node("Shape", y), net.constant([0], dtype=np.int64))
        y = net.node("Reshape", y, net.node("Concat", first, net.constant([-1], dtype=np.int64), axis=0))
    else:
        y = net.node("Flatten", y)
    x = np.random.default_rng(1).integers(-100, 100, (5, 2, size, 8)).astype(np.float32) / 8
    pool = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], **options)],
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 2, size, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    alone = helper.make_model(pool, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (pooled,) = InferenceSession(alone.SerializeToString()).run(None, {"x": x})
    flat = pooled.reshape(5, -1)
    weight = np.random.default_rng(0).integers(-3, 4, (flat.shape[1], 3)) / 4
    graph = lower(net.model(net.node("MatMul", y, net.quant(weight, 4, 0.25))))
    found = interpret(graph, encode_inputs(graph, x))[graph.outputs[0]]
    (exponent,) = graph.tensors[graph.outputs[0]].exponent.values
    np.testing.assert_array_equal(np.ldexp(found.astype(np.float64), exponent), flat @ weight)
