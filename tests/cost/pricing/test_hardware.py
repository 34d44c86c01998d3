"""What operations are built of: the units that each pair of formats takes, and how counts grow."""

from __future__ import annotations

import numpy as np
import pytest

from qhw.boards import load_board
from qhw.cost import Design, estimate
from qhw.cost.pricing.hardware import Hardware
from qhw.cost.pricing.usage import Usage
from qhw.errors import InputError
from qhw.flows.hls4ml.folding import ReuseFactor
from qhw.flows.hls4ml.template import architecture
from qhw.formats import Format, Integer, parse_format
from qhw.formats.modes import Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph

FAMILY = "ultrascale-plus"
HARDWARE = Hardware.of(FAMILY)


def dots(a: str, b: str, hardware: Hardware = HARDWARE, lanes: int = 8, elements: int = 4) -> Usage:
    return hardware.dots(parse_format(a), parse_format(b), lanes, elements, 40)


@pytest.mark.parametrize(
    "weights", ["khot<8,1>", "khot<8,3>", "khot<8,2,csd>", "pow2<4>", "binary", "ternary"]
)
@pytest.mark.parametrize("activations", ["int8", "fixed<18,9>", "e4m3", "khot<6,2>"])
def test_weights_without_a_multiplier_take_no_dsp_slice(weights: str, activations: str) -> None:
    usage = dots(activations, weights)
    assert usage.dsp == 0
    assert usage.lut > 0


@pytest.mark.parametrize("a", ["int8", "e4m3", "e3m2", "binary", "pow2<4>"])
@pytest.mark.parametrize("b", ["int4", "e5m2", "e2m1", "khot<8,2>", "binary"])
def test_every_pair_of_formats_is_priced_and_grows(a: str, b: str) -> None:
    small, more = dots(a, b, lanes=4), dots(a, b, lanes=16)
    assert 0 < small.lut < more.lut
    assert 0 < small.ff < more.ff
    assert dots(a, b, elements=8).lut == pytest.approx(2 * dots(a, b).lut)


def test_wider_formats_take_more() -> None:
    for formats in (
        ("int3", "int5", "int7"),
        ("e2m1", "e3m2", "e4m3"),
        ("khot<8,1>", "khot<8,2>", "khot<8,3>"),
    ):
        activations = "int4" if formats[0].startswith("int") else "int8"
        lut = [float(dots(activations, text, Hardware.of(FAMILY, "lut")).lut) for text in formats]
        assert lut == sorted(lut)
        assert len(set(lut)) == 3


def test_the_choice_of_multipliers() -> None:
    lut, dsp, packed, auto = (Hardware.of(FAMILY, choice) for choice in ("lut", "dsp", "packed", "auto"))
    used = {
        name: dots("uint8", "int8", chosen) for name, chosen in (("lut", lut), ("dsp", dsp), ("auto", auto))
    }
    assert (used["lut"].dsp, used["dsp"].dsp, used["auto"].dsp) == (0, 32, 32)
    assert used["dsp"].lut < used["lut"].lut
    assert dots("uint8", "int8", packed).dsp == 16
    assert dots("uint4", "int4", packed).dsp == 8
    assert dots("uint4", "int4", auto).dsp == 0
    # The corrections of packing, and the sums behind the slices, take LUTs.
    assert dots("uint8", "int8", packed).lut > used["dsp"].lut


@pytest.mark.parametrize(
    ("a", "b", "family", "slices"),
    [
        (8, 8, "7series", 1),
        (25, 18, "7series", 1),
        (26, 18, "7series", 2),
        (26, 18, "ultrascale-plus", 1),
        (18, 27, "ultrascale-plus", 1),
        (28, 18, "ultrascale-plus", 2),
        (27, 19, "ultrascale-plus", 2),
        (53, 35, "ultrascale-plus", 4),
    ],
)
def test_dsp_slices_by_port_width(a: int, b: int, family: str, slices: int) -> None:
    assert Hardware.of(family, "dsp").dots(Integer(a), Integer(b), 1, 1, 48).dsp == slices


def test_unrolled_constants_cost_their_digits() -> None:
    x = Integer(8).operand()
    lut = [
        float(HARDWARE.constant_dots(np.full((16, 2), value), x).lut)
        for value in (0, 64, 5, 0b10101, 0b1010101)
    ]
    assert lut == sorted(lut)
    assert lut[0] == HARDWARE.sums(1, 8).lut * 2 == 0
    assert lut[1] == pytest.approx(2 * HARDWARE.sums(16, 8).lut)


def test_memories_change_their_kind_with_depth() -> None:
    weights = HARDWARE.weights(np.array([1, 64, 512]), 72)
    assert weights.bram18.tolist() == [0, 0, 2]
    assert weights.lut[0] == 0 < weights.lut[1]
    stream = HARDWARE.fifo(np.array([2, 8, 9, 784]), 128)
    assert stream.bram18.tolist() == [0, 0, 4, 8]


def test_thresholds_compare_at_once_while_few_and_bisect_when_many() -> None:
    few, many, more = (HARDWARE.threshold(30, count, True) for count in (15, 255, 510))
    step = HARDWARE.threshold(30, 1, True)
    assert few.lut > 10 * step.lut
    compared = HARDWARE.model.usage("threshold", A=30, T=255, S=1)
    assert step.lut < many.lut < compared.lut / 5
    assert (few.bram18, many.bram18) == (0, 0)
    assert more.bram18 > 0


def test_requantising_costs_what_the_modes_need() -> None:
    def lut(dropped: int, rounding: Rounding, bits: int = 20) -> float:
        return float(HARDWARE.requantise(Integer(bits), Integer(8), dropped, rounding, True).lut)

    floor, even, half_up = Rounding.TRN, Rounding.RND_CONV, Rounding.RND
    assert lut(6, floor) < lut(6, half_up) < lut(6, even)
    assert lut(0, floor, bits=8) == 0


def test_a_family_without_a_model_is_named() -> None:
    with pytest.raises(InputError, match="'virtex2' is not a device family"):
        Hardware.of("virtex2")
    with pytest.raises(InputError, match="unknown choice of multipliers 'dsps'"):
        Hardware.of(FAMILY, "dsps")  # type: ignore[arg-type]


def dense(weights: Format, activations: Format) -> ExactGraph:
    random = np.random.default_rng(0)
    builder = GraphBuilder("dense")
    x = builder.input("x", (16,), activations)
    numbers = weights.mantissa_of(np.setdiff1d(weights.codes(), list(weights.special_codes)))
    w = builder.constant("w", random.choice(numbers, (16, 8)), weights)
    return builder.finish([builder.matmul("dense", x, w)])


@pytest.mark.parametrize("reuse", [1, 4])
def test_a_folded_k_hot_layer_needs_no_dsp_slice_where_integers_do(reuse: int) -> None:
    board = load_board("ultra96")

    def dsp(weights: str) -> int:
        graph = dense(parse_format(weights), Integer(8))
        return estimate(
            Design(graph, board, architecture("io_stream"), folding={"dense": ReuseFactor(reuse)})
        ).totals["dsp"]

    assert dsp("khot<8,2>") == 0
    assert dsp("int8") == (0 if reuse == 1 else 16 * 8 // reuse)
