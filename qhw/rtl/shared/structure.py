"""Bit counts that a person can derive from a circuit: multiplier rows, adder trees, shifters, comparators.

Each function takes whole numbers and is remembered: a network asks for few different ones. A bit whose other
operand is a constant 0 takes no LUT.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import NamedTuple, TypeAlias


class Multiplier(NamedTuple):
    """Carry bits of a multiplier's paired rows, of the tree that adds them, and AND gates alone."""

    rows: int
    tree: int
    gates: int


class Shifter(NamedTuple):
    """Bits of a shifter, by the inputs of the LUT that each takes: six, four or five, three or fewer."""

    six: int
    five: int
    three: int


def levels(count: int) -> int:
    """Levels of a binary tree over ``count`` inputs."""
    return (count - 1).bit_length()


@cache
def multiplier(a_bits: int, b_bits: int, a_signed: bool, b_signed: bool) -> Multiplier:
    """A product in LUTs, as ``cost_models/mapping/mul_rows.v`` builds it."""
    if b_bits > a_bits:
        a_bits, b_bits, a_signed, b_signed = b_bits, a_bits, b_signed, a_signed
    width, rows = a_bits + b_bits, (b_bits + 1) // 2
    if b_bits == 1 and b_signed:
        return Multiplier(a_bits, 0, 0)  # 0 or -a, whose sign takes no LUT of its own
    added = gates = 0
    for row in range(rows):
        paired = 2 * row + 1 < b_bits
        if paired or (b_signed and row == rows - 1):
            added += min(a_bits + 1, width - 2 * row)
        else:
            gates += a_bits
    # The gates of a single last row are taken in by the tree's LUTs.
    return Multiplier(added, _row_tree(a_bits, width, rows, a_signed), 0 if rows > 1 else gates)


def _row_tree(a_bits: int, width: int, rows: int, a_signed: bool) -> int:
    bits, half = 0, 1
    while half < rows:
        for first in range(0, rows - half, 2 * half):
            left = min(a_bits + 2 * half, width - 2 * first)
            both = min(a_bits + 2 * min(2 * half, rows - first), width - 2 * first)
            bits += (both if a_signed else left) - 2 * half
        half *= 2
    return bits


