"""A network's estimate: which units its nodes become, and how their cycles add up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from qhw.boards import Board, load_board
from qhw.cost import estimate
from qhw.cost.estimate import ESTIMATED, LABEL, Costing
from qhw.cost.hardware import Hardware
from qhw.cost.templates import TEMPLATES, Fold
from qhw.errors import InputError, UnsupportedError
from qhw.formats import Integer
from qhw.graph import ir
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph

ULTRA96 = load_board("ultra96")


def two_layers() -> ExactGraph:
    builder = GraphBuilder("two_layers")
    x = builder.input("x", (3, 8, 8), Integer(8, False), -8)
    weight = builder.constant("w", np.full((4, 3, 3, 3), 3), Integer(8), -7)
    y = builder.conv("conv", x, weight, pads=(1, 1, 1, 1))
    return builder.finish([builder.requant("act", y, Integer(8), -6)])


@pytest.mark.parametrize("flow", sorted(TEMPLATES))
def test_every_operation_has_a_rule(flow: str) -> None:
    assert set(TEMPLATES[flow].rules) == set(ir.OPERATIONS)


def test_an_operation_without_one_is_named() -> None:
    @dataclass(frozen=True)
    class Sort(ir.Reshape):
        """An operation that nobody has priced."""

    try:
        graph = two_layers()
        graph.nodes[1] = Sort("sorting", ("conv",), "act")
        with pytest.raises(UnsupportedError, match="Sort 'sorting' has no cost model"):
            estimate(graph, ULTRA96, {})
    finally:
        del ir.OPERATIONS["Sort"]


def test_cycles_of_two_layers() -> None:
    result = estimate(two_layers(), ULTRA96, {"conv": 9})
    conv, act = result.layers
    assert conv.initiation_interval == 8 * 8 + 36 + 64 * 8  # image, padding, eight more cycles per pixel
    assert conv.dsp == math.ceil(27 * 4 / 9)
    assert act.initiation_interval == 64
    assert result.initiation_interval == conv.initiation_interval
    assert result.latency_cycles == conv.cycles + (act.cycles - act.initiation_interval)
    assert result.throughput_fps == pytest.approx(200e6 / conv.initiation_interval)
    assert result.latency_us == pytest.approx(result.latency_cycles / 200)


def test_totals_and_utilisation_of_the_board() -> None:
    result = estimate(two_layers(), ULTRA96, {"conv": 27}, clock_mhz=100)
    assert result.totals == {name: sum(getattr(layer, name) for layer in result.layers) for name in ESTIMATED}
    assert result.utilisation["lut"] == result.totals["lut"] / 70560
    assert (result.fits, result.label, result.clock_mhz) == (True, LABEL, 100)
    bare = Board("bare", "bare", "x", "ultrascale-plus", 70560, 141120, 0, 432)
    assert estimate(two_layers(), bare, {"conv": 27}).utilisation["dsp"] == math.inf
    assert estimate(two_layers(), bare, {}).utilisation["dsp"] == 0


def test_more_reuse_takes_longer_and_fewer_multipliers() -> None:
    graph = two_layers()
    factors = [1, 3, 9, 27, 54, 108]
    costs = Costing.of(graph, "ultrascale-plus").layers(graph.nodes[0], factors)
    intervals, slices = [c.initiation_interval for c in costs], [c.dsp for c in costs]
    assert intervals == sorted(intervals)
    assert slices == [0, 36, 12, 4, 2, 1]
    assert [estimate(graph, ULTRA96, {"conv": factor}).layers[0] for factor in factors] == costs


def test_constants_of_few_ones_cost_less_when_unrolled() -> None:
    def unrolled(value: int) -> int:
        builder = GraphBuilder("dense")
        x = builder.input("x", (16,), Integer(8), 0)
        weight = builder.constant("w", np.full((16, 8), value), Integer(8), 0)
        return estimate(builder.finish([builder.matmul("fc", x, weight)]), ULTRA96, {}).layers[0].lut

    assert unrolled(0) < unrolled(64) < unrolled(3) < unrolled(85)


def test_where_branches_meet_a_stream_holds_an_image() -> None:
    builder = GraphBuilder("residual")
    x = builder.input("x", (16, 28, 28), Integer(8), 0)
    y = builder.requant("act", x, Integer(8), 1)
    graph = builder.finish([builder.add("join", x, y)])
    act, join = estimate(graph, ULTRA96, {}).layers
    assert (act.bram18, join.bram18) == (0, 8 + 8)  # 784 words of 128 bits are 8 block RAMs
    assert {layer.bram18 for layer in estimate(graph, ULTRA96, {}, io_type="io_parallel").layers} == {0}


def test_a_requant_that_is_the_result_type_of_its_layer_has_no_stream() -> None:
    act = estimate(two_layers(), ULTRA96, {}).layers[1]
    parallel = estimate(two_layers(), ULTRA96, {}, io_type="io_parallel").layers[1]
    assert (act.lut - 1) * 64 < parallel.lut <= act.lut * 64  # a layer's LUT are rounded up
    assert act.ff * 64 == parallel.ff  # LUT, a mean of fitted weights, are rounded after they are added up


def test_a_parallel_interface_unrolls_the_pixels() -> None:
    stream, parallel = (
        estimate(two_layers(), ULTRA96, {"conv": 27}, io_type=kind) for kind in ("io_stream", "io_parallel")
    )
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


@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
def test_every_operation_is_priced(io_type: str) -> None:
    layers = estimate(every_operation(), ULTRA96, {}, io_type=io_type).layers
    moves = {"Reshape", "Slice", "Pad", "Concat", "Transpose", "Upsample"}
    assert all(layer.lut + layer.dsp > 0 for layer in layers if layer.op not in moves)
    assert all(layer.cycles > 0 for layer in layers)


@pytest.mark.parametrize(("flow", "fold"), [("hls4ml", 1), ("finn", (16, 1))])
@pytest.mark.parametrize(
    ("factors", "zeros", "kept"),
    [((2, 2), False, 40), ((3, 1), False, 40), ((1, 2), False, 0), ((1, 1), False, 0), ((2, 2), True, 0)],
)
def test_rows_that_are_given_again_are_kept(
    flow: str, fold: Fold, factors: tuple[int, int], zeros: bool, kept: int
) -> None:
    """Copies along the rows need a row of the image; a pixel's copies and zeros need nothing."""
    builder = GraphBuilder("larger")
    x = builder.input("x", (16, 30, 40), Integer(6), 0)
    graph = builder.finish([builder.upsample("up", x, factors, zeros)])
    (layer,) = Costing.of(graph, "ultrascale-plus", flow).layers(graph.nodes[0], [fold])
    stream = Hardware.of("ultrascale-plus").fifo(2, 16 * 6)
    assert layer.initiation_interval == 30 * 40 * math.prod(factors)
    assert layer.memory_bits == (kept + 2) * 16 * 6
    assert (layer.lut > math.ceil(stream.lut)) == (kept > 0)
    assert layer.ff == stream.ff or kept


def test_a_pixel_in_several_words_is_kept_to_be_given_again() -> None:
    builder = GraphBuilder("larger")
    graph = builder.finish([builder.upsample("up", builder.input("x", (16, 30), Integer(6), 0), (2,))])
    costs = Costing.of(graph, "ultrascale-plus", "finn").layers(graph.nodes[0], [(16, 1), (4, 1)])
    assert [cost.memory_bits for cost in costs] == [2 * 16 * 6, 16 * 6 + 2 * 4 * 6]
    assert [cost.initiation_interval for cost in costs] == [60, 240]


@pytest.mark.parametrize(
    ("folding", "said"),
    [
        ({"cnv": 2}, "did you mean conv"),
        ({"conv": 0}, "positive whole number, not 0"),
        ({"conv": 1.5}, "positive whole number, not 1.5"),
        ({"conv": True}, "positive whole number, not True"),
    ],
)
def test_a_wrong_folding_is_explained(folding: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        estimate(two_layers(), ULTRA96, folding)


def test_an_unknown_interface_is_explained() -> None:
    with pytest.raises(InputError, match="did you mean io_stream"):
        estimate(two_layers(), ULTRA96, {}, io_type="io_streams")
