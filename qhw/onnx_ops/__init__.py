"""Operators of the ONNX domain ``qhw.onnx_ops``: what QONNX's own cannot say.

The domain is the module's name, which is how qonnx finds an operator's executor.
"""

from qhw.onnx_ops.fixed_quant import FixedQuant
from qhw.onnx_ops.format_quant import FormatQuant
from qhw.onnx_ops.specified import FloatQuant

DOMAIN = __name__
OPSET = 1

__all__ = ["DOMAIN", "OPSET", "FixedQuant", "FloatQuant", "FormatQuant"]