@cache
def adder_tree(inputs: int, bits: int) -> int:
    """Carry bits of a balanced tree whose sums grow by one bit a level."""
    total = 0
    while inputs > 1:
        total += (inputs // 2) * bits
        inputs, bits = (inputs + 1) // 2, bits + 1
    return total


@cache
def tree_registers(inputs: int, bits: int) -> int:
    """Flip-flops of a registered tree; an odd input's extension bits are 0, or repeat the one below."""
    total = shared = extension = 0
    while inputs > 1:
        extension = extension + 1 if inputs % 2 else 0
        shared += extension
        inputs, bits = (inputs + 1) // 2, bits + 1
        total += inputs * bits
    return total - shared


@cache
def shifter(bits: int, out_bits: int, places: int, signed: bool = False) -> Shifter:
    """A left shift by 0 to ``places``, two bits of the amount a stage."""
    select, six, five, three = places.bit_length(), 0, 0, 0
    for low in range(0, select, 2):
        steps = [1 << bit for bit in range(low, min(low + 2, select))]
        amounts = sorted({a for a in (0, steps[0], steps[-1], sum(steps)) if a <= places})
        width = min(bits + amounts[-1], out_bits)
        for bit in range(width):
            sources = {min(bit - a, bits - 1) if signed else bit - a for a in amounts if bit >= a}
            count = sum(source < bits for source in sources)
            inputs = count + len(steps) if count else 0
            six += inputs >= 6
            five += 4 <= inputs < 6
            three += 0 < inputs < 4
        bits = width
    return Shifter(six, five, three)


def reduction(inputs: int) -> int:
    """LUTs that find whether any of some bits is set, five new ones a LUT."""
    return ceil(max(inputs - 1, 0) / 5)


def is_power(number: int) -> bool:
    """Whether a number is a power of two, so that a counter of as many steps wraps by itself."""
    return number & (number - 1) == 0


def counter_bits(count: int) -> int:
    """Flip-flops of ``cost_models/rtl/cycle.v``."""
    return (count - 1).bit_length()


def counter(count: int) -> int:
    """Its LUTs: the lowest bit's, a comparison with the last count, a reset to 0 where it does not wrap."""
    bits = counter_bits(count)
    if bits < 2:
        return bits
    if bits == 2:
        return 3
    return 1 + reduction(bits) + (not is_power(count))


def comparison(bits: int) -> int:
    """Carry bits of a comparison, two bits of the operands each."""
    return ceil(bits / 2)


@cache
def shift_luts(bits: int, places: int, signed: bool = False) -> int:
    """LUTs of six inputs of ``cost_models/rtl/shift_up_to.v``, which takes two bits of the amount a stage.

    A bit of one stage takes no LUT of its own where every bit of the next that it goes to has inputs left.
    """
    cells, outputs = _shift_cells(bits, places, signed)
    for cell in list(cells):
        users = [other for other, inputs in cells.items() if cell in inputs]
        merged = {user: cells[user] - {cell} | cells[cell] for user in users}
        if cell not in outputs and all(len(inputs) <= 6 for inputs in merged.values()):
            cells |= merged
            del cells[cell]
    return len(cells)


_Signal: TypeAlias = "tuple[int, int]"
"""A bit of a stage, from 1 on; stage 0 is what is shifted, and the amount's bits count down from -1."""


def _shift_cells(
    bits: int, places: int, signed: bool
) -> tuple[dict[_Signal, frozenset[_Signal]], list[_Signal | None]]:
    """The inputs of every bit that is not just another bit or 0, in order, and the last stage's bits."""
    cells: dict[_Signal, frozenset[_Signal]] = {}
    row: list[_Signal | None] = [(0, bit) for bit in range(bits)]
    total, step, stage = bits + places, 1, 1
    while places:
        most = min(places, 3)
        fill = row[-1] if signed else None
        selects = [(-1, 2 * stage + bit) for bit in range(most.bit_length())]
        above = min(most * step, total - len(row))
        old, row = row, []
        for bit in range(len(old) + above):
            choice = [
                _shifted(old, fill, bit - min(amount, most) * step) for amount in range(1 << len(selects))
            ]
            row.append(_cell(cells, (stage, bit), choice, selects))
        places, step, stage = places // 4, 4 * step, stage + 1
    return cells, row


def _shifted(row: list[_Signal | None], fill: _Signal | None, bit: int) -> _Signal | None:
    if bit < 0:
        return None
    return row[bit] if bit < len(row) else fill


def _cell(
    cells: dict[_Signal, frozenset[_Signal]],
    name: _Signal,
    choice: list[_Signal | None],
    selects: list[_Signal],
) -> _Signal | None:
    """Enter a multiplexer, unless all its inputs are one; the signal that holds its output."""
    if len(set(choice)) == 1:
        return choice[0]
    used = [
        select
        for place, select in enumerate(selects)
        if any(choice[i] != choice[i ^ (1 << place)] for i in range(len(choice)))
    ]
    cells[name] = frozenset({*used, *(source for source in choice if source is not None)})
    return name


class Tree(NamedTuple):
    """Carry bits of a tree's adders, those of one bit each, and flip-flops behind all of them."""

    bits: int
    single: int
    registers: int


@cache
def unsigned_tree(inputs: int, bits: int, last: int) -> Tree:
    """A registered tree of unsigned numbers, the last of which may be shorter; zeros take nothing."""
    carry = single = registers = 0
    while inputs > 1:
        pairs, odd = divmod(inputs, 2)
        shorter = bits if odd else last
        carry += (pairs - 1) * bits + shorter
        single += pairs if bits == 1 else 0
        registers += pairs * (bits + 1) + odd * last
        inputs, bits, last = pairs + odd, bits + 1, last if odd else bits + 1
    return Tree(carry, single, registers)
