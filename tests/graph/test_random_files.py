"""Random QONNX files of every sort of scale: file = exact graph = fast executor, code by code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from file_reference import Meaning, OutsideError, meaning
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from qonnx.custom_op.general.bipolar_quant import binary_quant
from qonnx.custom_op.general.floatquant import float_quant
from qonnx.custom_op.general.intquant import int_quant
from qonnx.custom_op.general.multithreshold import multithreshold
from qonnx.custom_op.general.trunc import trunc_v1, trunc_v2
from qonnx_factory import Net
from random_files import KINDS, File, random_file

from qhw.errors import QhwError, UnsupportedError
from qhw.formats import Fixed, Overflow, Rounding, parse_format
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower
from qhw.onnx_ops.fixed_quant import quantize
from qhw.onnx_ops.float_quant import differences_of_qonnx
from qhw.sim.fast import FastExecutor

Array = NDArray[Any]

SEEDS = range(30)
LEAST_LOWERED = 8
"""Files of each kind that lower at least; the others hold something that is refused."""


def lowered(file: File) -> ExactGraph | None:
    """The exact graph, or None where the file is refused."""
    try:
        return lower(file.model)
    except QhwError:
        return None


def meanings(file: File, kind: str) -> list[Meaning]:
    """What the file may give: where float32 rounds what is a sum of more than 24 bits, either reading."""
    try:
        means = meaning(file.model, file.inputs)
    except OutsideError:
        return []
    if not means.rounded or kind.endswith("power"):
        return [means]
    return [means, meaning(file.model, file.inputs, in_float32=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_the_graph_and_the_fast_executor_agree(kind: str) -> None:
    counted = sum(agrees(seed, kind) for seed in SEEDS)
    assert counted >= LEAST_LOWERED


def agrees(seed: int, kind: str) -> bool:
    """Whether a file lowers, and to the codes that it stands for; False for a refused one."""
    file = random_file(seed, kind)
    graph = lowered(file)
    if graph is None:
        return False
    inputs = encode_inputs(graph, file.inputs)
    found, fast = interpret(graph, inputs), FastExecutor(graph, "numpy")(inputs)
    for name in graph.outputs:
        np.testing.assert_array_equal(found[name], fast[name], err_msg=f"{kind} {seed}")
    values = [decode_output(graph, name, found[name]) for name in graph.outputs]
    wanted = [
        [means.outputs[value.name].values for value in file.model.graph.output]
        for means in meanings(file, kind)
    ]
    equal = [all(np.array_equal(a, b) for a, b in zip(values, expected, strict=True)) for expected in wanted]
    assert not wanted or any(equal), f"{kind} {seed}: other values than the file says"
    return bool(wanted)


def test_a_maximum_of_a_function_that_rises_by_trial() -> None:
    """Tanh → ReduceMax → FixedQuant with SAT_ZERO: no rule says that Tanh rises, and the quantizer falls."""
    assert agrees(1381, "free")


# --- the reference itself, against ONNX's and qonnx's own operators in float64 ---


def in_float64(model: ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of a file for one sample: standard operators by ONNX's reference, quantizers by qonnx."""
    values = {t.name: _double(numpy_helper.to_array(t)) for t in model.graph.initializer}
    values |= {name: array.astype(np.float64) for name, array in inputs.items()}
    opset = {o.domain: o.version for o in model.opset_import}
    for node in model.graph.node:
        operands = [values[name] if name else None for name in node.input]
        if node.domain:
            values[node.output[0]] = _quantised(node, operands)
        elif node.op_type in _PLAIN:
            options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            values[node.output[0]] = np.asarray(_PLAIN[node.op_type](options, *operands))
        else:
            feeds = {name: values[name] for name in node.input if name}
            results = ReferenceEvaluator(node, opsets={"": opset[""]}).run(None, feeds)
            values |= dict(zip(node.output, map(_double, results), strict=True))
    return values


def _clip(options: Mapping[str, Any], x: Array, low: Any = None, high: Any = None) -> Array:
    return np.clip(x, options.get("min", low), options.get("max", high))


def _unsqueeze(options: Mapping[str, Any], x: Array, axes: Any = None) -> Array:
    return np.expand_dims(x, tuple(int(a) for a in options.get("axes", axes)))


