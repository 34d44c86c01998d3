"""A network's estimate: which units its nodes become, and how their cycles add up."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from qhw.boards import Board, load_board
from qhw.cost import Design, Estimate, estimate
from qhw.cost.pricing.architecture import Architecture
from qhw.cost.pricing.calibrated import CostModel
from qhw.cost.pricing.costing import ESTIMATED, Costing
from qhw.cost.pricing.estimate import LABEL
from qhw.cost.pricing.hardware import Hardware
from qhw.errors import InputError, UnsupportedError
from qhw.flows.base import list_flows, load_flow
from qhw.flows.hls4ml.folding import ReuseFactor
from qhw.flows.hls4ml.template import architecture
from qhw.flows.rtl import template as rtl
from qhw.flows.rtl.template import PeSimd
from qhw.formats import Integer
from qhw.graph import ir
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph

ULTRA96 = load_board("ultra96")
STREAMED, PARALLEL = architecture("io_stream"), architecture("io_parallel")


def priced(
    graph: ExactGraph, folding: dict[str, int], board: Board = ULTRA96, built: Architecture = STREAMED
) -> Estimate:
    """The estimate of a graph as it is, with those reuse factors."""
    folds = {name: ReuseFactor(factor) for name, factor in folding.items()}
    return estimate(Design(graph, board, built, folding=folds))


def two_layers() -> ExactGraph:
    builder = GraphBuilder("two_layers")
    x = builder.input("x", (3, 8, 8), Integer(8, False), -8)
    weight = builder.constant("w", np.full((4, 3, 3, 3), 3), Integer(8), -7)
    y = builder.conv("conv", x, weight, pads=(1, 1, 1, 1))
    return builder.finish([builder.requant("act", y, Integer(8), -6)])


@pytest.mark.parametrize("flow", [name for name in list_flows() if name != "mcu"])  # priced as a whole
def test_every_operation_has_a_rule(flow: str) -> None:
    assert set(load_flow(flow).architecture(two_layers()).rules) == set(ir.OPERATIONS)


def test_an_operation_without_one_is_named() -> None:
    @dataclass(frozen=True)
    class Sort(ir.Reshape):
        """An operation that nobody has priced."""

    try:
        graph = two_layers()
        graph.nodes[1] = Sort("sorting", ("conv",), "act")
        with pytest.raises(UnsupportedError, match="Sort 'sorting' has no cost model"):
            priced(graph, {})
    finally:
        del ir.OPERATIONS["Sort"]


def test_cycles_of_two_layers() -> None:
    result = priced(two_layers(), {"conv": 9})
    conv, act = result.layers
    assert conv.initiation_interval == 8 * 8 + 36 + 64 * 8  # image, padding, eight more cycles per pixel
    assert conv.dsp == math.ceil(27 * 4 / 9)
    assert act.initiation_interval == 64
    assert result.initiation_interval == conv.initiation_interval
    assert result.latency_cycles == conv.cycles + (act.cycles - act.initiation_interval)
    assert result.throughput_fps == pytest.approx(200e6 / conv.initiation_interval)
    assert result.latency_us == pytest.approx(result.latency_cycles / 200)


def test_totals_and_utilisation_of_the_board() -> None:
    result = priced(two_layers(), {"conv": 27}, replace(ULTRA96, clock_mhz=100.0))
    assert result.totals == {name: sum(getattr(layer, name) for layer in result.layers) for name in ESTIMATED}
    assert result.utilisation["lut"] == result.totals["lut"] / 70560
    assert (result.fits, result.label, result.clock_mhz) == (True, LABEL, 100)
    bare = ULTRA96.having(dsp=0)
    assert priced(two_layers(), {"conv": 27}, bare).utilisation["dsp"] == math.inf
    assert priced(two_layers(), {}, bare).utilisation["dsp"] == 0


def test_more_reuse_takes_longer_and_fewer_multipliers() -> None:
    graph = two_layers()
    factors = [1, 3, 9, 27, 54, 108]
    costs = Costing.of(graph, "ultrascale-plus", STREAMED).layers(
        graph.nodes[0], list(map(ReuseFactor, factors))
    )
    intervals, slices = [c.initiation_interval for c in costs], [c.dsp for c in costs]
    assert intervals == sorted(intervals)
    assert slices == [0, 36, 12, 4, 2, 1]
    assert [priced(graph, {"conv": factor}).layers[0] for factor in factors] == costs


def test_constants_of_few_ones_cost_less_when_unrolled() -> None:
    def unrolled(value: int) -> int:
        builder = GraphBuilder("dense")
        x = builder.input("x", (16,), Integer(8), 0)
        weight = builder.constant("w", np.full((16, 8), value), Integer(8), 0)
        return priced(builder.finish([builder.matmul("fc", x, weight)]), {}).layers[0].lut

    assert unrolled(0) < unrolled(64) < unrolled(3) < unrolled(85)


def test_where_branches_meet_a_stream_holds_an_image() -> None:
    builder = GraphBuilder("residual")
    x = builder.input("x", (16, 28, 28), Integer(8), 0)
    y = builder.requant("act", x, Integer(8), 1)
    graph = builder.finish([builder.add("join", x, y)])
    act, join = priced(graph, {}).layers
    assert (act.bram18, join.bram18) == (0, 8 + 8)  # 784 words of 128 bits are 8 block RAMs
    assert {layer.bram18 for layer in priced(graph, {}, built=PARALLEL).layers} == {0}


def test_a_requant_that_is_the_result_type_of_its_layer_has_no_stream() -> None:
    act = priced(two_layers(), {}).layers[1]
    parallel = priced(two_layers(), {}, built=PARALLEL).layers[1]
    assert (act.lut - 1) * 64 < parallel.lut <= act.lut * 64  # a layer's LUT are rounded up
    assert act.ff * 64 == parallel.ff  # LUT, a mean of fitted weights, are rounded after they are added up


def test_a_parallel_interface_unrolls_the_pixels() -> None:
    stream, parallel = (priced(two_layers(), {"conv": 27}, built=built) for built in (STREAMED, PARALLEL))
    assert parallel.layers[1].ff == 64 * stream.layers[1].ff
    assert parallel.layers[1].initiation_interval == 1


def every_operation() -> ExactGraph:
    builder = GraphBuilder("everything")
    x = builder.input("x", (4, 6, 6), Integer(8), 0)
    y = builder.max_pool("max_pool", x, (2, 2))
    y = builder.sum_pool("sum_pool", y, (2, 2), (1, 1))
    y = builder.mul("mul", y, y)
    y = builder.mul("scale", y, builder.constant("scale_by", np.array(5)))
    y = builder.requant("requant", y, Integer(8), 4)
    thresholds = builder.constant("thresholds", np.arange(-20, 20, 2)[None])
    y = builder.threshold(
        "threshold", y, thresholds, builder.constant("levels", np.arange(21)[None]), Integer(6)
    )
    y = builder.table("table", y, builder.constant("entries", np.arange(64)[None]), -32, Integer(8))
    y = builder.pad("pad", y, (0, 1, 1, 0, 1, 1))
    y = builder.slice("slice", y, 1, 0, 3)
    y = builder.concat("concat", [y, y], 0)
    y = builder.transpose("transpose", y, (1, 0, 2))
    y = builder.upsample("upsample", y, (1, 2))
    y = builder.reduce_max("reduce_max", y, (0,), False)
    y = builder.reduce_sum("reduce_sum", y, (1,), False)
    y = builder.reshape("reshape", y, (1, 8))
    return builder.finish([builder.matmul("product", y, builder.constant("w", np.ones((8, 2), dtype=int)))])


@pytest.mark.parametrize("built", [STREAMED, PARALLEL])
def test_every_operation_is_priced(built: Architecture) -> None:
    layers = priced(every_operation(), {}, built=built).layers
    moves = {"Reshape", "Slice", "Pad", "Concat", "Transpose", "Upsample"}
    assert all(layer.lut + layer.dsp > 0 for layer in layers if layer.op not in moves)
    assert all(layer.cycles > 0 for layer in layers)


@pytest.mark.parametrize(("built", "fold"), [(STREAMED, ReuseFactor(1)), (rtl.ARCHITECTURE, PeSimd(16, 1))])
@pytest.mark.parametrize(
    ("factors", "zeros", "kept"),
    [((2, 2), False, 40), ((3, 1), False, 40), ((1, 2), False, 0), ((1, 1), False, 0), ((2, 2), True, 0)],
)
def test_rows_that_are_given_again_are_kept(
    built: Architecture, fold: ReuseFactor | PeSimd, factors: tuple[int, int], zeros: bool, kept: int
) -> None:
    """Copies along the rows need a row of the image; a pixel's copies and zeros need nothing."""
    builder = GraphBuilder("larger")
    x = builder.input("x", (16, 30, 40), Integer(6), 0)
    graph = builder.finish([builder.upsample("up", x, factors, zeros)])
    (layer,) = Costing.of(graph, "ultrascale-plus", built).layers(graph.nodes[0], [fold])
    stream = Hardware.of("ultrascale-plus").fifo(2, 16 * 6)
    assert layer.initiation_interval == 30 * 40 * math.prod(factors)
    assert layer.memory_bits == (kept + 2) * 16 * 6
    assert (layer.lut > math.ceil(stream.lut)) == (kept > 0)
    assert layer.ff == stream.ff or kept


