"""Operators of QONNX and qhw with other inputs and attributes than they have are refused by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from qonnx_factory import QHW, QONNX, Net

from qhw.errors import InputError, QhwError
from qhw.graph.lower import lower
from qhw.graph.reading.schemas import SCHEMAS

INPUTS: dict[str, tuple[Any, ...]] = {
    "Quant": (0.5, 0.0, 4.0),
    "BipolarQuant": (0.5,),
    "Trunc": (0.5, 0.0, 8.0, 2.0, 4.0),
    "FloatQuant": (1.0, 3.0, 2.0, 3.0, 28.0),
    "MultiThreshold": ([[0.5, 1.5]],),
    "FixedQuant": (),
    "FormatQuant": (0.5,),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "MultiThreshold": {"out_scale": 1.0, "out_bias": 0.0, "out_dtype": "UINT2"},
    "FixedQuant": {"width": 4, "integer": 2},
    "FormatQuant": {"format": "e2m1"},
}


def model(op: str, **changed: Any) -> ModelProto:
    """An operator behind a quantizer, in whole numbers."""
    net = Net((3, 4))
    x = net.quant(net.x, 8, 0.5)
    options = {**OPTIONS.get(op, {}), **changed}
    domain = QHW if op in ("FixedQuant", "FormatQuant") else QONNX
    return net.model(net.node(op, x, *INPUTS[op], domain=domain, name="it", **options))


def node_of(proto: ModelProto) -> Any:
    return next(node for node in proto.graph.node if node.name == "it")


@pytest.mark.parametrize("op", INPUTS)
def test_operators_as_they_are_lower(op: str) -> None:
    assert lower(model(op)).outputs


@pytest.mark.parametrize("op", INPUTS)
def test_inputs_that_are_missing_or_too_many(op: str) -> None:
    schema = next(schema for (_, name), schema in SCHEMAS.items() if name == op)
    many = model(op)
    node_of(many).input.extend(["c0"] * (schema.most + 1 - len(node_of(many).input)))
    few = model(op)
    del node_of(few).input[schema.least - 1 :]
    empty = model(op)
    node_of(empty).input[schema.least - 1] = ""
    for broken in (many, few, empty):
        with pytest.raises(QhwError, match=f"{op} 'it'") as caught:
            lower(broken)
        assert "inputs" in str(caught.value)


CASES = [(op, name) for (_, op), schema in SCHEMAS.items() for name in schema.attributes]


@pytest.mark.parametrize(("op", "name"), CASES)
@pytest.mark.parametrize(
    "value", [[1, 2], "text", 1.5, np.ones(2, np.float32)], ids=["ints", "text", "float", "floats"]
)
def test_attributes_of_another_type(op: str, name: str, value: Any) -> None:
    proto = model(op)
    kept = [a for a in node_of(proto).attribute if a.name != name]
    del node_of(proto).attribute[:]
    attribute = helper.make_attribute(name, value)
    node_of(proto).attribute.extend([*kept, attribute])
    kind = next(schema for (_, known), schema in SCHEMAS.items() if known == op).attributes[name]
    if attribute.type == kind:
        return
    with pytest.raises(InputError, match=rf"{op} 'it': its attribute '{name}' is of type"):
        lower(proto)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_attributes_that_are_no_numbers(value: float) -> None:
    with pytest.raises(InputError, match=r"MultiThreshold 'it': its attribute 'out_bias' holds"):
        lower(model("MultiThreshold", out_bias=value))


def test_versions_that_no_domain_has() -> None:
    proto = model("Quant")
    next(o for o in proto.opset_import if o.domain == QONNX).version = 1 << 62
    with pytest.raises(InputError, match="version 4611686018427387904 of the domain"):
        lower(proto)


def test_numbers_of_more_bits_than_integers_have() -> None:
    """A Trunc without bounds (of QONNX's first version) of a huge constant; a huge zero point."""
    net = Net((3,))
    x = net.quant(net.x, 4, 0.3)
    constant = net.node("Trunc", np.full(3, 1e30), 0.3, 0.0, 8.0, 4.0, domain=QONNX, name="it")
    with pytest.raises(QhwError, match=r"Trunc 'it': it quantises numbers to more than 62 bits"):
        lower(net.model(net.quant(net.node("Add", x, constant), 4, 0.3), opsets={QONNX: 1}))
    net = Net((3,))
    with pytest.raises(QhwError, match=r"Quant 'it'.*zero point has more than 62 bits"):
        lower(net.model(net.quant(net.x, 4, 0.5, zero=2.0**70, name="it")))


def test_a_version_of_the_file_format_that_no_file_has() -> None:
    proto = model("Quant")
    proto.ir_version = 1 << 32
    with pytest.raises(InputError, match=r"version 4294967296 of ONNX's file format.*\n.*1 to"):
        lower(proto)


@pytest.mark.parametrize("kind", ["UINT2", "INT4", "FLOAT8E5M2", "BFLOAT16"])
def test_a_constant_of_a_type_of_onnx_alone(kind: str) -> None:
    net = Net((4,))
    narrow = helper.make_tensor("narrow", TensorProto.DataType.Value(kind), [4], [0, 1, 1, 0])
    net.constants.append(narrow)
    proto = net.model(net.node("Add", net.quant(net.x, 4, 0.5), net.quant("narrow", 4, 0.5)))
    with pytest.raises(QhwError, match=rf"'narrow' is of type {kind}"):
        lower(proto)


def test_a_weight_whose_sizes_do_not_fit() -> None:
    net = Net((2, 4, 4))
    sizes = net.constant([18], "sizes", np.int64)
    weight = net.node("Reshape", net.quant([0.5], 4, 0.5), sizes, name="turned")
    proto = net.model(net.node("Conv", net.quant(net.x, 4, 0.5), weight))
    with pytest.raises(InputError, match=r"'turned': shape \(1,\) and the sizes \(18,\) do not fit"):
        lower(proto)


@pytest.mark.parametrize(("attribute", "value"), [("overflow", "a\nb"), ("rounding", "SIDEWAYS")])
def test_a_mode_that_there_is_not_is_refused_before_the_host_carries_it_out(
    attribute: str, value: str
) -> None:
    """Where the model has done something to its input already, the quantizer is a step of the host."""
    net = Net((4,))
    x = net.node("Relu", net.x)
    y = net.node("FixedQuant", x, domain=QHW, name="it", width=4, integer=4, **{attribute: value})
    with pytest.raises(InputError, match=rf"'it': its attribute '{attribute}' is .*\n.*Allowed"):
        lower(net.model(net.node("Add", y, y)))


def test_a_tensor_that_is_annotated_twice() -> None:
    proto = model("Quant")
    for kind in ("INT4", "TERNARY"):
        note = proto.graph.quantization_annotation.add()
        note.tensor_name = "x"
        entry = note.quant_parameter_tensor_names.add()
        entry.key, entry.value = "finn_datatype", kind
    with pytest.raises(InputError, match=r"tensor 'x' is annotated 2 times"):
        lower(proto)
