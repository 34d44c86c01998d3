"""What the FINN template says of whole layers, against those layers synthesised as one."""

from __future__ import annotations

import pytest

from qhw.cost.calibration.layers import FoldedLayer
from qhw.cost.calibration.reference_layers import convolution, depthwise, linear
from qhw.cost.oracle.synth import Circuit, Yosys
from qhw.cost.pricing.architecture import LayerCost
from qhw.cost.pricing.costing import Costing
from qhw.cost.pricing.hardware import Hardware
from qhw.cost.pricing.usage import Usage
from qhw.flows.rtl.template import ARCHITECTURE, PeSimd
from qhw.formats import Integer, Minifloat, parse_format
from qhw.rtl import UNITS

FAMILY = "ultrascale-plus"


def predicted(layer: FoldedLayer) -> list[LayerCost]:
    costing = Costing.of(layer.graph, FAMILY, ARCHITECTURE)
    folds = PeSimd(layer.pe, layer.simd), PeSimd(layer.pe)
    return [costing.layers(node, [fold])[0] for node, fold in zip(layer.graph.nodes, folds, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("layer", [convolution(), depthwise(1), linear()], ids=lambda layer: layer.graph.name)
def test_a_layer_takes_what_was_predicted(layer: FoldedLayer) -> None:
    pytest.importorskip("pyosys")
    unit, costs = layer.as_unit(), predicted(layer)
    design = Circuit(unit.top, unit.files, text=layer.verilog(), memories=True, vendor_cells=True)
    counts = Yosys(FAMILY).synthesise(design).counts
    assert counts is not None
    assert sum(cost.lut for cost in costs) == pytest.approx(counts.lut, rel=0.08)
    assert sum(cost.ff for cost in costs) == pytest.approx(counts.ff, rel=0.02)
    assert sum(cost.dsp for cost in costs) == counts.dsp
    assert sum(cost.bram18 for cost in costs) == counts.bram18


def test_streams_are_as_wide_as_what_is_taken_at_once() -> None:
    """A fold of a vector, in two words and the output's; the vector only where it is not folded."""
    hardware = Hardware.of(FAMILY)
    narrow, wide = (hardware.fifo(2, lanes * 6).ff for lanes in (8, 32))
    folded, whole = (predicted(linear(4, simd))[0] for simd in (8, 32))
    assert wide - narrow == 3 * 24 * 6
    assert folded.memory_bits == 32 * 16 * 6 + 2 * 8 * 6
    assert whole.memory_bits == 32 * 16 * 6 + 32 * 6


def test_elements_share_what_belongs_to_their_common_operand() -> None:
    hardware, kind = Hardware.of(FAMILY, "lut"), parse_format("e3m2")
    assert hardware.shared(Integer(4), Integer(4), 4, True) == Usage(ff=4 * 4 + 4)
    assert hardware.shared(Integer(4), Integer(4), 4, False) == Usage(ff=4)
    assert hardware.shared(kind, kind, 8, True) == Usage(lut=8 * 4, ff=8 * 6 + 8)
    assert Hardware.of(FAMILY, "dsp").shared(Integer(8), Integer(8), 1, True) == Usage(ff=3)
    assert hardware.shared(Integer(8), parse_format("khot<8,2>"), 4, True) == Usage()


@pytest.mark.slow
@pytest.mark.parametrize(("exponent", "mantissa", "sum_bits"), [(2, 1, 20), (3, 2, 22), (4, 3, 40)])
def test_two_dot_products_of_the_same_minifloats_share_their_registers_and_exponents(
    exponent: int, mantissa: int, sum_bits: int
) -> None:
    pytest.importorskip("pyosys")
    kind, unit, lanes = Minifloat(exponent, mantissa), UNITS["minifloat_dot"], 4
    values = {"EA": exponent, "MA": mantissa, "EB": exponent, "MB": mantissa, "L": lanes, "A": sum_bits}
    settings = ", ".join(f".{name}({value})" for name, value in values.items())
    word = lanes * kind.width
    both = "\n".join(
        f"minifloat_dot #({settings}) dot{i} (.clk(clk), .enable(enable), .first(first), .a(a), "
        f".b(b[{i * word}+:{word}]), .sum(sum[{i * sum_bits}+:{sum_bits}]));"
        for i in range(2)
    )
    text = (
        f"module both (input clk, enable, first, input [{word - 1}:0] a, input [{2 * word - 1}:0] b, "
        f"output [{2 * sum_bits - 1}:0] sum);\n{both}\nendmodule\n"
    )
    oracle = Yosys(FAMILY)
    pair = oracle.synthesise(Circuit("both", unit.files, text=text)).counts
    alone = oracle.synthesise(Circuit(unit.top, unit.files, tuple(values.items()))).counts
    assert pair is not None
    assert alone is not None
    shared = Hardware.of(FAMILY).shared(kind, kind, lanes, True)
    assert 2 * alone.ff - pair.ff == shared.ff
    assert shared.lut - 1 <= 2 * alone.lut - pair.lut <= shared.lut + 2 * lanes


def test_a_window_that_is_needed_at_once_lies_in_registers() -> None:
    """Beyond a pixel's channels at a time, the window generator holds all its pixels."""
    layer = convolution()
    costing = Costing.of(layer.graph, FAMILY, ARCHITECTURE)
    one, several = costing.layers(layer.graph.nodes[0], [PeSimd(2, 4), PeSimd(2, 12)])
    registers = several.ff - one.ff
    assert registers > 2 * 8 * 8 + 9 * 16 - 16
    assert several.initiation_interval * 3 == one.initiation_interval
