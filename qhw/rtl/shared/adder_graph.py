"""A product with a constant matrix as a graph of additions, solved by alkaid, with registers between some.

alkaid (the successor of da4ml: Sun et al., arXiv 2507.04535) recodes the weights in signed digits and shares
what several outputs add. Its licence is the LGPL: only its solver is called. What it finds is checked against
the matrix here and taken apart into bits (:mod:`qhw.rtl.shared.carry_chains`), from which the circuit and its
counts follow.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from qhw.errors import CheckFailedError, InputError, ToolMissingError
from qhw.formats.modes import IntArray
from qhw.rtl.shared.carry_chains import Bits, CarryChains, Number, Position

MOST_WEIGHT_BITS = 24
"""Bits of a weight: alkaid takes float32 numbers."""

_INPUT, _ADD, _SUBTRACT = -1, 0, 1
"""alkaid's codes of the operations that a product with a matrix is made of."""


class Chain(NamedTuple):
    """A sum on a carry chain, and the clock edge behind which it is there.

    Args:
        number: what its bits are known by.
        level: clock edges from the inputs to its register; what is added in the same cycle is no register's.
    """

    number: int
    positions: tuple[Position, ...]
    subtracts: bool
    level: int


class Counts(NamedTuple):
    """What the circuit takes, without the control of its pipeline.

    Args:
        luts, lut4s: of the carry chains, where LUTs have six inputs or four.
        registers: flip-flops.
        shifted_registers, shift_luts: the same where three and more in a row are shift registers in LUTs.
    """

    luts: int
    lut4s: int
    registers: int
    shifted_registers: int
    shift_luts: int


@dataclass(frozen=True, eq=False)
class AdderGraph:
    """The additions of one product.

    Args:
        chains: the sums, each behind those that it adds.
        outputs: the bits of each column's result; a column of zeros has none.
        depth: clock edges from the inputs to all outputs.
        read: the clock edge at which the outputs are read: one more than ``depth``, or ``depth`` where
            something is added to them in the same cycle.
        luts, lut4s: of its carry chains, where LUTs have six inputs or four.
    """

    chains: tuple[Chain, ...]
    outputs: tuple[Number, ...]
    depth: int
    read: int
    luts: int
    lut4s: int

    def lives(self) -> dict[tuple[int, int], tuple[int, list[int]]]:
        """By bit: the level of its first register, and the levels of registers that are read, rising.

        A bit that is read only in the cycle in which it is made has no register.
        """
        first = {
            (chain.number, place): chain.level
            for chain in self.chains
            for place in range(len(chain.positions))
        }
        read: dict[tuple[int, int], set[int]] = defaultdict(set)
        for chain in self.chains:
            for bit in itertools.chain.from_iterable(chain.positions):
                if bit is not None:
                    read[bit].add(chain.level - 1)
        for bit in itertools.chain.from_iterable(output.bits for output in self.outputs):
            if bit is not None:
                read[bit].add(self.read - 1)
        found = {}
        for bit, levels in read.items():
            begin = first.get(bit, 0)
            if kept := sorted(level for level in levels if level >= begin):
                found[bit] = begin, kept
        return found

    def counts(self) -> Counts:
        """What the circuit takes."""
        registers = kept = shifts = 0
        for begin, levels in self.lives().values():
            # An input has no register of its own at level 0.
            edges = [max(begin, 1) - 1, *(level for level in levels if level)]
            registers += edges[-1] - edges[0]
            for length in (after - before for before, after in pairwise(edges)):
                whole, left = divmod(length, _SHIFT_PLACES)
                shifts += whole + (left > 1) if length >= _LEAST_SHIFT else 0
                kept += int(left == 1) if length >= _LEAST_SHIFT else length
        return Counts(self.luts, self.lut4s, registers, kept, shifts)


_SHIFT_PLACES, _LEAST_SHIFT = 32, 3
"""Places of a LUT that is a shift register; fewer than three stay flip-flops."""