_PLAIN: dict[str, Callable[..., Array]] = {
    **dict.fromkeys(("Cast", "Dropout", "Identity"), lambda options, x, *more: x),
    "Clip": _clip,
    "Unsqueeze": _unsqueeze,
    "GlobalMaxPool": lambda options, x: x.max(axis=tuple(range(2, x.ndim)), keepdims=True),
}
"""What ONNX's reference has not, or not for lines, attributes or bounds that are left out."""


def _double(value: Any) -> Array:
    value = np.asarray(value)
    return value.astype(np.float64) if value.dtype == np.float32 else value


def _quantised(node: NodeProto, operands: list[Any]) -> Array:
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    options = {k: v.decode() if isinstance(v, bytes) else v for k, v in options.items()}
    x, *rest = operands
    match node.op_type:
        case "Quant" | "IntQuant":
            result = int_quant(x, *rest, options["signed"], options["narrow"], options["rounding_mode"])
        case "BipolarQuant":
            result = binary_quant(x, *rest)
        case "Trunc" if len(rest) == 4:
            result = trunc_v1(x, *rest, options["rounding_mode"])
        case "Trunc":
            scale, zero, width, out, out_width = rest
            modes = options["narrow"], options["signed"]
            result = trunc_v2(x, scale, zero, width, *modes, out, out_width, options["rounding_mode"])
        case "MultiThreshold":
            layout = options.get("data_layout", {3: "NWC"}.get(x.ndim, "NC"))
            levels = options["out_scale"], options["out_bias"]
            result = multithreshold(x, *rest, *levels, channels_last=layout.endswith("WC"))
        case "FloatQuant":
            scale, exponent, mantissa, bias, largest = rest
            mode = {"max_val": largest, "rounding_mode": options["rounding_mode"]}
            result = float_quant(x, scale, exponent, mantissa, bias, **mode)
        case "FormatQuant":
            result = parse_format(options["format"]).quantize(x / rest[0]) * rest[0]
        case _:
            fraction, scale = [*rest, None, None][:2]
            modes = Rounding(options["rounding"]), Overflow(options["overflow"])
            fixed = Fixed(options["width"], options["integer"], bool(options["signed"]), *modes)
            fraction = np.array(fixed.fraction) if fraction is None else fraction
            scale = 1.0 if scale is None else scale
            result = quantize(x / scale, fixed, fraction) * scale
    return np.asarray(result, dtype=np.float64)


def test_the_reference_agrees_with_operators_in_float64() -> None:
    """Where all scales are powers of two, float64 holds every number of a file exactly."""
    counted = 0
    for seed in range(40):
        file = random_file(seed, "power")
        try:
            means = meaning(file.model, file.inputs)
        except OutsideError:
            continue
        # ONNX's reference pads lines where auto_pad says VALID.
        auto_pads = any(a.name == "auto_pad" for node in file.model.graph.node for a in node.attribute)
        if auto_pads or differences_of_qonnx(file.model):
            continue
        # The mean of nine numbers, say, has a scale that is no power of two.
        exact = {name: output for name, output in means.outputs.items() if output.scale is None}
        for sample in range(len(next(iter(file.inputs.values())))):
            inputs = {name: array[sample : sample + 1] for name, array in file.inputs.items()}
            values = in_float64(file.model, inputs)
            for name, output in exact.items():
                np.testing.assert_array_equal(
                    output.values[sample], values[name][0], err_msg=f"{seed} {name}"
                )
        counted += 1
    assert counted >= 15


# --- files that came out with wrong codes once ---


def a_falling_operation_behind_a_maximum(net: Net) -> str:
    x = net.node("Round", net.quant(net.x, 4, 0.3))
    return net.quant(net.node("Sub", np.float32(0.8), net.node("ReduceMax", x, axes=[1, 2])), 8, 0.01)


def a_wrapping_quantizer_behind_a_maximum(net: Net) -> str:
    x = net.node("LeakyRelu", net.quant(net.x, 5, 0.19), alpha=0.0625)
    return net.fixed_quant(net.node("MaxPool", x, kernel_shape=[2, 2]), 2, 1, signed=0, overflow="WRAP")


def an_odd_zero_point_where_ties_are(net: Net) -> str:
    parameters = np.float32(0.5), net.constant(7, dtype=np.int8)
    return net.node("DequantizeLinear", net.node("QuantizeLinear", net.x, *parameters), *parameters)


