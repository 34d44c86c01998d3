"""FINN's graph of an exact graph: the same numbers, of every operation, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from finn_nets import Network, every_operation, random_network

from qhw.errors import UnsupportedError
from qhw.flows.finn.carried import Carried, numbers
from qhw.flows.finn.emission import emit
from qhw.flows.finn.prepare import prepared
from qhw.formats import Integer, parse_format
from qhw.formats.modes import IntArray, Overflow
from qhw.graph.builder import value_ranges
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph


def samples(graph: ExactGraph, count: int, seed: int = 0) -> dict[str, IntArray]:
    random, ranges = np.random.default_rng(seed), value_ranges(graph)
    return {
        name: random.integers(*ranges[name].bounds, (count, *graph.tensors[name].shape), endpoint=True)
        for name in graph.inputs
    }


def differing(graph: ExactGraph, count: int = 4) -> tuple[list[str], int]:
    """Tensors that qonnx's own execution of the emitted graph gives otherwise; how many were compared."""
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    emitted, inputs = emit(prepared(graph)), samples(graph, count)
    model = emitted.model.transform(InferShapes())
    expected = interpret(emitted.graph, inputs, keep="all")
    wrong, compared = [], 0
    for index in range(count):
        given = emitted.carried[emitted.input].integers(inputs[emitted.input][index : index + 1])
        found = execute_onnx(model, {model.graph.input[0].name: given}, return_full_exec_context=True)
        for tensor, carried in emitted.carried.items():
            if carried.name in found:
                compared += 1
                got = carried.mantissas(found[carried.name])
                if not np.array_equal(got, expected[tensor][index : index + 1]):
                    wrong.append(tensor)
    return wrong, compared


def test_every_operation_gives_the_same_numbers() -> None:
    pytest.importorskip("finn.custom_op.fpgadataflow")  # a whole-image sum is FINN's own operator
    wrong, compared = differing(every_operation())
    assert not wrong
    assert compared > 100


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_give_the_same_numbers(seed: int) -> None:
    wrong, compared = differing(random_network(seed), 3)
    assert not wrong
    assert compared


def test_a_falling_channel_is_carried_with_its_sign_turned() -> None:
    n = Network(1, (2, 4, 4))
    n.finish(n.act("q", n.norm("bn", n.conv("c", n.last, 6, (1, 1)), spread=2000), signed=True))
    emitted = emit(prepared(n.builder.graph))
    assert (emitted.carried["c"].multiplier < 0).any()
    assert [node.op_type for node in emitted.model.graph.node] == ["MatMul", "MultiThreshold"]


def test_a_falling_channel_behind_a_sum_takes_a_multiplication() -> None:
    n = Network(2, (4, 3, 3))
    n.finish(n.act("q", n.norm("bn", n.builder.add("sum", n.last, n.last), spread=2000), signed=True))
    assert "Mul" in [node.op_type for node in emit(prepared(n.builder.graph)).model.graph.node]
    assert differing(n.builder.graph)[0] == []


def test_what_wants_more_than_8_bits_at_the_end_is_the_hosts() -> None:
    n = Network(3, (6,))
    n.finish(n.builder.requant("out", n.matmul("fc", n.last, 3, bias=True), Integer(12), -4))
    emitted = emit(prepared(n.builder.graph))
    assert [node.name for node in emitted.host] == ["out"]
    assert emitted.output == "fc"


@pytest.mark.parametrize(("shape", "op"), [((2, 4, 4), "GlobalAccPool"), ((2, 4, 6), "ReduceSum")])
def test_images_that_are_not_square_are_summed_by_windows(shape: tuple[int, ...], op: str) -> None:
    """FINN's C++ of a whole-image sum takes the height for the width."""
    pytest.importorskip("finn.custom_op.fpgadataflow")
    n = Network(5, shape)
    graph = n.finish(n.act("q", n.builder.reduce_sum("gap", n.last, (1, 2), False), 6))
    assert op in [node.op_type for node in emit(prepared(graph)).model.graph.node]
    assert differing(graph)[0] == []


def test_integers_and_mantissas_are_each_others_inverse() -> None:
    random = np.random.default_rng(0)
    carried = Carried("t", "t", (4,), numbers([1, -2, 4, -8]), numbers([3, 0, -1, 5]), np.array([2, 0, 3, 1]))
    integers = random.integers(-50, 50, (5, 4)).astype(np.float32)
    assert np.array_equal(carried.integers(carried.mantissas(integers)), integers)


def one(build: object, shape: tuple[int, ...] = (4, 6, 6), **given: object) -> ExactGraph:
    n = Network(0, shape, **given)  # type: ignore[arg-type]
    return n.finish(build(n))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (one(lambda n: n.builder.transpose("t", n.last, (1, 2, 0))), "no operation for the board"),
        (
            one(
                lambda n: n.act("q2", n.conv("c2", n.act("q", n.conv("c", n.last, 2, (1, 1)), 12), 2, (1, 1)))
            ),
            "(?s)Requant 'q'.*12 bits.*at most 8 bits",
        ),
        (
            one(
                lambda n: n.conv(
                    "c", n.builder.transpose("t", n.conv("b", n.last, 4, (1, 1)), (0, 2, 1)), 2, (1, 1)
                )
            ),
            r"Conv 'c'.*'t' \(4, 6, 6\).*one of FINN's shuffles",
        ),
        (
            one(lambda n: n.builder.concat("c", [n.last, n.last], 1)),
            "Concat 'c'.*along axis 1",
        ),
        (one(lambda n: n.builder.slice("s", n.last, 0, 0, 2)), "Slice 's'.*stay unread"),
        (
            one(
                lambda n: n.builder.requant(
                    "w", n.conv("c", n.last, 2, (1, 1)), Integer(4), -3, overflow=Overflow.WRAP
                )
            ),
            "Requant 'w'",
        ),
    ],
    ids=["moves-alone", "wide", "transposed", "concat-axis", "slice", "wrap"],
)
def test_what_finn_cannot_stream_is_named(graph: ExactGraph, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        emit(prepared(graph))


@pytest.mark.parametrize("text", ["e3m2", "khot<6,2>"])
def test_other_numbers_than_integers_are_refused_with_the_flow_that_takes_them(text: str) -> None:
    n = Network(0, (4,))
    format = parse_format(text)
    weight = n.builder.constant("w", n.random.choice(format.numbers, (4, 3)), format)  # type: ignore[attr-defined]
    graph = n.finish(n.builder.matmul("fc", n.last, weight, source="classifier"))
    with pytest.raises(UnsupportedError, match=r"MatMul 'fc' \(layer 'classifier'\).*weights of") as caught:
        emit(prepared(graph))
    assert "--flow hls4ml" in str(caught.value)


def test_sums_that_float32_does_not_hold_are_refused() -> None:
    b = Network(0, (600,)).builder
    weight = b.constant("w", np.full((600, 2), 127), Integer(8))
    with pytest.raises(UnsupportedError, match=r"MatMul 'fc'.*19,431,000.*float32, exact up to 2\^24"):
        emit(prepared(b.finish([b.matmul("fc", "x", weight)])))


def test_several_outputs_are_refused() -> None:
    n = Network(0, (4,))
    n.builder.finish([n.matmul("a", n.last, 2), n.matmul("b", n.last, 2)])
    with pytest.raises(UnsupportedError, match=r"2 outputs \(a, b\)"):
        emit(prepared(n.builder.graph))
