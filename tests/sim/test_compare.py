"""The comparison of two executions finds what was changed, and nothing else."""

import numpy as np
import pytest
from graph_factory import resnet8_graph
from random_graphs import random_inputs

from qhw.errors import CheckFailedError, InputError
from qhw.formats.integer import Integer
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.sim.compare import compare, distinct_codes


@pytest.fixture(scope="module")
def run():
    graph = resnet8_graph()
    return graph, interpret(graph, random_inputs(graph, 3), keep="all")


def changed(execution, tensor, at, by=1):
    copy = {name: x.copy() for name, x in execution.items()}
    copy[tensor][at] += by
    return copy


def test_equal_executions(run):
    graph, execution = run
    comparison = compare(graph, execution, execution).require_equal()
    assert comparison.mismatches == 0
    assert comparison.first is None
    assert comparison.codes == sum(x.size for x in execution.values())
    assert [layer.tensor for layer in comparison.layers] == ["image", *(node.output for node in graph.nodes)]


def test_the_first_layer_in_graph_order_is_named(run):
    graph, execution = run
    other = changed(changed(execution, "fc", (2, 7), 5), "block2_relu1", (1, 3, 4, 5))
    comparison = compare(graph, execution, other, names=("interpreter", "csim"))
    assert comparison.mismatches == 2
    assert comparison.first.layer == "block2_relu1"
    first = comparison.first.first
    assert (first.sample, first.position) == (1, (3, 4, 5))
    assert first.right == first.left + 1
    with pytest.raises(CheckFailedError) as caught:
        comparison.require_equal()
    message = str(caught.value)
    assert "layer 'block2_relu1' (Requant)" in message
    assert f"sample 1, element (3, 4, 5) is {first.left} in interpreter and {first.right} in csim" in message


def test_only_common_tensors_are_compared(run):
    graph, execution = run
    comparison = compare(graph, execution, {"fc": execution["fc"]})
    assert [layer.tensor for layer in comparison.layers] == ["fc"]
    with pytest.raises(InputError, match="no tensor"):
        compare(graph, execution, {})


def test_what_is_not_compared_in_front_of_a_difference_is_named(run):
    graph, execution = run
    names = [node.name for node in graph.nodes]
    last = graph.producer("fc")
    before = graph.producer(last.inputs[0])
    kept = {name: execution[name] for name in execution if name != before.output}
    comparison = compare(graph, kept, changed(kept, "fc", (0, 0)))
    assert comparison.first.covers == (before.name,)
    with pytest.raises(CheckFailedError, match=rf"layer 'fc' \(MatMul, with {before.name} in front of it\)"):
        comparison.require_equal()
    only = compare(graph, {"fc": execution["fc"]}, changed(execution, "fc", (0, 0)))
    assert list(only.first.covers) == names[:-1]
    assert compare(graph, execution, changed(execution, "fc", (0, 0))).first.covers == ()


def test_other_shapes_are_refused(run):
    graph, execution = run
    with pytest.raises(InputError, match=r"'fc' has shape \(3, 10\) in left and \(2, 10\) in right"):
        compare(graph, execution, {"fc": execution["fc"][:2]})


def halving_graph(exponent):
    builder = GraphBuilder("halving")
    x = builder.input("x", (2,), Integer(8))
    return builder.finish([builder.requant("y", x, Integer(12), exponent=exponent)])


def test_numbers_at_other_exponents_are_aligned():
    fine, coarse = halving_graph(-2), halving_graph(0)
    inputs = {"x": np.array([[3, -5]])}
    results = [interpret(graph, inputs, keep="all") for graph in (fine, coarse)]
    assert results[0]["y"].tolist() == [[12, -20]]
    compare(fine, *results, right_graph=coarse).require_equal()
    assert compare(fine, *results).mismatches == 2


@pytest.mark.parametrize(
    "codes", [np.array([3, 3, -4]), np.array([0, 2**40, 2**40, 5]), np.array([2**70, 1, 2**70], dtype=object)]
)
def test_distinct_codes(codes):
    assert distinct_codes(codes) == len(set(codes.tolist()))
