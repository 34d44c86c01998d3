"""``canonical.onnx``: a QONNX model of any scales, with scales pulled behind Conv and MatMul.

Float32 sums of scaled values depend on the order of summation, so a model with scales that are no powers
of two has no exact meaning of its own. Its canonical form has: every Conv, MatMul, pool and residual Add
reads and writes integers (float tensors annotated with an integer type, named ``<tensor>_int``), and what
stands between two of them is element-wise, in float32 operations whose stored order is their meaning. Float
tensors keep the names that they have in the original.
"""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto
from qonnx.core.modelwrapper import ModelWrapper

from qhw.errors import UnsupportedError
from qhw.graph.canonical_elementwise import (
    batch_norm,
    cast,
    elementwise,
    move,
    pad,
    quantise,
    split,
    two_operand_sum,
)
from qhw.graph.canonical_sums import average_pool, concat, conv, matmul, reduce_sum
from qhw.graph.canonical_writer import (
    FORM,
    FORM_KEY,
    Writer,
)
from qhw.graph.normal_form import QUANTIZERS
from qhw.graph.onnx_tools import describe
from qhw.graph.tail_nodes import ELEMENTWISE


def is_canonical(model: ModelWrapper) -> bool:
    """Whether a model was written by ``canonicalise``."""
    return bool(model.get_metadata_prop(FORM_KEY) == FORM)


def canonicalise(model: ModelWrapper) -> ModelWrapper:
    """The canonical form of a model loaded by ``load_qonnx``, which is not changed.

    Raises:
        UnsupportedError: naming the node, where a sum would be taken over numbers that are not integers
            of one scale, or an operator has no integer form.
    """
    writer = Writer(model)
    for node in model.graph.node:
        handler = _HANDLERS.get(node.op_type) or (elementwise if node.op_type in ELEMENTWISE else None)
        if handler is None:
            raise UnsupportedError(
                f"{describe(node)} has no integer form in a model whose scales are not powers of two",
                allowed=", ".join(sorted({*_HANDLERS, *ELEMENTWISE})),
            )
        handler(writer, node)
    return writer.finish()


_HANDLERS: dict[str, Callable[[Writer, NodeProto], None]] = {
    **dict.fromkeys(QUANTIZERS, quantise),
    "Conv": conv,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    **dict.fromkeys(("AveragePool", "GlobalAveragePool"), average_pool),
    **dict.fromkeys(("ReduceSum", "ReduceMean"), reduce_sum),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool", "ReduceMax", "Reshape", "Flatten", "Transpose"), move),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Slice"), move),
    "Sum": two_operand_sum,
    "Concat": concat,
    "Split": split,
    "Pad": pad,
    "Cast": cast,
}
