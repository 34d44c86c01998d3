"""From QONNX nodes to exact operations, where every scale is a power of two."""

from qhw.graph.lowering import arithmetic, matrix, movement, quantizers, table_quantizers
from qhw.graph.lowering.state import RULES, NeedsCanonicalError, State

__all__ = [
    "RULES",
    "NeedsCanonicalError",
    "State",
    "arithmetic",
    "matrix",
    "movement",
    "quantizers",
    "table_quantizers",
]
