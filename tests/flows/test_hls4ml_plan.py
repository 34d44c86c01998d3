"""Which layers carry out a graph, and what is refused by name. Nothing is compiled here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hls4ml_project import BOARD, legal_factors, planned, small_graph
from op_zoo import Zoo

from qhw.errors import InputError, UnsupportedError
from qhw.flows.base import list_flows, load_flow
from qhw.flows.hls4ml import Hls4mlFlow
from qhw.flows.hls4ml.folding import dense_factors
from qhw.formats.integer import Integer
from qhw.graph import ir
from qhw.graph.ir import ExactGraph

pytest.importorskip("hls4ml")


def kinds(graph: ExactGraph, io_type: str = "io_stream") -> list[tuple[str, str]]:
    plan = planned(Hls4mlFlow(io_type), graph, {})
    return [(layer.name, layer.kind) for layer in plan.layers]


def test_requants_and_reshapes_cost_no_layer() -> None:
    assert kinds(small_graph(), "io_parallel") == [
        ("l_in_x", "InputLayer"),
        ("l_conv1", "Conv2D"),
        ("l_bn1", "QhwLayer"),
        ("l_conv2", "Conv2D"),
        ("l_residual", "Merge"),
        ("l_pool", "MaxPooling2D"),
        ("l_fc_flat", "Reshape"),
        ("l_fc", "Dense"),
    ]


def test_types_come_from_the_graph() -> None:
    graph = small_graph()
    layers = {layer.name: layer for layer in planned(Hls4mlFlow(), graph, {}).layers}
    exact = graph.tensors["conv2"]
    types = layers["l_conv2"].types
    assert types["accum"].hls4ml() == f"fixed<{exact.format.width},{exact.format.width - 8},TRN,WRAP>"
    assert types["weight"].hls4ml() == "fixed<4,1,TRN,WRAP>"
    assert types["result"].hls4ml() == "fixed<6,2,RND_CONV,SAT>"


def test_two_bit_weights_are_not_taken_for_ternary() -> None:
    zoo = Zoo("two_bits")
    x = zoo.builder.input("x", (4,), Integer(4))
    zoo.end(zoo.builder.matmul("fc", x, zoo.constant("w", 4, 3, bits=2, exponent=0)))
    (layer,) = (layer for layer in planned(Hls4mlFlow(), zoo.finish(), {}).layers if layer.kind == "Dense")
    assert layer.types["weight"].hls4ml() == "fixed<2,2,TRN,WRAP>"


def test_streams_are_chosen_where_there_are_convolutions() -> None:
    zoo = Zoo("dense")
    x = zoo.builder.input("x", (4,), Integer(4))
    zoo.end(zoo.builder.matmul("fc", x, zoo.constant("w", 4, 3)))
    assert Hls4mlFlow().io_type_for(zoo.finish()) == "io_parallel"
    assert Hls4mlFlow().io_type_for(small_graph()) == "io_stream"


def test_legal_reuse_factors_are_hls4mls_own() -> None:
    from hls4ml.backends import get_backend

    legal = legal_factors(Hls4mlFlow(), small_graph())
    backend = get_backend("Vitis")
    assert set(legal) == {"conv1", "conv2", "fc"}
    assert legal["conv2"] == backend.get_valid_reuse_factors(36, 4)
    for size in [(1, 1), (7, 3), (48, 10), (90, 16), (64, 64)]:
        assert list(dense_factors(*size)) == backend.get_valid_reuse_factors(*size)
    with pytest.raises(InputError, match=r"conv2.*reuse factor 5"):
        planned(Hls4mlFlow(), small_graph(), {"conv2": 5})


def test_unrolled_convolutions_are_not_folded_beyond_their_window() -> None:
    """hls4ml's conv_1d_resource_cl asserts it; conv_2d_resource_cl reads past the window without a word."""
    zoo = Zoo("windows")
    x = zoo.builder.input("x", (2, 4, 4), Integer(4))
    zoo.end(zoo.conv("pointwise", x, 4, (1, 1)))
    z = zoo.builder.input("z", (3, 2), Integer(4))
    zoo.end(zoo.builder.matmul("rows", z, zoo.constant("w", 2, 4)))
    graph = zoo.finish()
    every = {"pointwise": [1, 2, 4, 8], "rows": [1, 2, 4, 8]}
    assert legal_factors(Hls4mlFlow("io_stream"), graph) == every
    assert legal_factors(Hls4mlFlow("io_parallel"), graph) == {"pointwise": [1, 2], "rows": [1, 2]}
    with pytest.raises(InputError, match=r"pointwise.*reuse factor 4 is not legal for 2 x 4 products"):
        planned(Hls4mlFlow("io_parallel"), graph, {"pointwise": 4})


def test_names_that_clash_are_told_apart() -> None:
    zoo = Zoo("Float")
    b = zoo.builder
    x = b.input("x", (4,), Integer(4))
    zoo.end(b.matmul("Layer.1", x, zoo.constant("w", 4, 3)))
    zoo.end(b.matmul("layer/1", x, zoo.constant("v", 4, 3)))
    plan = planned(Hls4mlFlow(), zoo.finish(), {})
    assert plan.name == "qhw_float"
    assert [layer.name for layer in plan.layers] == ["l_in_x", "l_layer_1", "l_layer_1_2"]


def too_wide_output(zoo: Zoo) -> None:
    x = zoo.builder.input("x", (4,), Integer(50))
    zoo.end(zoo.builder.matmul("wide", x, zoo.constant("w", 4, 3)))


