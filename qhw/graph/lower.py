"""From a QONNX model to the exact graph."""

from __future__ import annotations

import logging

from onnx import NodeProto
from qonnx.core.modelwrapper import ModelWrapper

from qhw.errors import InputError, UnsupportedError
from qhw.graph.ir import ExactGraph
from qhw.graph.load import FUNCTION_OPS, Source, load_qonnx, postprocessing_of, telling_damage
from qhw.graph.lowering import RULES, NeedsCanonicalError, State
from qhw.graph.lowering.dyadic import Dyadic
from qhw.graph.lowering.state import NodeView, RawInput
from qhw.graph.passes import simplify

log = logging.getLogger(__name__)


def lower(source: Source) -> ExactGraph:
    """The exact graph of a QONNX model: plain shifts, or thresholds where a scale is no power of two.

    Args:
        source: a path to an ``.onnx`` file, or a model in memory.

    Raises:
        InputError, UnsupportedError: as :func:`qhw.graph.load.load_qonnx`, and for every node that
            cannot be carried exactly, by name.
    """
    model = load_qonnx(source)
    graph = _lower_either(model)
    graph.postprocessing = postprocessing_of(model)
    return graph


def _lower_either(model: ModelWrapper) -> ExactGraph:
    try:
        return lower_power_of_two(model)
    except NeedsCanonicalError as error:
        log.info("lowering through canonical scales: %s", error.message)
    from qhw.graph.lower_canonical import lower_canonical

    with telling_damage():
        return lower_canonical(model)


def canonical_reason(source: Source) -> str | None:
    """Why a model lowers through ``canonical.onnx`` (its first node that shifts cannot carry), or None."""
    try:
        lower_power_of_two(load_qonnx(source))
    except NeedsCanonicalError as error:
        return error.message
    return None


def lower_power_of_two(model: ModelWrapper) -> ExactGraph:
    """The exact graph of a loaded model whose scales are all powers of two.

    Every node of the graph names the ONNX node it came from as its ``source``; the one that holds that
    node's result has its name.

    Raises:
        NeedsCanonicalError: a number on the way is not a short binary one.
        UnsupportedError: a node cannot be carried exactly at all.
    """
    with telling_damage():
        return _lowered(State.of(model))


def _lowered(state: State) -> ExactGraph:
    model = state.model
    for proto in model.graph.node:
        _lower_node(state, proto)
    for output in model.graph.output:
        state.builder.output(_output_tensor(state, output.name))
    missing = [value.name for value in model.graph.input if value.name not in state.builder.graph.inputs]
    if missing:
        raise InputError(f"The model's input '{missing[0]}' is not read")
    return simplify(state.builder.finish())


def _lower_node(state: State, proto: NodeProto) -> None:
    node = state.view(proto)
    if proto.op_type not in RULES:
        if proto.op_type in FUNCTION_OPS:
            raise node.inexact("it is no exact operation on integers")
        raise node.refuse("it cannot be lowered", allowed=", ".join(sorted(RULES)))
    try:
        result = RULES[proto.op_type](state, node)
    except InputError as error:
        raise UnsupportedError(_naming(node, error), allowed=error.allowed, hint=error.hint) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{node} is not as ONNX or QONNX define it: {error}") from error
    values = [result] if not isinstance(result, list) else result
    for name, value in zip(proto.output, values, strict=False):
        state.values[name] = value


def _naming(node: NodeView, error: InputError) -> str:
    """The message of what the inference rules refuse, with the ONNX node in it."""
    return error.message if f"'{node.name}'" in error.message else f"{node}: {error.message}"


def _output_tensor(state: State, name: str) -> str:
    """The tensor of a graph output, with what is pending on it carried out."""
    value = state.values[name]
    if isinstance(value, Dyadic):
        raise InputError(f"The output '{name}' is a constant")
    proto = state.model.find_producer(name)
    if proto is None or isinstance(value, RawInput):
        raise UnsupportedError(f"The output '{name}' is an input that nothing quantises")
    return state.settle(state.view(proto), value)
