"""The operators that a model may hold, and the messages about those that it may not."""

from __future__ import annotations

from onnx import GraphProto, NodeProto

from qhw.errors import InputError, UnsupportedError
from qhw.graph.onnx_tools import layer_of, words

QONNX_DOMAIN = "qonnx.custom_op.general"
CHANNELS_LAST_DOMAIN = "qonnx.custom_op.channels_last"
QHW_DOMAIN = "qhw.onnx_ops"

QONNX_OPS = frozenset({"Quant", "IntQuant", "BipolarQuant", "Trunc", "MultiThreshold", "FloatQuant"})
QHW_OPS = frozenset({"FixedQuant", "FormatQuant"})
CHANNELS_LAST_OPS = frozenset({"Conv", "MaxPool", "BatchNormalization"})

QUANTIZERS = frozenset({"Quant", "BipolarQuant", "Trunc", "MultiThreshold", "FixedQuant"}) | {
    "FloatQuant",
    "FormatQuant",
}
"""Operators that round a tensor to a finite set of numbers, once a model is loaded."""

EXACT_OPS = words(
    """
    Add AveragePool BatchNormalization Cast Clip Concat Constant Conv ConvTranspose DepthToSpace Div Dropout
    Flatten Gather Gemm GlobalAveragePool GlobalMaxPool Identity LeakyRelu MatMul MaxPool Mean Mul Neg Pad
    PRelu ReduceMax ReduceMean ReduceSum Relu Reshape Resize Slice SpaceToDepth Split Squeeze Sub Sum
    Transpose Unsqueeze Upsample
    """
)
"""Standard operators that exact integers can carry, where their numbers allow it."""

FUNCTION_OPS = words(
    """
    Abs Celu Elu Erf Exp Floor Gelu HardSigmoid HardSwish Log Max Min Mish Pow Reciprocal Round Selu
    Sigmoid Sign Softplus Softsign Sqrt Tanh ThresholdedRelu
    """
)
"""Element-wise functions: exact only as the table or the thresholds of the quantizer that follows."""

HEAD_OPS = words("ArgMax ArgMin Hardmax LogSoftmax Sigmoid Softmax Tanh TopK")
"""Operators done on the host, where a graph ends in them."""

QDQ_OPS = frozenset({"QuantizeLinear", "DequantizeLinear"})

SHAPE_OPS = words(
    """
    And Ceil ConstantOfShape Equal Expand Greater GreaterOrEqual Less LessOrEqual Mod Not Or Range
    ReduceMin ReduceProd Shape Size Tile Where
    """
)
"""Operators of shape computations: they may stand in a file where all that they read is constant."""

_INTEGER_OPS = words(
    "ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul QGemm QLinearAdd QLinearMul "
    "QLinearSigmoid QLinearLeakyRelu QLinearSoftmax QLinearConcat QLinearAveragePool "
    "QLinearGlobalAveragePool QLinearReduceMean DynamicQuantizeMatMul MatMulIntegerToFloat "
    "DynamicQuantizeLSTM QAttention"
)

_CAUSES: dict[str, tuple[str, str]] = {}
"""Why an operator is refused, and what would help."""


def _because(ops: str, cause: str, remedy: str) -> None:
    _CAUSES.update(dict.fromkeys(ops.split(), (cause, remedy)))


_because(
    "LSTM GRU RNN",
    "a recurrent layer, which carries state from step to step",
    "write the steps out as MatMul, Add and quantised activations, or use convolutions over time",
)
_because(
    "If Loop Scan",
    "control flow that the data decides",
    "export with fixed shapes and without Python branches on tensors, so that the graph is a straight one",
)
_because(
    "LayerNormalization GroupNormalization InstanceNormalization RMSNormalization LpNormalization LRN "
    "MeanVarianceNormalization SimplifiedLayerNormalization SkipLayerNormalization",
    "it divides by a norm of the data themselves, which is no exact operation on integers",
    "use batch normalisation, whose factors are constants in evaluation mode",
)
_because(
    "Softmax LogSoftmax Hardmax",
    "it divides by a sum of the data themselves, which is no exact operation on integers, and more than "
    "post-processing follows it",
    "leave it at the end of the model, where it is done on the host, or quantise an element-wise function",
)
_because(
    "ArgMax ArgMin TopK",
    "more than post-processing follows it",
    "leave it at the end of the model, where it is done on the host",
)
_because(
    "Attention MultiHeadAttention RotaryEmbedding",
    "it contains a Softmax, which is no exact operation on integers",
    "use layers of convolutions or products with quantizers between them",
)
_because("Einsum", "its equation can say any sum of products", "write it as MatMul, Transpose and Reshape")
_because(
    "Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh",
    "the function is not carried",
    "use a function of the list, quantised",
)
_because(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial",
    "it draws random numbers",
    "export after model.eval()",
)
_because(
    "NonMaxSuppression NonZero Unique Compress",
    "the shape of its result depends on the data",
    "leave it out of the exported model, and do it on the host",
)
_because(
    "GridSample RoiAlign DeformConv",
    "it reads at positions that the data decide",
    "leave it out of the exported model",
)
_because(
    " ".join(SHAPE_OPS),
    "it is carried on constants only, and reads computed numbers here",
    "export with fixed shapes; let no activation take part in it",
)
_because(
    "And Equal Greater GreaterOrEqual Less LessOrEqual Not Or Where",
    "it compares or chooses, and reads computed numbers here",
    "write a choice as Relu, PRelu, Clip, Max or Min; where it belongs to a shape, export with fixed shapes",
)