def adder_graph(
    matrix: IntArray, low: int, high: int, additions: int = 1, *, offset: bool = False
) -> AdderGraph:
    """The additions of ``x @ matrix``, for integers x from low to high; the same matrix gives the same ones.

    Args:
        matrix: integers, shape (inputs, outputs).
        additions: how many follow each other in a clock cycle at most, from register to register.
        offset: whether a number is added to the outputs: in the last cycle, where it has room for that.

    Raises:
        ToolMissingError: alkaid is not installed.
        InputError: a weight has more bits than it takes, or all of them are 0.
        CheckFailedError: what it found is not the product.
    """
    if not matrix.any():
        raise InputError("every weight of the matrix is 0", hint="leave the layer out of the model")
    widest = int(np.abs(matrix).max()).bit_length()
    if widest > MOST_WEIGHT_BITS:
        raise InputError(f"a weight has {widest} bits", allowed=f"up to {MOST_WEIGHT_BITS}")
    content = np.ascontiguousarray(matrix, dtype=np.int64).tobytes()
    return _solved(content, matrix.shape, low, high, additions, offset)


@lru_cache(maxsize=64)
def _solved(
    content: bytes, shape: tuple[int, int], low: int, high: int, additions: int, offset: bool
) -> AdderGraph:
    matrix = np.frombuffer(content, dtype=np.int64).reshape(shape)
    try:
        from alkaid._binary import cmvm_solve
    except ImportError:
        raise ToolMissingError(
            "An unrolled matrix needs alkaid, which is not installed", hint="pip install 'qhw[unrolled]'"
        ) from None
    lane = (float(low), float(high), 1.0)
    found = cmvm_solve(np.array(matrix, dtype=np.float32), qintervals=[lane] * len(matrix))
    terms = [_Term(lane, 0, 1) for lane in range(len(matrix))]
    sums = _Sums(len(matrix))
    for half in found:
        terms = list(_walked(half, terms, sums))
    sums.check(terms, matrix)
    return _built(sums, terms, (low, high), additions, offset)


class _Term(NamedTuple):
    """A number times a power of two, with a sign; number -1 is 0."""

    number: int
    exponent: int
    sign: int

    def times(self, exponent: int, sign: int = 1) -> _Term:
        return _Term(self.number, self.exponent + exponent, self.sign * sign)


_NOTHING = _Term(-1, 0, 1)


class _Sum(NamedTuple):
    left: int
    left_shift: int
    right: int
    right_shift: int
    subtracts: bool


class _Sums:
    """Numbers: the inputs, then each sum once; their signs are carried to where they are added."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.made: dict[_Sum, int] = {}

    def added(self, a: _Term, b: _Term) -> _Term:
        if -1 in (a.number, b.number):
            return b if a.number == -1 else a
        low = min(a.exponent, b.exponent)
        if a.sign == b.sign:
            return self._term(a, b, low, subtracts=False, sign=a.sign)
        positive, negative = (a, b) if a.sign > 0 else (b, a)
        return self._term(positive, negative, low, subtracts=True, sign=1)

    def negated(self, a: _Term) -> _Term:
        """The negative of a number, as a number."""
        return _Term(self._number(_Sum(-1, 0, a.number, 0, True)), a.exponent, 1)

    def _term(self, a: _Term, b: _Term, low: int, *, subtracts: bool, sign: int) -> _Term:
        made = _Sum(a.number, a.exponent - low, b.number, b.exponent - low, subtracts)
        return _Term(self._number(made), low, sign)

    def _number(self, made: _Sum) -> int:
        return self.made.setdefault(made, self.inputs + len(self.made))

    def check(self, terms: Sequence[_Term], matrix: IntArray) -> None:
        """Compare what the sums are of every input with the matrix."""
        factors: list[Any] = list(np.eye(self.inputs, dtype=object))
        nothing = np.zeros(self.inputs, dtype=object)
        for left, left_shift, right, right_shift, subtracts in self.made:
            one = nothing if left < 0 else factors[left] * (1 << left_shift)
            other = factors[right] * (1 << right_shift)
            factors.append(one - other if subtracts else one + other)
        for term, column in zip(terms, matrix.T.astype(object), strict=True):
            got = nothing if term.number < 0 else factors[term.number] * term.sign
            up, down = 1 << max(term.exponent, 0), 1 << max(-term.exponent, 0)
            if (got * up != column * down).any():
                raise CheckFailedError("alkaid's adder graph is not the product with its matrix")


def _walked(half: Any, given: Sequence[_Term], sums: _Sums) -> Iterator[_Term]:
    """The outputs of one of alkaid's two ``CombLogic``, which follow each other."""
    numbers: list[_Term] = []
    for op in half.ops:
        if op.opcode == _INPUT:
            lane = op.data[0]
            numbers.append(given[lane].times(int(half.inp_shifts[lane])))
        elif op.opcode in (_ADD, _SUBTRACT):
            a, b = (numbers[place] for place in op.addr)
            numbers.append(sums.added(a, b.times(int(op.data[0]), 1 if op.opcode == _ADD else -1)))
        else:
            raise CheckFailedError(f"alkaid's adder graph has an operation {op.opcode}, which is no addition")
    for place, shift, negative in zip(half.out_idxs, half.out_shifts, half.out_negs, strict=True):
        yield _NOTHING if place < 0 else numbers[place].times(int(shift), -1 if negative else 1)


