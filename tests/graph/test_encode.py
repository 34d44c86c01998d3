"""Input encodings against qonnx's own Quant; output values against their definition."""

import numpy as np
import pytest
from qonnx.custom_op.general.quant import quant

from qhw.errors import InputError
from qhw.formats.integer import Integer
from qhw.formats.modes import Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.encode import decode_output, encode_input, encode_inputs
from qhw.graph.ir import Exponent, InputEncoding, InputStep, OutputScale

QONNX_MODES = {
    Rounding.RND_CONV: "ROUND",
    Rounding.TRN: "FLOOR",
    Rounding.CEIL: "CEIL",
    Rounding.UP: "UP",
    Rounding.TRN_ZERO: "DOWN",
    Rounding.RND_INF: "HALF_UP",
    Rounding.RND_ZERO: "HALF_DOWN",
}


def graph_with(encoding, shape=(50,)):
    builder = GraphBuilder("g")
    builder.input("x", shape, Integer(9), 0, encoding)
    return builder.finish()


@pytest.mark.parametrize("rounding", QONNX_MODES)
@pytest.mark.parametrize("scale", [0.25, 0.1, 0.0371])
@pytest.mark.parametrize("zero_point", [0.0, 3.0])
def test_encoding_gives_the_codes_of_a_quant_node(rounding, scale, zero_point):
    x = np.random.default_rng(0).normal(0, 30 * scale, (40, 50)).astype(np.float32)
    x[0] = np.arange(-25, 25) * np.float32(scale) / 2
    graph = graph_with(InputEncoding(scale, zero_point, -128, 127, rounding))
    ours = encode_input(graph, "x", x)
    f32 = np.float32
    theirs = quant(x, f32(scale), f32(zero_point), f32(8), 1, 0, QONNX_MODES[rounding])
    assert (ours.astype(f32) * f32(scale) == theirs).all()


def test_an_integer_input_takes_only_its_integers():
    graph = graph_with(InputEncoding(1.0, 0.0, 0, 255, Rounding.RND_CONV, exact=True), (2,))
    assert encode_input(graph, "x", np.array([[0, 255]], dtype=np.uint8)).tolist() == [[0, 255]]
    for wrong in (0.5, 256, -1):
        with pytest.raises(InputError, match=r"\(0, 1\)"):
            encode_input(graph, "x", np.array([[0, wrong]]))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 3)), "shape"),
        (np.zeros(2), "shape"),
        (np.array([["a", "b"]]), "type"),
        (np.array([[0, np.nan]]), "nan"),
        (np.array([[np.inf, 0]]), "inf"),
    ],
)
def test_bad_arrays_are_refused(array, message):
    graph = graph_with(InputEncoding(1.0, 0.0, 0, 255, Rounding.RND_CONV), (2,))
    with pytest.raises(InputError, match=message):
        encode_inputs(graph, array)


def test_arrays_for_other_inputs_are_refused():
    with pytest.raises(InputError, match="given for y"):
        encode_inputs(graph_with(None), {"y": np.zeros((1, 50))})


def test_output_values():
    builder = GraphBuilder("g")
    x = builder.input("x", (2, 3), Integer(4), Exponent((-1, -2), 0))
    builder.output(x, OutputScale((3.0, 0.1), (0.5,)))
    values = decode_output(builder.graph, x, np.array([[[1, 2, 3], [4, 5, 6]]]))
    assert (values == [[[2.0, 3.5, 5.0], [1 * 0.1 + 0.5, 1.25 * 0.1 + 0.5, 1.5 * 0.1 + 0.5]]]).all()


def test_numbers_beyond_every_integer_are_told_without_a_warning(recwarn):
    exact = graph_with(None)
    with pytest.raises(InputError, match=r"holds 1e\+300 at"):
        encode_input(exact, "x", np.full((1, 50), 1e300))
    rounded = graph_with(InputEncoding(0.5, 0.0, -128, 127, Rounding.RND_CONV))
    assert set(encode_input(rounded, "x", np.full((1, 50), 1e300)).flat) == {127}
    assert set(encode_input(rounded, "x", np.full((1, 50), -3e38)).flat) == {-128}
    assert len(recwarn) == 0


def test_numbers_that_overflow_in_front_of_the_quantizer_are_refused():
    """-1e38 times 10 is infinite in float32, and infinity times 0 is no number."""
    steps = (InputStep("Mul", (None, 10.0)), InputStep("Mul", (None, 0.0)))
    encoding = InputEncoding(0.5, 0.0, -128, 127, Rounding.RND_CONV, before=steps)
    with pytest.raises(InputError, match="overflow float32"):
        encode_input(graph_with(encoding), "x", np.full((1, 50), -1e38))
