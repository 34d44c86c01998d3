"""QONNX's FloatQuant, executed as its specification says: for files on which qonnx's own executor departs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.base import CustomOp

from qhw.formats.requantise import saturating
from qhw.onnx_ops.float_quant import check_no_nan, differences_of_qonnx, float_format

DOMAIN = "qhw.onnx_ops"


class FloatQuant(CustomOp):  # type: ignore[misc, unused-ignore]
    """``format(x / scale) * scale`` in float32, with the inputs and attributes of QONNX's FloatQuant.

    Reads both ``has_inf`` and ``has_infinity``, ``has_subnormal``, every rounding mode of Quant, and inputs
    that are left out; saturates.
    """

    def get_nodeattr_types(self) -> dict[str, tuple[Any, ...]]:
        flags = ("has_inf", "has_infinity", "has_nan")
        return {
            "rounding_mode": ("s", False, "ROUND"),
            "has_subnormal": ("i", False, 1),
            "saturation": ("i", False, 1),
            **dict.fromkeys(flags, ("i", False, 0)),
        }

    def make_shape_compatible_op(self, model: Any) -> NodeProto:
        node = self.onnx_node
        return helper.make_node("Cast", [node.input[0]], [node.output[0]], to=TensorProto.FLOAT)

    def infer_node_datatype(self, model: Any) -> None:
        model.set_tensor_datatype(self.onnx_node.output[0], DataType["FLOAT32"])

    def execute_node(self, context: dict[str, NDArray[Any]], graph: GraphProto) -> None:
        node = self.onnx_node
        names = [*node.input, "", "", "", ""][:6]
        parameters = [context[name] if name else None for name in names[2:]]
        options = {name: self.get_nodeattr(name) for name in self.get_nodeattr_types()}
        found = float_format(f"FloatQuant '{node.name}'", options, *parameters)
        format = saturating(found.format, found.format.rounding)
        x, scale = context[names[0]].astype(np.float32), context[names[1]]
        check_no_nan(f"FloatQuant '{node.name}'", x, format)
        numbers = format.quantize(x / scale)
        if found.high is not None:
            most = np.ldexp(float(found.high), format.exponent)
            numbers = np.clip(numbers, -most, most)
        context[node.output[0]] = np.asarray(numbers.astype(np.float32) * scale, dtype=np.float32)

    def verify_node(self) -> None:
        """Nothing beyond what the attributes' types say."""


def as_specified(model: ModelWrapper) -> ModelWrapper:
    """A model in the normal form as qonnx can execute it.

    FloatQuant nodes that qonnx computes otherwise are given to qhw's executor. Inputs are float32: of an
    integer input the normal form has dropped the Cast, and float operators read it.
    """
    departing = differences_of_qonnx(model.model)
    inputs = [value.type.tensor_type for value in model.graph.input]
    if not departing and all(kind.elem_type == TensorProto.FLOAT for kind in inputs):
        return model
    proto = ModelProto()
    proto.CopyFrom(model.model)
    for value in proto.graph.input:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in proto.graph.node:
        if node.op_type == "FloatQuant" and node.name in departing:
            node.domain = DOMAIN
    if DOMAIN not in {opset.domain for opset in proto.opset_import}:
        proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return ModelWrapper(proto)
