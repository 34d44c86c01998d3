"""``FormatQuant``: a tensor brought into any format that lists its codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.custom_op.base import CustomOp

from qhw.formats.requantise import saturating
from qhw.onnx_ops.float_quant import check_no_nan, format_of_attribute


class FormatQuant(CustomOp):  # type: ignore[misc, unused-ignore]
    """``format(x / scale) * scale``, saturating: for minifloats that FloatQuant cannot say, k-hot, pow2.

    Inputs: ``x`` and ``scale`` (float32, broadcasts over ``x``). Output: the quantised values, float32, of
    ``x``'s shape. Attribute ``format``: a text of :func:`qhw.formats.parse_format`.
    """

    def get_nodeattr_types(self) -> dict[str, tuple[Any, ...]]:
        return {"format": ("s", True, "")}

    def make_shape_compatible_op(self, model: Any) -> NodeProto:
        node = self.onnx_node
        return helper.make_node("Cast", [node.input[0]], [node.output[0]], to=TensorProto.FLOAT)

    def infer_node_datatype(self, model: Any) -> None:
        model.set_tensor_datatype(self.onnx_node.output[0], DataType["FLOAT32"])

    def execute_node(self, context: dict[str, NDArray[Any]], graph: GraphProto) -> None:
        node = self.onnx_node
        format = format_of_attribute(f"FormatQuant '{node.name}'", {"format": self.get_nodeattr("format")})
        values, scale = context[node.input[0]], context[node.input[1]]
        check_no_nan(f"FormatQuant '{node.name}'", values, format)
        numbers = saturating(format, format.rounding).quantize(values.astype(np.float32) / scale)
        context[node.output[0]] = np.asarray(numbers * scale, dtype=np.float32)

    def verify_node(self) -> None:
        """Nothing beyond what the attributes' types say."""
