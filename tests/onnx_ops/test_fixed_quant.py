"""The FixedQuant operator against the formats themselves, through qonnx's executor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes

from qhw.formats import Fixed, Overflow, Rounding
from qhw.onnx_ops import DOMAIN


def run(x: np.ndarray, fixed: Fixed, fraction: np.ndarray | None = None) -> tuple[np.ndarray, str]:
    extra = [] if fraction is None else [numpy_helper.from_array(fraction, "fraction")]
    node = helper.make_node(
        "FixedQuant",
        ["x", *(tensor.name for tensor in extra)],
        ["y"],
        domain=DOMAIN,
        width=fixed.width,
        integer=0 if fraction is not None else fixed.width - fixed.fraction,
        signed=int(fixed.signed),
        rounding=fixed.rounding.value,
        overflow=fixed.overflow.value,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        extra,
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(DOMAIN, 1)]
    model = ModelWrapper(helper.make_model(graph, opset_imports=opsets))
    model = model.transform(InferShapes()).transform(InferDataTypes(allow_scaledint_dtypes=True))
    assert model.get_tensor_shape("y") == list(x.shape)
    return execute_onnx(model, {"x": x})["y"], model.get_tensor_datatype("y").name


@st.composite
def formats(draw) -> Fixed:
    signed = draw(st.booleans())
    modes = [mode for mode in Overflow if signed or mode is not Overflow.WRAP_SM]
    width, integer = draw(st.integers(1, 12)), draw(st.integers(-3, 14))
    return Fixed(width, integer, signed, draw(st.sampled_from(Rounding)), draw(st.sampled_from(modes)))


@given(formats(), st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=20))
def test_executes_as_the_format_says(fixed, values):
    x = np.array(values, dtype=np.float32)
    y, _ = run(x, fixed)
    assert y.dtype == np.float32
    assert np.array_equal(y, fixed.quantize(x))


@given(formats(), st.lists(st.integers(-4, 9), min_size=1, max_size=5), st.integers(0, 1000))
def test_fraction_per_channel(fixed, fractions, seed):
    x = np.random.default_rng(seed).normal(0, 8, (2, len(fractions), 3)).astype(np.float32)
    y, _ = run(x, fixed, np.array(fractions).reshape(1, -1, 1))
    for channel, fraction in enumerate(fractions):
        assert np.array_equal(y[:, channel], fixed.learned(fixed.width - fraction).quantize(x[:, channel]))


@pytest.mark.parametrize(
    ("fixed", "name"),
    [
        (Fixed(8, 3), "FIXED<8,3>"),
        (Fixed(8, 3, signed=False), "SCALEDINT<8>"),
        (Fixed(8, -2), "SCALEDINT<8>"),
    ],
)
def test_data_type(fixed, name):
    assert run(np.zeros((2, 3), np.float32), fixed)[1] == name
