"""Random QONNX files of every sort of scale: file = exact graph = fast executor, code by code."""

from __future__ import annotations

from collections.abc import Mapping
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
from random_files import KINDS, File, random_file

from qhw.errors import QhwError
from qhw.formats import Fixed, Overflow, Rounding, parse_format
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower
from qhw.onnx_ops.fixed_quant import quantize
from qhw.onnx_ops.float_quant import differences_of_qonnx
from qhw.sim.fast import FastExecutor
from qhw.sim.interpreter import interpret

Array = NDArray[Any]

SEEDS = range(30)
LEAST_LOWERED = 8
"""Of the files of a kind: the others hold something that is refused."""


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
    counted = 0
    for seed in SEEDS:
        file = random_file(seed, kind)
        graph = lowered(file)
        if graph is None:
            continue
        inputs = encode_inputs(graph, file.inputs)
        found, fast = interpret(graph, inputs), FastExecutor(graph, "numpy")(inputs)
        for name in graph.outputs:
            np.testing.assert_array_equal(found[name], fast[name], err_msg=f"{kind} {seed}")
        values = [decode_output(graph, name, found[name]) for name in graph.outputs]
        wanted = [
            [means.outputs[value.name].values for value in file.model.graph.output]
            for means in meanings(file, kind)
        ]
        equal = [
            all(np.array_equal(a, b) for a, b in zip(values, expected, strict=True)) for expected in wanted
        ]
        assert not wanted or any(equal), f"{kind} {seed}: other values than the file says"
        counted += bool(wanted)
    assert counted >= LEAST_LOWERED


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
        elif node.op_type in ("Cast", "Dropout", "Identity"):
            values[node.output[0]] = operands[0]
        elif node.op_type == "Clip":  # ONNX's reference knows no Clip without a lower bound
            bounds = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            bounds |= dict(zip(("min", "max"), operands[1:], strict=False))
            values[node.output[0]] = np.clip(operands[0], bounds.get("min"), bounds.get("max"))
        else:
            feeds = {name: values[name] for name in node.input if name}
            results = ReferenceEvaluator(node, opsets={"": opset[""]}).run(None, feeds)
            values |= dict(zip(node.output, results, strict=True))
    return values


def _double(value: Array) -> Array:
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
