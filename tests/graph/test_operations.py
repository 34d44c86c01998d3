"""Where every operation of the exact graph is carried, and what is missing where."""

from __future__ import annotations

import enum
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from random_graphs import operations_of, random_graph, random_inputs

import qhw.graph.ops
from qhw.cost.pricing.energy import MEMORY_PJ_PER_BIT, layer_energy
from qhw.errors import InputError
from qhw.flows.hls4ml import template as hls4ml
from qhw.flows.hls4ml.plan import MAPPERS
from qhw.flows.rtl import template as rtl
from qhw.formats import Integer, parse_format
from qhw.formats.modes import IntArray, Rounding
from qhw.graph import ir
from qhw.graph.builder import GraphBuilder
from qhw.graph.infer import Operand, Result
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph, Exponent, TensorType
from qhw.graph.ops.base import OPERATIONS, Node
from qhw.graph.serialize import graph_hash, load_graph, save_graph
from qhw.sim.chain import steps_of
from qhw.sim.fast import FastExecutor

MISSING: Mapping[str, set[str]] = {
    "hls4ml flow": set(),
}
"""Operations that a place does not carry: it refuses them by name."""

INTERPRETED: set[str] = {"ReduceSum"}
"""Operations that the fast executor leaves to the interpreter whatever they read."""


def one_of_each() -> ExactGraph:
    """A graph with every operation."""
    b, random = GraphBuilder("one_of_each"), np.random.default_rng(0)
    x = b.input("x", (4, 6, 6), Integer(6), -3)

    def numbers(name: str, *shape: int) -> str:
        return b.constant(name, random.integers(-8, 8, shape), Integer(4), -2)

    y = b.conv("conv", x, numbers("w", 4, 4, 3, 3), numbers("b", 4), pads=(1, 1, 1, 1))
    y = b.affine("affine", y, numbers("by", 4), numbers("plus", 4))
    y = b.requant("requant", y, Integer(8), -2, high=100)
    y = b.mul("mul", b.add("add", y, x), x)
    thresholds = b.constant("thresholds", np.arange(-500, 500, 40)[None])
    y = b.threshold("threshold", y, thresholds, b.constant("levels", np.arange(26)[None]), Integer(6))
    y = b.table("table", y, b.constant("entries", random.integers(-8, 8, (4, 64))), 0, Integer(4))
    y = b.max_pool("max_pool", b.upsample("upsample", y, (2, 1), zeros=True), (2, 2))
    y = b.concat("concat", [y, b.pad("pad", b.slice("slice", y, 1, 1, 5, 2), (0, 1, 0, 0, 3, 0), -3)], 0)
    y = b.sum_pool("sum_pool", b.transpose("transpose", y, (0, 2, 1)), (2, 2))
    y = b.reduce_sum("reduce_sum", b.reduce_max("reduce_max", y, (2,), False), (1,), True)
    y = b.matmul("matmul", b.reshape("reshape", y, (8,)), numbers("columns", 8, 3), numbers("last", 3))
    return b.finish([y])


GRAPH = one_of_each()
BY_NAME = {node.op: node for node in GRAPH.nodes}
RANDOM = {op for seed in range(40) for op in operations_of(random_graph(seed))}


def has_energy(op: str) -> bool:
    """Whether what it computes is counted, beside the codes that it reads and writes."""
    node = BY_NAME[op]
    tensors = [GRAPH.tensors[name] for name in (*GRAPH.activations(node), node.output)]
    moved = MEMORY_PJ_PER_BIT * sum(kind.size * kind.format.width for kind in tensors)
    return node.moves_codes or layer_energy(GRAPH, node) > moved


def is_fast(op: str) -> bool:
    """Whether the fast executor runs it without the interpreter."""
    node = BY_NAME[op]
    return node.moves_codes or steps_of(GRAPH, node, next(GRAPH.activations(node))) is not None


def builds(op: str) -> bool:
    """Whether the builder has a method of its name: ``max_pool`` for MaxPool."""
    snake = op.lower() if op == "MatMul" else re.sub(r"(?<!^)(?=[A-Z])", "_", op).lower()
    return hasattr(GraphBuilder, snake)


PLACES: Mapping[str, Callable[[str], bool]] = {
    "infer": lambda op: OPERATIONS[op].infer is not Node.infer,
    "run": lambda op: OPERATIONS[op].run is not Node.run,
    "short name in ir": lambda op: getattr(ir, op, None) is OPERATIONS[op],
    "builder": builds,
    "graph of this test": lambda op: op in BY_NAME,
    "random graphs": lambda op: op in RANDOM,
    "energy": has_energy,
    "hls4ml costs": lambda op: op in hls4ml.RULES,
    "rtl costs": lambda op: op in rtl.ARCHITECTURE.rules,
    "hls4ml flow": lambda op: OPERATIONS[op] in MAPPERS,
}