def _built(
    sums: _Sums, terms: Sequence[_Term], bounds: tuple[int, int], additions: int, offset: bool
) -> AdderGraph:
    """The sums by their bits."""
    ends = [sums.negated(term) if term.sign < 0 and term.number >= 0 else term for term in terms]
    chains, ranges, numbers = CarryChains(), [bounds] * sums.inputs, []
    for lane in range(sums.inputs):
        signed, width = bounds[0] < 0, _bits(bounds)
        numbers.append(Number(tuple((-lane, bit) for bit in range(width)), signed))
    live = _live(sums, ends)
    for (left, left_shift, right, right_shift, subtracts), number in sums.made.items():
        if number not in live:
            ranges.append((0, 0))
            numbers.append(Number((), False))
            continue
        a = (0, 0) if left < 0 else ranges[left]
        a = a[0] << left_shift, a[1] << left_shift
        b = ranges[right][0] << right_shift, ranges[right][1] << right_shift
        total = (a[0] - b[1], a[1] - b[0]) if subtracts else (a[0] + b[0], a[1] + b[1])
        ranges.append(total)
        width = _bits(total)
        one: Bits = (None,) * width if left < 0 else numbers[left].placed(left_shift, width)
        bits = chains.added(one, numbers[right].placed(right_shift, width), subtracts)
        numbers.append(Number(bits, total[0] < 0))
    outputs = tuple(_output(term, numbers) for term in ends)
    steps: dict[int, int] = {}
    made = []
    for (subtracts, positions), number in chains.sums.items():
        read = itertools.chain.from_iterable(positions)
        steps[number] = 1 + max(steps.get(bit[0], 0) for bit in read if bit is not None)
        made.append(Chain(number, positions, subtracts, ceil(steps[number] / additions)))
    most = max([1, *steps.values()])
    depth = ceil(most / additions)
    shared = offset and most % additions > 0
    return AdderGraph(tuple(made), outputs, depth, depth + (not shared), chains.luts, chains.lut4s)


def _live(sums: _Sums, ends: Sequence[_Term]) -> set[int]:
    """The numbers that an output follows from."""
    found = {term.number for term in ends}
    for made, number in reversed(sums.made.items()):
        if number in found:
            found |= {made.left, made.right}
    return found


def _bits(bounds: tuple[int, int]) -> int:
    low, high = bounds
    return max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0) + (low < 0)


def _output(term: _Term, numbers: Sequence[Number]) -> Number:
    if term.number < 0:
        return Number((), False)
    bits, signed = numbers[term.number]
    if term.exponent < 0:
        return Number(bits[-term.exponent :], signed)
    return Number((None,) * term.exponent + bits, signed)
