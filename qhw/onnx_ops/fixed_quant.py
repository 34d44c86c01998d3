"""``FixedQuant``: a tensor brought into a fixed-point format by any of its modes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.custom_op.base import CustomOp

from qhw.formats import Fixed, Overflow, Rounding


class FixedQuant(CustomOp):  # type: ignore[misc, unused-ignore]
    """Quantise onto ``fixed<width,integer,rounding,overflow>``, with the names and meaning of ap_fixed.

    Inputs: ``x`` (float32); optionally ``fraction`` (int64, broadcasts over ``x``): the fraction bits
    of each channel, in place of ``width - integer``; optionally ``scale`` (float32, broadcasts over ``x``),
    for ``FixedQuant(x / scale) * scale``. Output: the quantised values, float32, of ``x``'s shape.
    Attributes: ``width``, ``integer``, ``signed`` (0 or 1), ``rounding`` and ``overflow`` (names of
    :class:`qhw.formats.Rounding` and :class:`qhw.formats.Overflow`).

    Computed in float64, but for the scale's division and product; exact in float32 for widths up to 24 bits.
    """

    def get_nodeattr_types(self) -> dict[str, tuple[Any, ...]]:
        return {
            "width": ("i", True, 8),
            "integer": ("i", False, 0),
            "signed": ("i", True, 1, {0, 1}),
            "rounding": ("s", False, Rounding.RND_CONV.value, {mode.value for mode in Rounding}),
            "overflow": ("s", False, Overflow.SAT.value, {mode.value for mode in Overflow}),
        }

    @property
    def format(self) -> Fixed:
        """The format that the attributes state; with a ``fraction`` input, its binary point is not used.

        Raises:
            InputError: the attributes contradict each other.
        """
        return Fixed(
            width=int(self.get_nodeattr("width")),
            integer=int(self.get_nodeattr("integer")),
            signed=bool(self.get_nodeattr("signed")),
            rounding=Rounding(self.get_nodeattr("rounding")),
            overflow=Overflow(self.get_nodeattr("overflow")),
        )

    def make_shape_compatible_op(self, model: Any) -> NodeProto:
        node = self.onnx_node
        return helper.make_node("Cast", [node.input[0]], [node.output[0]], to=TensorProto.FLOAT)

    def infer_node_datatype(self, model: Any) -> None:
        fixed = self.format
        integer = fixed.width - fixed.fraction
        stated = not any(self.onnx_node.input[1:]) and fixed.signed and 0 < integer < fixed.width
        name = f"FIXED<{fixed.width},{integer}>" if stated else f"SCALEDINT<{fixed.width}>"
        model.set_tensor_datatype(self.onnx_node.output[0], DataType[name])

    def execute_node(self, context: dict[str, NDArray[Any]], graph: GraphProto) -> None:
        names = [*self.onnx_node.input, "", ""]
        fraction = context[names[1]] if names[1] else np.array(self.format.fraction)
        values, scale = context[names[0]].astype(np.float32), context[names[2]] if names[2] else np.float32(1)
        result = quantize(values / scale, self.format, fraction) * scale
        context[self.onnx_node.output[0]] = np.asarray(result, dtype=np.float32)

    def verify_node(self) -> None:
        """Nothing beyond what the attributes' types say."""


def quantize(values: NDArray[Any], fixed: Fixed, fraction: NDArray[Any]) -> NDArray[np.float32]:
    """Values brought into ``fixed``, its fraction bits replaced by ``fraction`` (broadcasts), as float32."""
    fraction = fraction.astype(np.int64)
    integers = fixed.learned(fixed.width).to_mantissa(np.ldexp(values.astype(np.float64), fraction))
    return np.asarray(np.ldexp(integers.astype(np.float64), -fraction), dtype=np.float32)