@pytest.mark.parametrize("place", PLACES)
def test_every_operation_is_carried_or_known_to_be_missing(place: str) -> None:
    missing = {op for op in OPERATIONS if not PLACES[place](op)}
    assert missing == MISSING.get(place, set())


def test_every_operation_is_fast_or_known_to_be_interpreted() -> None:
    assert {op for op in OPERATIONS if not is_fast(op)} == INTERPRETED


@pytest.mark.parametrize("op", OPERATIONS)
def test_both_executors_give_its_codes(op: str) -> None:
    inputs = random_inputs(GRAPH, 5)
    tensor = BY_NAME[op].output
    expected = interpret(GRAPH, inputs, keep=[tensor])[tensor]
    assert np.unique(expected).size > 2
    for backend in ("torch", "numpy"):
        assert (FastExecutor(GRAPH, backend)(inputs, keep=[tensor])[tensor] == expected).all()


def test_every_operation_comes_back_from_a_file(tmp_path: Path) -> None:
    save_graph(GRAPH, tmp_path)
    loaded = load_graph(tmp_path)
    assert loaded.nodes == GRAPH.nodes
    assert [list(map(type, vars(node).values())) for node in loaded.nodes] == [
        list(map(type, vars(node).values())) for node in GRAPH.nodes
    ]
    assert graph_hash(loaded) == graph_hash(GRAPH)


def test_an_operation_is_one_file() -> None:
    path = qhw.graph.ops.__path__
    modules = [m.name for m in pkgutil.iter_modules(path) if not m.ispkg and m.name != "base"]
    defined = []
    for name in modules:
        module = importlib.import_module(f"qhw.graph.ops.{name}")
        ops = [op for op in OPERATIONS.values() if op.__module__ == module.__name__]
        assert len(ops) == 1, name
        defined += ops
    assert set(defined) == set(OPERATIONS.values())


class Way(enum.Enum):
    UP = "up"
    DOWN = "down"


def test_an_operation_needs_nothing_but_its_class(tmp_path: Path) -> None:
    """Checked, run by both executors, written and read; a field may be an enumeration of its own."""

    @dataclass(frozen=True)
    class Rolled(Node):
        """The last axis turned by so many places."""

        way: Way
        places: tuple[int, ...]

        moves_codes = True

        def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
            if len(self.places) != 1:
                raise ValueError("one number of places is needed")
            return Result.unsummed(operands[0].type.shape, operands[0].type.exponent, operands[0].range)

        def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
            sign = 1 if self.way is Way.UP else -1
            return np.roll(operands[0], sign * self.places[0], -1)

    try:
        b = GraphBuilder("rolled")
        x = b.input("x", (2, 5), parse_format("e3m2"), -4)
        kind = b.type(x)
        with pytest.raises(InputError, match="Rolled 'r': one number of places"):
            b.add_node(Rolled("r", (x,), "r", Way.UP, (1, 2)), kind)
        y = b.add_node(Rolled("r", (x,), "r", way=Way.DOWN, places=(2,)), kind)
        graph = b.finish([b.requant("q", y, Integer(4), 0)])
        inputs = random_inputs(graph, 4)
        rolled = interpret(graph, inputs, keep=["r"])["r"]
        assert (rolled == np.concatenate([inputs["x"][..., 2:], inputs["x"][..., :2]], axis=-1)).all()
        assert (FastExecutor(graph)(inputs)["q"] == interpret(graph, inputs)["q"]).all()
        save_graph(graph, tmp_path)
        assert load_graph(tmp_path).nodes == graph.nodes
    finally:
        del OPERATIONS["Rolled"]


@pytest.mark.parametrize(
    ("factors", "zeros", "format", "exponent", "message"),
    [
        ((2,), False, Integer(4), 0, r"factors \(2,\) of a tensor with shape \(3, 4, 5\)"),
        ((2, 0), False, Integer(4), 0, r"factors \(2, 0\)"),
        ((1, 2), True, parse_format("binary"), 0, "puts 0 around or between numbers of binary"),
        ((1, 2), False, Integer(4), Exponent((0, 1, 2, 3, 4), 2), "carries the exponents"),
    ],
)
def test_an_upsample_that_does_not_fit_is_refused(factors, zeros, format, exponent, message) -> None:
    b = GraphBuilder("g")
    x = b.input("x", (3, 4, 5), format, exponent)
    with pytest.raises(InputError, match=f"Upsample 'up'.*{message}"):
        b.upsample("up", x, factors, zeros)


def test_what_an_upsample_puts_in_belongs_to_its_range() -> None:
    b = GraphBuilder("g")
    x = b.input("x", (3, 4), Integer(4), 0, ir.InputEncoding(1.0, 0.0, 2, 7, Rounding.RND_CONV))
    assert b.ranges[b.upsample("copies", x, (3,))].bounds == (2, 7)
    assert b.ranges[b.upsample("nothing", x, (1,), zeros=True)].bounds == (2, 7)
    assert b.ranges[b.upsample("zeros", x, (2,), zeros=True)].bounds == (0, 7)
