"""Lowering of a QONNX model to the exact graph: one front for every file, each tail settled on its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from onnx import NodeProto
from qonnx.core.modelwrapper import ModelWrapper

from qhw.errors import InputError, UnsupportedError
from qhw.graph.front import RULES, InexactError, State
from qhw.graph.front.dyadic import Dyadic
from qhw.graph.front.floating import ELEMENTWISE, FLOATABLE, axes_of, floating, step
from qhw.graph.front.settling import quantised, tail_by_rows
from qhw.graph.front.state import NodeView
from qhw.graph.front.values import Activation, Clamped, Floating, RawInput, Scale
from qhw.graph.ir import ExactGraph, OutputScale
from qhw.graph.passes import simplify
from qhw.graph.reading.load import Source, load_qonnx, postprocessing_of, telling_damage
from qhw.graph.reading.normal_form import QUANTIZERS
from qhw.graph.tails.tail import Tail, affine_form

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lowering:
    """The result of lowering a model.

    Args:
        model: the model in normal form, as it was loaded.
        graph: its exact graph. Every node names the ONNX node it came from as its ``source``; the one that
            holds that node's result has its name.
        tails: the float32 operations that a Threshold or Table of the graph stands for, by its output.
        reasons: why there are any: what integer operations alone do not give, first one first.
        units: tensors of the file that the graph holds as integers: which of its tensors that is, and the
            free factor between ``mantissa * 2**exponent`` and the file's numbers, if there is one.
    """

    model: ModelWrapper
    graph: ExactGraph
    tails: Mapping[str, Tail]
    reasons: tuple[str, ...]
    units: Mapping[str, tuple[str, Scale | None]]

    @property
    def reason(self) -> str | None:
        """Why the model is compared through ``canonical.onnx``; None where shifts carry all of it."""
        return self.reasons[0] if self.reasons else None

    @cached_property
    def canonical(self) -> ModelWrapper | None:
        """``canonical.onnx``: the model with its scales pulled behind every sum; None where it needs none."""
        from qhw.graph.canonical import write_canonical

        return write_canonical(self.graph, self.tails, self.model) if self.reasons else None


def lower(source: Source) -> ExactGraph:
    """The exact graph of a QONNX model: shifts where a tail is dyadic, else thresholds, else a table.

    Args:
        source: a path to an ``.onnx`` file, or a model in memory.

    Raises:
        InputError, UnsupportedError: as :func:`qhw.graph.reading.load.load_qonnx`, and for every node that
            cannot be carried exactly, by name.
    """
    return lower_model(load_qonnx(source)).graph


def canonical_reason(source: Source) -> str | None:
    """Why a model has a ``canonical.onnx`` (the first node that shifts cannot carry), or None."""
    return lower_model(load_qonnx(source)).reason


def lower_model(model: ModelWrapper) -> Lowering:
    """Lower a loaded model as :func:`lower` does, and keep all that was found on the way."""
    # What overflows on the way is refused, or found not to be finite, where it matters.
    with telling_damage(), np.errstate(all="ignore"):
        return _lowered(State.of(model))


def _lowered(state: State) -> Lowering:
    model = state.model
    for proto in model.graph.node:
        _lower_node(state, proto)
    for output in model.graph.output:
        _output(state, output.name)
    missing = [value.name for value in model.graph.input if value.name not in state.builder.graph.inputs]
    if missing:
        raise InputError(f"The model's input '{missing[0]}' is not read")
    # In the file's order, not in that of the nodes that read them: it is the order of arrays without names.
    state.builder.graph.inputs = tuple(
        value.name for value in model.graph.input if value.name in state.builder.graph.inputs
    )
    graph = simplify(state.builder.finish())
    graph.postprocessing = postprocessing_of(model)
    graph.output_names = tuple(value.name for value in model.graph.output)
    tails = {name: tail for name, tail in state.tails.items() if name in graph.tensors}
    if state.reasons:
        log.info("not by shifts alone: %s", state.reasons[0])
    return Lowering(model, graph, tails, tuple(dict.fromkeys(state.reasons)), _units(state, graph))


def _units(state: State, graph: ExactGraph) -> dict[str, tuple[str, Scale | None]]:
    found = {}
    for proto in state.model.graph.node:
        value = state.values.get(proto.output[0])
        if proto.op_type in QUANTIZERS and isinstance(value, Activation) and value.tensor in graph.tensors:
            found[proto.output[0]] = (value.tensor, value.scale)
    return found


def _lower_node(state: State, proto: NodeProto) -> None:
    node = state.view(proto)
    if proto.op_type not in RULES and proto.op_type not in FLOATABLE:
        raise node.refuse("it cannot be lowered", allowed=", ".join(sorted({*RULES, *FLOATABLE})))
    try:
        result = _rule(state, node)
    except InputError as error:
        raise UnsupportedError(_naming(node, error), allowed=error.allowed, hint=error.hint) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{node} is not as ONNX or QONNX define it: {error}") from error
    values = [result] if not isinstance(result, list) else result
    for name, value in zip(proto.output, values, strict=False):
        state.values[name] = value


def _rule(state: State, node: NodeView):  # type: ignore[no-untyped-def]
    """Integer operations where they are exact; else the node is part of a tail, or what ends it."""
    try:
        if node.op not in RULES:
            raise node.inexact("it is no exact operation on integers")
        result = RULES[node.op](state, node)
    except InexactError as error:
        if node.op in QUANTIZERS:
            result = quantised(state, node)
        elif node.op in FLOATABLE:
            result = step(state, node)
        else:
            raise
        state.reasons.append(error.message)
        return result
    if _is_derived(state, node, result):
        state.derived.add(node.proto.output[0])
    return result


def _is_derived(state: State, node: NodeView, result: object) -> bool:
    """Whether what an integer operation gave may stand for a step of a tail as well.

    An addition on the grid of a free scale may not: integers are added there, by definition.
    """
    computed = {name for name in node.proto.input if name and not isinstance(state.values.get(name), Dyadic)}
    is_elementwise = node.op in ELEMENTWISE or node.op == "BatchNormalization"
    if not is_elementwise or len(computed & state.values.keys()) != 1:
        return False
    adds = node.op in ("Add", "Sub") and isinstance(result, Activation) and result.scale is not None
    return isinstance(result, Activation | Clamped | RawInput) and not adds


def _naming(node: NodeView, error: InputError) -> str:
    """The message of what the inference rules refuse, with the ONNX node in it."""
    return error.message if f"'{node.name}'" in error.message else f"{node}: {error.message}"


def _output(state: State, name: str) -> None:
    """Declare a graph output, with what is pending on it carried out."""
    value = state.values[name]
    if isinstance(value, Dyadic):
        raise InputError(
            f"The output '{name}' is a constant", hint="let the model return what it computes from its input"
        )
    proto = state.model.find_producer(name)
    is_float = isinstance(value, RawInput) and value.integers is None
    if proto is None or is_float or (isinstance(value, Floating) and value.raw):
        raise UnsupportedError(f"The output '{name}' is an input that nothing quantises")
    node = state.view(proto)
    if not isinstance(value, Floating):
        try:
            tensor, scale = state.scaled_tensor(node, value)
        except InexactError:
            value = floating(state, node, name)
        else:
            if scale is None:
                if tensor in state.builder.graph.output_scales:
                    tensor = state.builder.reshape(name, tensor, state.builder.type(tensor).shape)
                state.builder.output(tensor)
            else:
                _scaled_output(state, name, tensor, OutputScale(scale.values, axis=scale.axis or 0))
            return
    assert isinstance(value, Floating)
    _float_output(state, node, name, value)


def _float_output(state: State, node: NodeView, name: str, value: Floating) -> None:
    """Integers with a scale and an offset, where the tail does no more."""
    if len(value.roots) > 1:
        raise UnsupportedError(
            f"The output '{name}' joins {len(value.roots)} tensors of different scales ({value.spelled})",
            allowed="a scale and an offset behind the last integer operation",
            hint="quantise the output, or what it joins by one shared quantizer",
        )
    axis = max(axes_of(value), default=0)
    form = affine_form(tail_by_rows(node, value, None))
    if form is None:
        raise UnsupportedError(
            f"The output '{name}' is computed in float ({value.spelled}), which has no exact integer form",
            allowed="a scale and an offset behind the last integer operation",
            hint="quantise the output, or move the operation behind the model's output",
        )
    scale, offset = form
    for move in value.moves:
        moved = move.axis(axis) if max(scale.size, offset.size) > 1 else 0
        if moved is None or move.is_maximum or move.fill:
            raise UnsupportedError(
                f"{move} moves numbers that are not quantised, to the output '{name}'",
                hint="quantise the output",
            )
        axis = moved
    tensor = state.moved(value.roots[0], value)
    exponent = state.builder.type(tensor).exponent
    varies = max(scale.size, offset.size) > 1
    if exponent.axis is not None and varies and exponent.axis != axis:
        raise UnsupportedError(
            f"The output '{name}' has scales that differ along axes {axis + 1} and {exponent.axis + 1}",
            allowed="one scale, or one per index of one axis",
            hint="quantise the output",
        )
    axis = axis if exponent.axis is None else exponent.axis
    unit = 2.0 ** np.array(exponent.values)
    numbers = tuple(float(v) for v in np.atleast_1d(scale / unit))
    _scaled_output(state, name, tensor, OutputScale(numbers, tuple(map(float, offset)), axis))


def _scaled_output(state: State, name: str, tensor: str, scale: OutputScale) -> None:
    if tensor in state.builder.graph.outputs:
        tensor = state.builder.reshape(name, tensor, state.builder.type(tensor).shape)
    state.builder.output(tensor, scale)