def test_a_pixel_in_several_words_is_kept_to_be_given_again() -> None:
    builder = GraphBuilder("larger")
    graph = builder.finish([builder.upsample("up", builder.input("x", (16, 30), Integer(6), 0), (2,))])
    costs = Costing.of(graph, "ultrascale-plus", rtl.ARCHITECTURE).layers(
        graph.nodes[0], [PeSimd(16, 1), PeSimd(4, 1)]
    )
    assert [cost.memory_bits for cost in costs] == [2 * 16 * 6, 16 * 6 + 2 * 4 * 6]
    assert [cost.initiation_interval for cost in costs] == [60, 240]


@pytest.mark.parametrize("factor", [0, -1, 1.5, True, "2"])
def test_a_factor_that_is_none_is_explained(factor: int) -> None:
    with pytest.raises(InputError, match=f"reuse_factor must be a positive whole number, not {factor!r}"):
        ReuseFactor(factor)
    with pytest.raises(InputError, match=f"simd must be a positive whole number, not {factor!r}"):
        PeSimd(1, factor)


def test_a_folding_of_another_notion_or_node_is_explained() -> None:
    design = Design(two_layers(), ULTRA96, STREAMED)
    with pytest.raises(InputError, match="did you mean conv"):
        design.folded({"cnv": ReuseFactor(2)})
    with pytest.raises(InputError, match="'conv' must be by reuse factor"):
        design.folded({"conv": PeSimd(2, 1)})


@pytest.mark.parametrize("fold", [ReuseFactor(9), PeSimd(4, 2)])
def test_a_folding_comes_back_from_json(fold: ReuseFactor | PeSimd) -> None:
    stored = json.loads(json.dumps(fold.to_json()))
    assert type(fold).from_json(stored) == fold
    for wrong in ({"reuse": 2}, [2], 2, {"pe": "2"}):
        with pytest.raises(InputError):
            PeSimd.from_json(wrong)


def test_what_has_no_cost_is_told_with_its_node_and_layer() -> None:
    """Before anything is built: a unit that was not measured on the family."""
    graph = two_layers()
    graph.nodes[0] = replace(graph.nodes[0], source="features.0")
    design = Design(graph, ULTRA96, STREAMED)
    weights = {name: w for name, w in design.costing.hardware.model.weights.items() if name != "integer_dot"}
    costing = replace(
        design.costing,
        hardware=replace(
            design.costing.hardware, model=CostModel("ultrascale-plus", weights), multipliers="dsp"
        ),
    )
    with pytest.raises(InputError, match=r"Conv 'conv' \(from features.0\) cannot be priced: .*integer_dot"):
        costing.layers(graph.nodes[0], [ReuseFactor(2)])