def two_quantizers_that_read_one_tensor(net: Net) -> str:
    x = net.quant(net.x, 8, 0.0625)
    zero = net.constant(0, dtype=np.int8)
    coarse = net.node("QuantizeLinear", x, np.float32(0.5), zero)
    bounds = (net.constant(bound, dtype=np.int8) for bound in (-2, 1))
    coarse = net.node("DequantizeLinear", net.node("Clip", coarse, *bounds), np.float32(0.5), zero)
    fine = net.node("QuantizeLinear", x, np.float32(0.25), zero)
    return net.node("Add", coarse, net.node("DequantizeLinear", fine, np.float32(0.25), zero))


def stored_weights_of_two_channels_and_rows(net: Net) -> str:
    stored = net.constant([[[[100], [-67]]], [[[-90], [88]]]], dtype=np.int8)
    zeros = net.constant([0, 0], dtype=np.int8)
    weight = net.node("DequantizeLinear", stored, np.array([0.0078125, 0.015625]), zeros, axis=0)
    parameters = np.float32(0.25), net.constant(0, dtype=np.int8)
    x = net.node("DequantizeLinear", net.node("QuantizeLinear", net.x, *parameters), *parameters)
    return net.node("Conv", x, weight, kernel_shape=[2, 1])


def columns_of_different_scales(net: Net) -> tuple[str, str]:
    """(4, 4) numbers of one scale, and of a scale per column."""
    x = net.node("Reshape", net.quant(net.x, 4, 0.25), net.constant([0, 4, 4], dtype=np.int64))
    weight = np.random.default_rng(1).normal(0, 1, (4, 4))
    return x, net.node("MatMul", x, net.quant(weight, 4, np.array([[0.11, 0.47, 0.29, 0.83]])))


def a_maximum_over_columns_of_different_scales(net: Net) -> str:
    _, x = columns_of_different_scales(net)
    return net.quant(net.node("MaxPool", x, kernel_shape=[3], pads=[1, 1], strides=[1]), 8, 0.07)


def a_mean_over_columns_of_different_scales(net: Net) -> str:
    _, x = columns_of_different_scales(net)
    x = net.node("AveragePool", x, kernel_shape=[3], pads=[1, 1], strides=[1], count_include_pad=1)
    return net.quant(x, 8, 0.07)


def columns_of_different_scales_side_by_side(net: Net) -> str:
    return net.quant(net.node("Concat", *columns_of_different_scales(net), axis=1), 8, 0.07)


def a_quantised_constant_reshaped(net: Net) -> str:
    weight = net.node(
        "Reshape", net.quant(np.array([1.0, -2.0, 3.0]), 4), net.constant([1, 3], dtype=np.int64)
    )
    x = net.node("Reshape", net.quant(net.x, 4, 0.25), net.constant([1, 16, 1], dtype=np.int64))
    return net.node("MatMul", x, weight)


@pytest.mark.parametrize(
    "build",
    [
        a_falling_operation_behind_a_maximum,
        a_wrapping_quantizer_behind_a_maximum,
        an_odd_zero_point_where_ties_are,
        two_quantizers_that_read_one_tensor,
        stored_weights_of_two_channels_and_rows,
        a_maximum_over_columns_of_different_scales,
        a_mean_over_columns_of_different_scales,
        columns_of_different_scales_side_by_side,
        a_quantised_constant_reshaped,
    ],
)
def test_right_codes_or_a_refusal(build: Callable[[Net], str]) -> None:
    net = Net((1, 4, 4), opset=13)
    output = build(net)
    x = np.random.default_rng(0).normal(0, 1, (8, 1, 4, 4))
    x[1] = np.arange(-8, 8).reshape(1, 4, 4) / 4  # ties
    file = File(net.model(output), {"x": x.astype(np.float32)})
    try:
        (wanted,) = meaning(file.model, file.inputs).outputs.values()
    except OutsideError:
        with pytest.raises(UnsupportedError):
            lower(file.model)
        return
    try:
        graph = lower(file.model)
    except UnsupportedError:
        return
    (found,) = interpret(graph, encode_inputs(graph, file.inputs)).values()
    np.testing.assert_array_equal(decode_output(graph, graph.outputs[0], found), wanted.values)