def supported_operators() -> str:
    """Every operator that a model may hold, for messages."""
    listed = sorted(EXACT_OPS | FUNCTION_OPS | QDQ_OPS)
    return (
        f"{', '.join(sorted(QONNX_OPS | QHW_OPS))}; {', '.join(listed)}; "
        f"at the end of the model {', '.join(sorted(HEAD_OPS))}"
    )


def check_quantised(graph: GraphProto) -> None:
    """Refuse a float model, first of all: what else is wrong with it does not matter then."""
    marks = QUANTIZERS | QDQ_OPS | _INTEGER_OPS | {"IntQuant"}
    if not any(node.op_type in marks for node in graph.node):
        raise InputError(
            f"The model '{graph.name}' holds no quantisation: it is a float model",
            allowed=f"models with quantizer nodes ({', '.join(sorted(QUANTIZERS))}, or QuantizeLinear and "
            "DequantizeLinear)",
            hint="quantise it with qhw.convert or Brevitas, then export it as QONNX; or with "
            "onnxruntime.quantization.quantize_static(..., quant_format=QuantFormat.QDQ)",
        )


def is_supported(node: NodeProto, standard: frozenset[str]) -> bool:
    """Whether an operator is known, in the domain that the node names."""
    by_domain = {QONNX_DOMAIN: QONNX_OPS, QHW_DOMAIN: QHW_OPS, CHANNELS_LAST_DOMAIN: CHANNELS_LAST_OPS}
    return node.op_type in (by_domain | {"": standard}).get(node.domain, ())


def check_operators(graph: GraphProto, standard: frozenset[str]) -> None:
    """Every operator is one of ``standard``, or QONNX's or qhw's own.

    Raises:
        UnsupportedError: names the node, the layer of the user's model, the cause and a remedy.
    """
    wrong = [node for node in graph.node if not is_supported(node, standard)]
    if wrong:
        raise unsupported(wrong[0], len(wrong) - 1)


def unsupported(node: NodeProto, others: int = 0) -> UnsupportedError:
    """The message about the first operator that is not carried, with the number of others."""
    domain = f" (domain '{node.domain}')" if node.domain else ""
    layer = layer_of(node)
    where = f", of layer '{layer}'," if layer else ","
    more = f"; {others} more of its nodes are not either" if others else ""
    cause, remedy = _cause(node)
    reason = f": {cause}" if cause else ""
    return UnsupportedError(
        f"Node '{node.name}' is a {node.op_type}{domain}{where} which is not supported{more}{reason}",
        allowed=supported_operators(),
        hint=remedy,
    )


def _cause(node: NodeProto) -> tuple[str, str]:
    if node.op_type in _INTEGER_OPS:
        return (
            "an operator on integer codes, whose rounding ONNX leaves to its kernel",
            "quantise in the QDQ format (onnxruntime.quantization.quantize_static with "
            "quant_format=QuantFormat.QDQ; not quantize_dynamic), and do not let an optimiser fuse it",
        )
    if node.domain.startswith("com.microsoft"):
        return (
            "ONNX Runtime's own operator, written by its optimiser",
            "give the model as it was before optimisation (graph_optimization_level=ORT_DISABLE_ALL)",
        )
    if node.domain.startswith("finn."):
        return "FINN's hardware layer", "give the QONNX model from before FINN's conversion"
    if node.domain:
        return (
            "a domain that is not known",
            "export the layer with operators of ONNX or QONNX; a function of the model's own (FunctionProto) "
            "is read, too",
        )
    return _CAUSES.get(
        node.op_type, ("", "leave it out of the exported model, or replace it by supported operators")
    )
