"""The pixels under a window that slides over the rows of an image."""

from __future__ import annotations

from functools import partial

import numpy as np

from qhw.rtl.base import (
    Axis,
    ClosedForms,
    Features,
    MeasuredUnit,
    Parameter,
    Port,
    Ports,
    Space,
    Streams,
    Values,
)
from qhw.rtl.shared import lut4
from qhw.rtl.shared.arithmetic import at_least
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.energy import MEMORY_PJ_PER_BIT
from qhw.rtl.shared.memories import (
    BLOCK_RAM,
    LUT_MEMORY,
    MEMORY,
    MEMORY_STYLES,
    SHIFT_REGISTER,
    ULTRA_RAM,
    block_ram,
    check_words,
    lut_memory_features,
    multiplexer,
    ultra_ram,
)
from qhw.rtl.shared.structure import counter_bits, is_power, levels


def _reference(values: Values, inputs: Streams) -> Streams:
    """Each pixel of the window as the image of some steps ago."""
    x = inputs["x"][:, 0]
    size, row = values["K"], values["N"]
    ago = [r * row + c for r in range(size) for c in range(size)]
    steps = np.arange(len(x))
    return {"window": np.stack([x[np.maximum(steps - delay, 0)] for delay in ago], axis=1)}


def _rule(values: Values) -> None:
    at_least("line_buffer", values, "N", values["K"], "the window is wider than a row")
    check_words("line_buffer", values, "N")


def _line_bits(values: Values) -> int:
    """Bits of one column of the rows that are kept."""
    return (values["K"] - 1) * values["W"]


def _features(family: str, values: Values) -> Features:
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


def _registers(family: str, values: Values) -> int:
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


def _bram18(values: Values, family: str) -> int:
    return block_ram(values["N"], _line_bits(values), family).units if values["STYLE"] == BLOCK_RAM else 0


def _uram(values: Values, family: str) -> int:
    return ultra_ram(values["N"], _line_bits(values)).units if values["STYLE"] == ULTRA_RAM else 0


def _energy(v: Values) -> float:
    return 2 * (v["K"] - 1) * v["W"] * MEMORY_PJ_PER_BIT


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, family), partial(_registers, family), bram18=_bram18, uram=_uram)


UNIT = MeasuredUnit(
    name="line_buffer",
    summary="the K x K pixels of W bits that a window lies on, over rows of N",
    ranges=(
        Parameter("K", 2, 16, "pixels along the window's side"),
        Parameter("W", 1, 1024, "bits of a pixel, all its channels"),
        Parameter("N", 2, 1 << 16, "pixels of a row"),
        Parameter("STYLE", 0, 3, f"0 shift registers, {MEMORY_STYLES}"),
    ),
    sources=("cycle", *MEMORY, "shift_register", "line_buffer"),
    ports=lambda values: Ports((Port("x", values["W"]),), (Port("window", values["W"], values["K"] ** 2),)),
    latency=lambda values: 1,
    reference=_reference,
    rule=_rule,
    warm_up=lambda values: (values["K"] - 1) * (values["N"] + 1),
    memories=True,
    srl=True,
    space=Space(
        place=16, points=60, axes=(Axis("K", 2, 5), Axis("W", 2, 32), Axis("N", 8, 256), Axis("STYLE", 0, 2))
    ),
    closed_forms=_closed_forms,
    energy_pj=_energy,
)
