"""Graphs of additions: they are the product with their matrix, and what they count as."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from qhw.errors import InputError, ToolMissingError
from qhw.formats.modes import IntArray
from qhw.rtl.shared import adder_graph as module
from qhw.rtl.shared.adder_graph import AdderGraph, adder_graph
from qhw.rtl.shared.carry_chains import Bit

needs_alkaid = pytest.mark.skipif(
    importlib.util.find_spec("alkaid") is None, reason="alkaid is not installed: pip install 'qhw[unrolled]'"
)


def evaluated(graph: AdderGraph, inputs: IntArray) -> IntArray:
    """The outputs by the bits of the chains alone, one vector after the other."""
    results = []
    for vector in inputs:
        held = {
            (-lane, place): int(value) >> place & 1
            for lane, value in enumerate(vector)
            for place in range(24)
        }

        def number(bits: tuple[Bit, ...], signed: bool = False, held: dict[Bit, int] = held) -> int:
            ones = [0 if bit is None else held[bit] for bit in bits]
            return sum(one << i for i, one in enumerate(ones)) - (ones[-1] << len(ones) if signed else 0)

        for chain in graph.chains:
            left, right = (number(side) for side in zip(*chain.positions, strict=True))
            total = left - right if chain.subtracts else left + right
            held |= {(chain.number, place): total >> place & 1 for place in range(len(chain.positions))}
        results.append([number(output.bits, output.signed) if output.bits else 0 for output in graph.outputs])
    return np.array(results)


@needs_alkaid
@pytest.mark.parametrize(("low", "high"), [(0, 15), (-8, 7), (0, 1), (-3, 200)])
def test_the_bits_of_the_additions_are_the_product(low: int, high: int) -> None:
    rng = np.random.default_rng(high)
    for bits in (1, 3, 7):
        matrix = rng.integers(-(1 << bits), 1 << bits, (9, 7)) * (rng.random((9, 7)) < 0.7)
        matrix[:, 2] = 0
        matrix[4] = 0
        matrix[:, 3] = -matrix[:, 1] << 2
        inputs = rng.integers(low, high + 1, (20, 9))
        inputs[:2] = [[low], [high]]
        assert np.array_equal(evaluated(adder_graph(matrix, low, high), inputs), inputs @ matrix)


@needs_alkaid
def test_each_sum_waits_for_what_it_adds() -> None:
    graph = adder_graph(np.random.default_rng(0).integers(-8, 8, (12, 6)), 0, 15)
    levels = {chain.number: chain.level for chain in graph.chains}
    for chain in graph.chains:
        read = {bit[0] for pair in chain.positions for bit in pair if bit is not None}
        assert chain.level == 1 + max(levels.get(number, 0) for number in read)
    assert graph.depth == max(levels.values())
    assert all(begin <= reads[0] and reads[-1] <= graph.depth for begin, reads in graph.lives().values())


@needs_alkaid
@pytest.mark.parametrize("offset", [False, True])
def test_several_additions_follow_each_other_in_a_cycle(offset: bool) -> None:
    """The same additions behind fewer clock edges; what is read in its own cycle alone has no register."""
    matrix = np.random.default_rng(0).integers(-90, 90, (12, 6))
    one, three = (adder_graph(matrix, 0, 15, n, offset=offset) for n in (1, 3))
    assert [chain._replace(level=0) for chain in one.chains] == [
        chain._replace(level=0) for chain in three.chains
    ]
    assert [chain.level for chain in three.chains] == [-(-chain.level // 3) for chain in one.chains]
    assert (one.depth % 3 > 0, one.read) == (True, one.depth + 1)
    assert (three.depth, three.read) == (-(-one.depth // 3), three.depth + (not offset))
    assert three.counts().registers < one.counts().registers
    assert all(begin <= reads[0] and reads[-1] < three.read for begin, reads in three.lives().values())


@needs_alkaid
def test_a_column_without_additions_is_wires_behind_a_register() -> None:
    graph = adder_graph(np.array([[4, 0], [0, 1]]), 0, 7)
    assert (graph.chains, graph.depth, graph.luts) == ((), 1, 0)
    assert graph.outputs[0].bits == (None, None, (0, 0), (0, 1), (0, 2))
    assert graph.counts().registers == 6


@needs_alkaid
def test_what_is_not_the_product_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from alkaid import _binary

    solve = _binary.cmvm_solve
    monkeypatch.setattr(_binary, "cmvm_solve", lambda matrix, **given: solve(matrix + 1, **given))
    with pytest.raises(module.CheckFailedError, match="is not the product with its matrix"):
        adder_graph(np.array([[3, 5], [7, 90]]), 0, 7)


def test_a_missing_alkaid_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alkaid", "alkaid._binary"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ToolMissingError, match="needs alkaid") as caught:
        adder_graph(np.array([[3, 5], [7, 99]]), 0, 7)
    assert "qhw[unrolled]" in str(caught.value)


def test_a_matrix_that_is_not_taken_is_refused() -> None:
    with pytest.raises(InputError, match="every weight of the matrix is 0"):
        adder_graph(np.zeros((2, 2), dtype=np.int64), 0, 7)
    with pytest.raises(InputError, match="a weight has 25 bits"):
        adder_graph(np.array([[1 << 24]]), 0, 7)
