"""Tails in float32: thresholds and tables against the operations themselves, at every integer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qonnx.custom_op.general.quant import quant

from qhw.errors import UnsupportedError
from qhw.graph.tails.operations import CONSTANT, FALLING, RISING, ROUNDINGS, UNKNOWN, Step
from qhw.graph.tails.tail import (
    Lookup,
    Tail,
    Thresholds,
    affine_form,
    directions,
    evaluate,
    lower_tail,
)


def code(bits: int = 8, signed: bool = True, narrow: bool = False, rounding: str = "ROUND") -> dict:
    return {"bits": bits, "signed": signed, "narrow": narrow, "rounding_mode": rounding}


def chain(*steps: tuple, bits: int = 8, signed: bool = True, **options) -> Tail:
    """A tail of one root that ends in a Quant; a step is (op, constant or None, attributes)."""
    constants, built, tensor = {}, [], "x"
    for i, (op, constant, *attributes) in enumerate([*steps, ("Quant", None, code(bits, signed, **options))]):
        inputs = (tensor,)
        if constant is not None:
            constants[f"c{i}"] = np.asarray(constant, dtype=np.float32)
            inputs = (tensor, f"c{i}")
        tensor = f"t{i}"
        built.append(Step(op, inputs, tensor, attributes[0] if attributes else {}))
    return Tail("act", ("x",), tensor, tuple(built), constants)


def looked_up(found: Thresholds | Lookup, x: np.ndarray) -> np.ndarray:
    """What a Threshold or Table gives, by its definition."""
    rows = []
    for c, line in enumerate(x):
        if isinstance(found, Lookup):
            rows.append(found.table[min(c, len(found.table) - 1)][line - found.first])
            continue
        thresholds = found.thresholds[min(c, len(found.thresholds) - 1)]
        levels = found.levels[min(c, len(found.levels) - 1)]
        rows.append(levels[(line[:, None] >= thresholds[None, :]).sum(axis=1)])
    return np.stack(rows)


def check_everywhere(tail: Tail, low: np.ndarray, high: np.ndarray) -> Thresholds | Lookup:
    found = lower_tail(tail, low, high)
    if isinstance(found, Thresholds):
        assert (np.diff(found.thresholds, axis=1) > 0).all()
    for c in range(len(low)):
        x = np.arange(low[c], high[c] + 1)[None, :]
        expected = np.broadcast_to(evaluate(tail, {"x": x}), (tail.channels, x.size))[
            min(c, tail.channels - 1)
        ]
        rows = np.repeat(x, len(low), axis=0)
        assert (looked_up(found, rows)[c] == expected).all()
    return found


gains = st.floats(-3, 3, width=32).map(lambda g: 0.0 if abs(g) < 1e-3 else g)


@settings(max_examples=150, deadline=None)
@given(
    gain=st.lists(gains, min_size=3, max_size=3),
    bias=st.lists(st.floats(-40, 40, width=32), min_size=3, max_size=3),
    scale=st.floats(0.01, 3),
    activation=st.sampled_from([("Relu", None), ("LeakyRelu", None, {"alpha": 0.1}), ("Identity", None)]),
    bits=st.integers(1, 9),
    signed=st.booleans(),
    narrow=st.booleans(),
    rounding=st.sampled_from(sorted(ROUNDINGS)),
    span=st.tuples(st.integers(-700, 100), st.integers(0, 900)),
)
def test_thresholds_equal_the_operations_at_every_integer(
    gain, bias, scale, activation, bits, signed, narrow, rounding, span
):
    tail = chain(
        ("Mul", np.reshape(gain, (3, 1))),
        ("Add", np.reshape(bias, (3, 1))),
        activation,
        ("Div", scale),
        bits=bits,
        signed=signed,
        narrow=narrow and bits > 1,
        rounding=rounding,
    )
    low = np.array([span[0]] * 3)
    found = check_everywhere(tail, low, low + span[1])
    assert isinstance(found, Thresholds)


def test_rising_falling_constant_and_jumping_channels_in_one_tail():
    tail = chain(("Mul", [[0.37], [-0.37], [0.0], [40.0]]), ("Add", [[0.5], [0.5], [7.3], [0.0]]))
    low, high = np.full(4, -600), np.full(4, 600)
    assert directions(tail, low, high).tolist() == [RISING, FALLING, CONSTANT, RISING]
    found = check_everywhere(tail, low, high)
    assert isinstance(found, Thresholds)
    assert found.levels[2, 0] == 7


def test_channels_with_equal_codes_share_levels_and_thresholds():
    found = check_everywhere(chain(("Mul", 0.21)), np.full(5, -1000), np.full(5, 1000))
    assert found.thresholds.shape == (1, 255)
    assert found.levels.shape == (1, 256)


def test_ranges_differ_by_channel():
    tail = chain(("Mul", [[0.3], [0.3]]))
    check_everywhere(tail, np.array([-3, -5000]), np.array([4, 5000]))


def test_accumulators_beyond_float32_round_as_numpy_does():
    tail = chain(("Mul", 2.0**-24 * 1.1), bits=6)
    low, high = np.array([-(2**33)]), np.array([2**33 + 5])
    found = lower_tail(tail, low, high)
    edges = (found.thresholds[0][:, None] + np.arange(-2, 3)).reshape(1, -1)
    assert (looked_up(found, edges) == evaluate(tail, {"x": edges})).all()
    assert len(np.unique(found.levels)) == 64


def test_a_function_that_no_rule_decides_is_proven_by_trying_every_integer():
    tail = chain(("Mul", 0.01), ("Sigmoid", None), ("Div", 1 / 255), signed=False)
    assert directions(tail, np.array([-900]), np.array([900])).tolist() == [RISING]
    assert isinstance(check_everywhere(tail, np.array([-900]), np.array([900])), Thresholds)


def test_a_function_that_rises_and_falls_becomes_a_table():
    tail = chain(("Mul", [[0.05], [0.02]]), ("HardSwish", None), ("Div", 0.01))
    found = check_everywhere(tail, np.array([-128, -128]), np.array([127, 127]))
    assert isinstance(found, Lookup)
    assert found.table.shape == (2, 256)


def test_a_table_that_would_be_too_large_is_refused_by_name():
    tail = chain(("Mul", 1e-4), ("Gelu", None), ("Div", 0.01))
    with pytest.raises(UnsupportedError, match=r"'act'.*Mul → Gelu → Div → Quant.*80001") as error:
        lower_tail(tail, np.array([-40000]), np.array([40000]))
    assert "quantizer of at most 16 bits" in str(error.value)


def test_nan_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="'act'"):
        lower_tail(chain(("Log", None)), np.array([-3]), np.array([3]))


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["Mul", "Add", "Sub", "Min", "Max"]), st.floats(-4, 4, width=32)),
            st.tuples(st.just("Div"), st.sampled_from([-2.5, -0.3, 0.7, 3.0])),
            st.tuples(st.just("PRelu"), st.sampled_from([-0.2, 0.0, 0.25])),
            st.tuples(
                st.sampled_from(["Neg", "Abs", "Relu", "Round", "Floor", "Ceil", "Sign", "Tanh"]), st.none()
            ),
        ),
        max_size=6,
    )
)
def test_a_direction_that_a_rule_states_is_true(steps):
    tail = chain(*steps, bits=12)
    low, high = np.array([-60]), np.array([60])
    codes = evaluate(tail, {"x": np.arange(-60, 61)[None, :]})[0]
    moves = np.diff(codes)
    stated = directions(tail, low, high)[0]
    if stated == RISING:
        assert (moves >= 0).all()
    elif stated == FALLING:
        assert (moves <= 0).all()
    elif stated == CONSTANT:
        assert (moves == 0).all()
    else:
        assert stated == UNKNOWN
        assert (moves > 0).any()
        assert (moves < 0).any()


@pytest.mark.parametrize("rounding", sorted(ROUNDINGS))
@pytest.mark.parametrize(("signed", "narrow"), [(True, False), (True, True), (False, False), (False, True)])
def test_quant_step_equals_qonnx(rounding, signed, narrow):
    x = np.concatenate([np.arange(-40, 41) / 4, np.random.default_rng(0).normal(size=500) * 9]).astype(
        np.float32
    )
    one, zero, bits = np.float32(1), np.float32(0), np.asarray(4, np.float32)
    expected = quant(x, one, zero, bits, signed, narrow, rounding)
    step = Step("Quant", ("v",), "y", code(4, signed, narrow, rounding))
    tail = Tail("q", ("x",), "y", (Step("Mul", ("x", "c"), "v"), step), {"c": np.float32(1)})
    fine = Tail("q", ("x",), "y", (Step("Mul", ("x", "c"), "v"), step), {"c": x[:, None]})
    assert (evaluate(fine, {"x": np.ones((1, 1), np.int64)})[:, 0] == expected).all()
    assert tail.channels == 1


def test_affine_form_of_scale_and_shift():
    steps = (
        Step("Mul", ("x", "a"), "u"),
        Step("Add", ("u", "b"), "v"),
        Step("Div", ("v", "c"), "w"),
        Step("Sub", ("w", "b"), "y"),
    )
    constants = {
        "a": np.array([[0.5], [-2]], np.float32),
        "b": np.float32(3),
        "c": np.float32(4),
    }
    scale, offset = affine_form(Tail("out", ("x",), "y", steps, constants))
    assert scale.tolist() == [0.125, -0.5]
    assert offset.tolist() == [0.75 - 3, 0.75 - 3]
    assert affine_form(chain(("Relu", None))) is None
    backwards = Tail("out", ("x",), "y", (Step("Sub", ("b", "x"), "y"),), constants)
    assert affine_form(backwards) is None
