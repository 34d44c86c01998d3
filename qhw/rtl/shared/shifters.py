"""Shifters in several steps, with a register behind each (``cost_models/rtl/shift_left.v``)."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from qhw.rtl.base import Features
from qhw.rtl.shared import lut4
from qhw.rtl.shared.cells import Cells


def shift_stages(places: int) -> int:
    """Stages of a shifter by 0 to ``places``: at least one, each with two bits of the amount."""
    return max(1, (places.bit_length() + 1) // 2)


class PipelinedShifter(NamedTuple):
    """A shifter with a register behind each stage of two bits (``cost_models/rtl/shift_left.v``).

    Args:
        bits: bits of all stages, which each take a LUT of up to six inputs.
        wide: bits whose LUT has five or six inputs.
        lut4s: LUTs of four inputs.
        data_registers: flip-flops of the data, one per bit of a stage that is read.
        amount_registers: flip-flops of the amount's bits that wait for later stages.
        read: the bits of the operand that are read.
    """

    bits: int
    wide: int
    lut4s: int
    data_registers: int
    amount_registers: int
    stages: int
    read: frozenset[int]

    @property
    def registers(self) -> int:
        """All flip-flops."""
        return self.data_registers + self.amount_registers


@cache
def staged_shifter(
    bits: int, places: int, out_bits: int, signed: bool = False, unseen: int = 0
) -> PipelinedShifter:
    """A left shift by 0 to ``places``.

    Args:
        unseen: low bits of the result that nothing reads; what only they read is gone too.
    """
    select = places.bit_length()
    read = frozenset(range(unseen, min(bits, out_bits) if select == 0 else out_bits))
    if select == 0:
        return PipelinedShifter(0, 0, 0, len(read), 0, 1, read)
    inputs_of: Counter[int] = Counter()
    data = amount = lut4s = 0
    stages = _stage_widths(bits, select, out_bits)
    widths = [bits, *(width for _, _, width in stages)]
    for (low, taken, _), before in reversed(list(zip(stages, widths, strict=False))):
        sources = [_sources(bit, before, 1 << low, 1 << taken, signed) for bit in read]
        # The sign bit of a whole stage is its operand's own, and takes no LUT.
        inputs_of.update(len(choice) + taken for choice, copied in sources if not copied)
        lut4s += lut4.shift_stage(before, 1 << low, 1 << taken, read, signed)
        data, amount = data + len(read), amount + select - low - taken
        read = frozenset().union(*(choice for choice, _ in sources))
    wide = inputs_of[5] + inputs_of[6]
    return PipelinedShifter(inputs_of.total(), wide, lut4s, data, amount, len(stages), read)


def _sources(bit: int, width: int, step: int, choices: int, signed: bool) -> tuple[frozenset[int], bool]:
    """The bits of a stage's operand that one bit of it is chosen from, and whether it is a copy of one."""
    places = [bit - k * step for k in range(choices)]
    chosen = frozenset(min(place, width - 1) for place in places if place >= 0 and (signed or place < width))
    return chosen, signed and places[-1] >= width - 1


def shifter_features(cells: Cells, shifter: PipelinedShifter, lanes: int = 1) -> Features:
    """Counts of structure in ``lanes`` shifters."""
    if cells.inputs == 4:
        return {"shifter LUTs": lanes * shifter.lut4s}
    return {
        "shifter bits": lanes * shifter.bits,
        "shifter bits of over 4 inputs": lanes * shifter.wide,
    }


def _stage_widths(bits: int, select: int, out_bits: int) -> list[tuple[int, int, int]]:
    """For each stage, the lowest bit of the amount that it takes, how many it takes, and its own bits."""
    first = 2 - select % 2
    bounds = [0, *range(first, select + 1, 2)]
    return [(low, high - low, min(bits + (1 << high) - 1, out_bits)) for low, high in pairwise(bounds)]
