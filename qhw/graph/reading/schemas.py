"""Inputs and attributes as operators' schemas say: ONNX's by its checker, QONNX's and qhw's by a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from onnx import AttributeProto, ModelProto, NodeProto

from qhw.errors import InputError
from qhw.formats.modes import Overflow, Rounding
from qhw.graph.onnx_tools import describe
from qhw.graph.reading.operators import QHW_DOMAIN, QONNX_DOMAIN
from qhw.outside import shown

LARGEST_VERSION = (1 << 31) - 1

_INT, _FLOAT, _STRING = AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.STRING
_KINDS = {_INT: "an integer", _FLOAT: "a number", _STRING: "a text"}


@dataclass(frozen=True)
class Schema:
    """An operator of QONNX or qhw.

    Args:
        least, most: inputs, of which the first ``least`` must be named.
        attributes: the type of each attribute that is read; others are of no effect.
        choices: the texts that an attribute may be.
    """

    least: int
    most: int
    attributes: Mapping[str, int] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_ROUNDED = {"signed": _INT, "narrow": _INT, "rounding_mode": _STRING}
_FLAGS = dict.fromkeys(("has_inf", "has_infinity", "has_nan", "has_subnormal", "saturation"), _INT)
_COUNTING = {"out_dtype": _STRING, "out_scale": _FLOAT, "out_bias": _FLOAT, "data_layout": _STRING}
_FIXED = {"width": _INT, "integer": _INT, "signed": _INT, "rounding": _STRING, "overflow": _STRING}
_MODES = {"rounding": tuple(m.value for m in Rounding), "overflow": tuple(m.value for m in Overflow)}

SCHEMAS = {
    (QONNX_DOMAIN, "Quant"): Schema(4, 4, _ROUNDED),
    (QONNX_DOMAIN, "BipolarQuant"): Schema(2, 2),
    (QONNX_DOMAIN, "Trunc"): Schema(5, 6, _ROUNDED),
    (QONNX_DOMAIN, "FloatQuant"): Schema(2, 6, {**_FLAGS, "rounding_mode": _STRING}),
    (QONNX_DOMAIN, "MultiThreshold"): Schema(2, 2, _COUNTING),
    (QHW_DOMAIN, "FixedQuant"): Schema(1, 3, _FIXED, _MODES),
    (QHW_DOMAIN, "FormatQuant"): Schema(2, 2, {"format": _STRING}),
}


_MAY_HAVE_NO_BOUND = frozenset({"Clip", "Constant", "Pad"})
"""Operators whose numbers may be infinite: bounds, and what is checked where it is read."""


def check_schemas(proto: ModelProto) -> None:
    """Inputs and attributes of every node are as its schema says, and its numbers finite.

    Raises:
        InputError: names the node and what is wrong.
    """
    context = onnx.checker.C.CheckerContext()
    context.ir_version = proto.ir_version
    context.opset_imports = {opset.domain: opset.version for opset in proto.opset_import}
    for node in proto.graph.node:
        if node.domain == "":
            _check_standard(node, context)
        schema = SCHEMAS.get((node.domain, node.op_type))
        if schema is not None:
            _check_own(node, schema)
        _check_finite(node)


def check_versions(proto: ModelProto) -> None:
    """Refuse a version of ONNX or of any domain that is no number that a version has."""
    if not 0 < proto.ir_version <= LARGEST_VERSION:
        raise InputError(
            f"The model uses version {proto.ir_version} of ONNX's file format",
            allowed=f"1 to {LARGEST_VERSION}",
        )
    for opset in proto.opset_import:
        if not 0 < opset.version <= LARGEST_VERSION:
            raise InputError(
                f"The model uses version {opset.version} of the domain {opset.domain!r}",
                allowed=f"1 to {LARGEST_VERSION}",
            )


def _check_standard(node: NodeProto, context: onnx.checker.C.CheckerContext) -> None:
    try:
        onnx.checker.check_node(node, context)
    except onnx.checker.ValidationError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{describe(node)} is not valid ONNX: {reason}") from error


def _check_own(node: NodeProto, schema: Schema) -> None:
    given = len(node.input)
    if not schema.least <= given <= schema.most or not all(node.input[: schema.least]):
        missing = [i for i, name in enumerate(node.input[: schema.least]) if not name]
        what = f"its input {missing[0]} is left out" if missing else f"it has {given} inputs"
        number = str(schema.least) if schema.least == schema.most else f"{schema.least} to {schema.most}"
        raise InputError(
            f"{describe(node)}: {what}", allowed=f"{number} inputs", hint="export the model again"
        )
    for attribute in node.attribute:
        kind = schema.attributes.get(attribute.name, attribute.type)
        is_whole_number = kind == _FLOAT and attribute.type == _INT
        if attribute.type != kind and not is_whole_number:
            found = AttributeProto.AttributeType.Name(attribute.type)
            raise InputError(
                f"{describe(node)}: its attribute '{attribute.name}' is of type {found}", allowed=_KINDS[kind]
            )
        choices = schema.choices.get(attribute.name)
        if choices is not None and attribute.s not in [choice.encode() for choice in choices]:
            raise InputError(
                f"{describe(node)}: its attribute '{attribute.name}' is {shown(attribute.s)}",
                allowed=", ".join(choices),
            )


def _check_finite(node: NodeProto) -> None:
    if node.op_type in _MAY_HAVE_NO_BOUND:
        return
    for attribute in node.attribute:
        numbers = [attribute.f] if attribute.type == _FLOAT else attribute.floats
        if not all(map(math.isfinite, numbers)):
            wrong = next(number for number in numbers if not math.isfinite(number))
            raise InputError(
                f"{describe(node)}: its attribute '{attribute.name}' holds {wrong}", allowed="finite numbers"
            )
