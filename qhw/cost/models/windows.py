"""Windows that slide over an image, and the largest of some numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from qhw.cost import lut4, structure
from qhw.cost.cells import Cells, cells_of
from qhw.cost.models.memories import (
    XILINX,
    block_ram,
    lut_memory_features,
    multiplexer,
    ultra_ram,
)
from qhw.cost.structure import counter_bits, is_power, levels
from qhw.cost.unit_models import Features, UnitModel, Values
from qhw.rtl.memories import BLOCK_RAM, LUT_MEMORY, SHIFT_REGISTER, ULTRA_RAM


def _line_bits(values: Values) -> int:
    """Bits of one column of the rows that are kept."""
    return (values["K"] - 1) * values["W"]


def _line_buffer(family: str, values: Values) -> Features:
    row, bits = values["N"], _line_bits(values)
    if values["STYLE"] == SHIFT_REGISTER:
        return {"memory LUTs": bits * _whole_shifts(_rest(values))}
    column = _column(cells_of(family), row)
    if values["STYLE"] == LUT_MEMORY:
        return {**lut_memory_features(row, bits, family), **column}
    return {"selected bits": bits * multiplexer(_banks(values, family), family), **column}


def _column(cells: Cells, row: int) -> Features:
    """Its counter."""
    bits = counter_bits(row)
    wrapping = 0 if is_power(row) else bits
    if cells.inputs == 4:
        # The gate that finds the last count reads `enable` too.
        return {"column LUTs": lut4.increment(bits) + (lut4.reduction(bits + 1) if wrapping else 0)}
    return {"column counter": 1, "column bits": bits, "wrapping column bits": wrapping}


def _rest(values: Values) -> int:
    """Pixels of a row behind the window."""
    return values["N"] - values["K"] + 1


def _banks(values: Values, family: str) -> int:
    if values["STYLE"] == ULTRA_RAM:
        return ultra_ram(values["N"], _line_bits(values)).banks
    return block_ram(values["N"], _line_bits(values), family).banks


def _line_registers(family: str, values: Values) -> int:
    side, width, row = values["K"], values["W"], values["N"]
    window = (side - 1) * side * width + width
    if values["STYLE"] == SHIFT_REGISTER:
        return window + _line_bits(values) * _single_places(_rest(values))
    column = 2 * (row - 1).bit_length()
    if values["STYLE"] == LUT_MEMORY:
        return window + column + _line_bits(values)
    return window + column + levels(_banks(values, family))


_LEAST_SHIFT = 3
"""Fewer places in a row stay flip-flops."""


def _whole_shifts(places: int) -> int:
    """LUTs of a one-bit shift register, of which only the end is read; a single place left over is none."""
    whole, left = divmod(places, 32)
    return whole + (left > 1) if places >= _LEAST_SHIFT else 0


def _single_places(places: int) -> int:
    """Flip-flops of that shift register."""
    return int(places % 32 == 1) if places >= _LEAST_SHIFT else places


def _line_bram18(values: Values, family: str) -> int:
    return block_ram(values["N"], _line_bits(values), family).units if values["STYLE"] == BLOCK_RAM else 0


def _line_uram(values: Values, family: str) -> int:
    return ultra_ram(values["N"], _line_bits(values)).units if values["STYLE"] == ULTRA_RAM else 0


def _max_pool(family: str, values: Values) -> Features:
    """Two bits are compared in one LUT on a carry chain, or in two of four inputs beside the chain's own."""
    pairs, width = values["N"] - 1, values["W"]
    positions = structure.comparison(width) if width > _IN_ONE_LUT else 0
    features: Features = {"selected bits": pairs * width}
    if family in XILINX:
        return {**features, "comparison bits": pairs * positions}
    if positions <= _WITHOUT_CARRY:
        return {**features, "comparison bits without a carry chain": pairs * positions}
    return {**features, "comparison bits": 2 * pairs * (positions + (positions + 2) // 2)}


_IN_ONE_LUT = 2
"""Bits of two numbers that one LUT compares and selects."""

_WITHOUT_CARRY = 3
"""Positions of a comparison up to which a LUT of four inputs takes no carry chain."""


def _max_pool_registers(values: Values) -> int:
    count, registers = values["N"], values["N"]
    while count > 1:
        count = (count + 1) // 2
        registers += count
    return registers * values["W"]


def models(family: str) -> Mapping[str, UnitModel]:
    """The models of the units on a stream of pixels, in one family's cells."""
    return {
        "line_buffer": UnitModel(
            partial(_line_buffer, family),
            partial(_line_registers, family),
            bram18=_line_bram18,
            uram=_line_uram,
        ),
        "max_pool": UnitModel(partial(_max_pool, family), _max_pool_registers),
    }