def too_wide_input(zoo: Zoo) -> None:
    zoo.end(zoo.builder.requant("cut", zoo.builder.input("huge", (4,), Integer(54)), Integer(4), 50))


def too_wide_constant(zoo: Zoo) -> None:
    b = zoo.builder
    x = b.input("x", (4,), Integer(4))
    bias = b.constant("bias", np.array([(1 << 54) + 1, 0, 0]), Integer(56))
    zoo.end(b.requant("cut", b.matmul("fc", x, zoo.constant("w", 4, 3, exponent=0), bias), Integer(4), 50))


def axes_that_do_not_match(zoo: Zoo) -> None:
    b = zoo.builder
    zoo.end(b.matmul("mixer", b.input("x", (4, 3), Integer(4)), zoo.constant("w", 2, 3, 5)))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (too_wide_output, "output 'wide' has"),
        (too_wide_input, "input 'huge' has 54 bits"),
        (too_wide_constant, "fc"),
        (axes_that_do_not_match, "mixer"),
    ],
)
def test_what_cannot_be_carried_exactly_is_refused_by_name(make: Callable[[Zoo], None], name: str) -> None:
    zoo = Zoo("refused")
    make(zoo)
    with pytest.raises(UnsupportedError, match=name):
        Hls4mlFlow("io_stream").prepare(zoo.finish(), BOARD)


def test_a_stream_that_is_read_too_often_is_read_from_copies() -> None:
    zoo = Zoo("popular")
    b = zoo.builder
    x = b.requant("popular", b.input("x", (4,), Integer(6)), Integer(4), 2)
    for i in range(15):
        zoo.end(b.matmul(f"fc{i}", x, zoo.constant(f"w{i}", 4, 3)))
    graph = zoo.finish()
    for io_type, copies in (("io_stream", 2), ("io_parallel", 0)):
        layers = planned(Hls4mlFlow(io_type), graph).layers
        readers = Counter(name for layer in layers for name in layer.inputs)
        assert max(readers.values()) == (7 if copies else 15)
        assert sum("copy" in layer.name for layer in layers) == copies
        known: set[str] = set()
        for layer in layers:
            assert set(layer.inputs) <= known
            known.add(layer.name)


def test_kernels_of_height_one_with_a_vertical_stride_read_the_rows_that_count() -> None:
    """hls4ml's stream takes them for one-dimensional kernels and writes a result for every row."""
    zoo = Zoo("rows")
    x = zoo.builder.input("x", (2, 6, 6), Integer(4))
    zoo.end(zoo.conv("flat", x, 3, (1, 2), strides=(2, 1)))
    zoo.end(zoo.conv("pointwise", x, 3, (1, 1), strides=(2, 1)))
    graph = zoo.finish()
    plan = planned(Hls4mlFlow("io_stream"), graph)
    layers = {layer.name: layer for layer in plan.layers}
    assert layers["l_flat_rows"].attributes["out_dims"] == [3, 6, 2]
    assert layers["l_flat"].inputs == ("l_flat_rows",)
    assert layers["l_flat"].attributes["stride_height"] == 1
    assert "l_pointwise_rows" not in layers
    assert not any("rows" in name for name, _ in kinds(graph, "io_parallel")[1:])


def test_names_of_every_kind_become_short_identifiers() -> None:
    zoo = Zoo("größe" * 100)
    x = zoo.builder.input("x", (4,), Integer(4))
    names = ["class", "template", "main", "int", "重み", "größe", "fc-1/x", "class ", "1st", ""]
    names += ["a" * 1000, "a" * 999]
    for name in names:
        zoo.end(zoo.builder.matmul(name, x, zoo.constant("w", 4, 3)))
    plan = planned(Hls4mlFlow(), zoo.finish())
    written = [layer.name for layer in plan.layers]
    assert len(set(written)) == len(names) + 1
    assert all(re.fullmatch("l_[a-z0-9_]{1,90}", name) for name in written)
    assert re.fullmatch("qhw_[a-z0-9_]{1,90}", plan.name)
    readable = {"l_class", "l_template", "l_main", "l_int", "l_grosse", "l_fc_1_x", "l_1st", "l_class_2"}
    assert readable <= set(written)


def test_an_operation_without_a_mapping_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from qhw.flows.hls4ml import plan

    monkeypatch.delitem(plan.MAPPERS, ir.Affine)
    with pytest.raises(UnsupportedError, match=r"Affine 'bn1'.*\nAllowed: Add, Concat, Conv"):
        Hls4mlFlow().prepare(small_graph(), BOARD)


def test_io_parallel_that_unrolls_too_much_says_how_much() -> None:
    zoo = Zoo("unrolled")
    x = zoo.builder.input("x", (16, 28, 28), Integer(4))
    zoo.end(zoo.conv("big", x, 8, (3, 3), pads=(1, 1, 1, 1)))
    graph = zoo.finish()
    with pytest.raises(UnsupportedError, match="112,896 C\\+\\+ statements, 112,896 of them for 'big'"):
        Hls4mlFlow("io_parallel").prepare(graph, BOARD)
    Hls4mlFlow("io_stream").prepare(graph, BOARD)


def test_flows_are_found_by_name() -> None:
    assert "hls4ml" in list_flows()
    assert load_flow("hls4ml", io_type="io_parallel").name == "hls4ml"
    with pytest.raises(InputError, match=r"'hls4mll'.*\nTo do: did you mean hls4ml"):
        load_flow("hls4mll")
    with pytest.raises(InputError, match="io_streem"):
        load_flow("hls4ml", io_type="io_streem")
