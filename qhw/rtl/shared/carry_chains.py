"""Sums on carry chains, bit by bit: which of their positions take a LUT, and which bits are wires."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from qhw.rtl.shared import lut4

Bit: TypeAlias = "tuple[int, int] | None"
"""The bit in a flip-flop: of an input (0 and below) or a sum, by its number and place; None: 0."""

Bits: TypeAlias = "tuple[Bit, ...]"
"""The bits of a number, from the lowest."""

Position: TypeAlias = "tuple[Bit, Bit]"
"""The two bits that a carry chain adds in one place."""


class Number(NamedTuple):
    """A number by its bits."""

    bits: Bits
    signed: bool

    def placed(self, shift: int, width: int) -> Bits:
        """Zeros below, the sign or zeros above."""
        above = self.bits[-1] if self.signed else None
        return ((None,) * shift + self.bits + (above,) * width)[:width]


@dataclass
class CarryChains:
    """The sums of a circuit, in the order in which they are made, and what they count as.

    Args:
        sums: the number of each sum by what is added: the same is built once.
        positions: positions of carry chains that take a LUT, by whether they subtract.
        short: positions that take a LUT, in sums of up to two bits.
        lut4s: LUTs on ECP5, where chains share no position.
        read: bits that were read since it was emptied last.
    """

    sums: dict[tuple[bool, tuple[Position, ...]], int] = field(default_factory=dict)
    positions: set[tuple[bool, frozenset[Bit]]] = field(default_factory=set)
    short: int = 0
    lut4s: int = 0
    read: set[Bit] = field(default_factory=set)

    @property
    def luts(self) -> int:
        """LUTs where chains have LUTs of six inputs."""
        return len(self.positions) + self.short

    def added(self, left: Bits, right: Bits, subtracts: bool) -> Bits:
        """The sum of two numbers of one width, or their difference."""
        pairs = list(zip(left, right, strict=True))
        self.read |= {bit for pair in pairs for bit in pair}
        passed = 0
        while passed < len(pairs) and _passes(pairs[passed], subtracts):
            passed += 1
        chain = tuple(pairs[passed:])
        if not subtracts and not any(a is not None and b is not None for a, b in chain):
            return tuple(b if a is None else a for a, b in pairs)
        below = tuple(b if a is None else a for a, b in pairs[:passed])
        return below + self._chain(chain, subtracts)

    def _chain(self, chain: tuple[Position, ...], subtracts: bool) -> Bits:
        known = len(self.sums) + 1
        number = self.sums.setdefault((subtracts, chain), known)
        if number == known:
            bits = {bit for pair in chain for bit in pair} - {None}
            self.lut4s += lut4.sum_of(len(bits), len(chain))
            needed = any if subtracts else all
            different = {frozenset(pair) for pair in chain if needed(bit is not None for bit in pair)}
            # Sums of up to two bits are built without a carry chain.
            if len(chain) <= 2:
                self.short += len(chain)
            else:
                self.positions |= {(subtracts, pair) for pair in different}
        return tuple((number, place) for place in range(len(chain)))


def _passes(pair: Position, subtracts: bool) -> bool:
    """Whether the low bits of one operand lie beside the other; Yosys does not see that 0 - 0 is 0."""
    left, right = pair
    if subtracts:
        return left is not None and right is None
    return left is None or right is None


def distinct(numbers: Sequence[Number]) -> set[Bit]:
    """The flip-flops of some numbers."""
    return {bit for number in numbers for bit in number.bits} - {None}
