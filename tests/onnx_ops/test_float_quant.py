"""QONNX's FloatQuant as specified, against the formats; and where qonnx's own executor departs from that."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from qonnx.core.modelwrapper import ModelWrapper

from qhw.formats import Minifloat, Rounding, Special
from qhw.formats.modes import QONNX_ROUNDING
from qhw.onnx_ops.float_quant import differences_of_qonnx
from qhw.onnx_ops.specified import as_specified

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))

from qonnx_factory import Net, execute


def probes(format: Minifloat) -> np.ndarray:
    """Every number, midpoint and quarter of the format, and the float32 numbers beside them."""
    numbers = np.unique(format.enumerate()[np.isfinite(format.enumerate())])
    gaps = np.diff(numbers)
    exact = np.concatenate([numbers, *(numbers[:-1] + gaps * part for part in (0.25, 0.5, 0.75))])
    exact = np.concatenate([exact, numbers * 1.5]).astype(np.float32)
    beside = [np.nextafter(exact, np.float32(end)) for end in (-np.inf, np.inf)]
    return np.concatenate([exact, *beside])[None, :]


def model_of(x: np.ndarray, e: int, m: int, scale: float, **options: Any) -> ModelProto:
    net = Net((x.shape[1],))
    return net.model(net.float_quant("x", e, m, scale, name="q", **options))


def specified(model: ModelProto, x: np.ndarray) -> np.ndarray:
    """By qhw's executor, whether qonnx departs or not."""
    model = ModelProto.FromString(model.SerializeToString())
    model.graph.node[0].domain = "qhw.onnx_ops"
    return execute(model, x)[0]


@pytest.mark.parametrize("scale", [1.0, 0.037])
@pytest.mark.parametrize("mode", sorted(QONNX_ROUNDING))
@pytest.mark.parametrize(("e", "m"), [(4, 3), (5, 2), (3, 2), (2, 1)])
def test_every_mode_as_specified_and_told_where_qonnx_departs(
    e: int, m: int, mode: str, scale: float
) -> None:
    format = Minifloat(e, m, rounding=QONNX_ROUNDING[mode])
    x = probes(format) * np.float32(scale)
    model = model_of(x, e, m, scale, rounding=mode)
    expected = (format.quantize(x / np.float32(scale)) * np.float32(scale)).astype(np.float32)
    np.testing.assert_array_equal(specified(model, x), expected)
    departs = differences_of_qonnx(model)
    # At a scale of 1 the probes hold the very numbers on which its logarithm is one too high.
    equal = np.array_equal(execute(model, x)[0], expected)
    assert equal or departs
    if scale == 1.0:
        assert equal == (not departs)
    np.testing.assert_array_equal(execute(as_specified(ModelWrapper(model)), x)[0], expected)


@pytest.mark.parametrize(
    ("flags", "format"),
    [
        ({"has_subnormal": 0}, Minifloat(4, 3, subnormals=False)),
        ({"has_nan": 1}, Minifloat(4, 3, special=Special.FN)),
        ({"has_inf": 1, "has_nan": 1}, Minifloat(4, 3, special=Special.IEEE)),
        ({"has_infinity": 1, "has_nan": 1}, Minifloat(4, 3, special=Special.IEEE)),
        ({"bias": 0.0}, Minifloat(4, 3, bias=0)),
        ({"bias": 11.0}, Minifloat(4, 3, bias=11)),
    ],
)
def test_special_values_subnormals_and_bias(flags: dict[str, Any], format: Minifloat) -> None:
    x = probes(format)
    model = model_of(x, 4, 3, 1.0, **flags)
    if "has_infinity" in flags:
        _drop(model, "has_inf")
    expected = format.quantize(x).astype(np.float32)
    np.testing.assert_array_equal(specified(model, x), expected)
    departs = differences_of_qonnx(model)
    assert bool(departs) == (not any(key in flags for key in ("bias",)))
    np.testing.assert_array_equal(execute(as_specified(ModelWrapper(model)), x)[0], expected)
    if not departs:
        np.testing.assert_array_equal(execute(model, x)[0], expected)


def _drop(model: ModelProto, attribute: str) -> None:
    (node,) = model.graph.node
    kept = [a for a in node.attribute if a.name != attribute]
    del node.attribute[:]
    node.attribute.extend(kept)


def test_with_the_largest_value_of_its_special_values_qonnx_agrees() -> None:
    format = Minifloat(4, 3, special=Special.FN)
    x = probes(format)
    model = model_of(x, 4, 3, 1.0, has_nan=1, largest=448.0)
    assert differences_of_qonnx(model) == {}
    assert as_specified(wrapper := ModelWrapper(model)) is wrapper
    np.testing.assert_array_equal(execute(model, x)[0], format.quantize(x))


def test_a_smaller_largest_value_is_no_departure() -> None:
    x = probes(Minifloat(4, 3))
    model = model_of(x, 4, 3, 1.0, largest=416.0)
    assert differences_of_qonnx(model) == {}
    expected = np.clip(Minifloat(4, 3).quantize(x), -416, 416)
    np.testing.assert_array_equal(execute(model, x)[0], expected)
    np.testing.assert_array_equal(specified(model, x), expected)


def test_inputs_that_are_left_out() -> None:
    x = probes(Minifloat(3, 2))
    model = model_of(x, 3, 2, 1.0)
    del model.graph.node[0].input[4:]
    assert "left out" in differences_of_qonnx(model)["q"]
    found = execute(as_specified(ModelWrapper(model)), x)[0]
    np.testing.assert_array_equal(found, Minifloat(3, 2).quantize(x))
    assert Minifloat(3, 2).rounding is Rounding.RND_CONV
