"""The end of an exact sum: the mantissa itself, or the result of the Requant that alone reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qhw.errors import UnsupportedError
from qhw.flows.hls4ml.carry import FixedType, Stored, check_width, fixed_type, listed
from qhw.flows.hls4ml.operands import MOST_COMPARED, has_encoder, operand_policy, ordinal
from qhw.flows.hls4ml.plan import Planner
from qhw.formats.modes import IntArray, Overflow, Rounding
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.infer import requant_bounds

_OVERFLOW = {
    Overflow.SAT: "saturate",
    Overflow.SAT_SYM: "saturate",
    Overflow.SAT_ZERO: "saturate_zero",
    Overflow.WRAP: "wrap",
    Overflow.WRAP_SM: "wrap_sm",
}
"""The header library's names; a symmetric range has bounds of its own."""


@dataclass(frozen=True)
class Finish:
    """An element-wise operation of the header library from a sum to ``tensor``.

    ``arrays`` hold one number, or one for each of the ``exponents`` that it was made for.
    """

    tensor: str
    operation: str
    type: FixedType
    format: TableFormat | None = None
    constants: Mapping[str, int | str] = field(default_factory=dict)
    types: Mapping[str, FixedType | str] = field(default_factory=dict)
    arrays: Mapping[str, Stored] = field(default_factory=dict)


def requantised(
    planner: Planner, node: ir.Requant, source: FixedType, exponents: IntArray, targets: IntArray
) -> Finish:
    """A Requant of mantissas that count in ``2**exponents``: one, or (n,), as the result's ``targets``."""
    kind, drops = planner.graph.tensors[node.output], np.asarray(targets - exponents).reshape(-1)
    target, format = fixed_type(kind, planner.where(node)), listed(kind)
    if np.unique(drops).size == 1:
        drops = drops[:1]
    if format is not None:
        return _encoded(planner, node, source, drops, format)
    cast = planner.cast_type(node, source) if drops.size == 1 else None
    if cast is not None:
        return Finish(node.output, "cast", target, types={"cast_t": cast})
    bounds = (0, 0)
    if node.overflow.saturates:
        bounds = requant_bounds(node, kind)
    if max(map(abs, bounds)).bit_length() > 62:
        raise UnsupportedError(
            f"{planner.where(node)}: its bounds need more than 63 bits",
            hint="quantise to a narrower format",
        )
    return _shifted(node.output, source, target, drops, node.rounding, _OVERFLOW[node.overflow], bounds)


def exactly(
    tensor: str, source: FixedType, target: FixedType, exponents: IntArray, targets: IntArray
) -> Finish:
    """The sum as the mantissa of ``tensor``: it counts in ``2**targets``, and only zeros are dropped."""
    drops = np.asarray(targets - exponents).reshape(-1)
    if not drops.any():
        return Finish(tensor, "keep", target)
    return _shifted(tensor, source, target, drops, Rounding.TRN, "wrap", (0, 0))


def _shifted(
    tensor: str,
    source: FixedType,
    target: FixedType,
    drops: IntArray,
    rounding: Rounding,
    overflow: str,
    bounds: tuple[int, int],
) -> Finish:
    """A Requant that no result type does by itself: shifts per channel, own bounds, up or away from zero.

    Shifts are no longer than what they do: one bit beyond the number itself, all that is left of it is its
    sign and whether it is zero, and one beyond the result every number but zero has left its range.
    """
    drops = np.clip(drops, -(target.bits + 1), source.bits + 1)
    most, least = int(drops.max()), int(drops.min())
    width = source.bits + 1 + most - least
    rounded = max(width - most, target.bits) + 3
    modes = {Rounding.CEIL: ("ceiling", Rounding.TRN), Rounding.UP: ("away", Rounding.TRN)}
    name, mode = modes.get(rounding, ("cast", rounding))
    low, high = bounds
    return Finish(
        tensor,
        "requant",
        target,
        constants={
            "rounding": f"qhw::{name}",
            "overflow": f"qhw::{overflow}",
            "low": low,
            "high": high,
        },
        types={
            "aligned_t": FixedType(width, True, -most),
            "rounded_t": FixedType(rounded, True, 0, mode),
        },
        arrays={"shift": Stored.holding(most - drops, 0)},
    )


def _encoded(
    planner: Planner, node: ir.Requant, source: FixedType, drops: IntArray, format: TableFormat
) -> Finish:
    """A Requant to a format that lists its codes."""
    where, kind = planner.where(node), planner.graph.tensors[node.output]
    if not has_encoder(format):
        raise UnsupportedError(
            f"{where}: the hls4ml flow rounds to {format} by thresholds, and the format has too many",
            allowed=f"minifloats, powers of two with zero, other formats of at most {MOST_COMPARED} bits",
        )
    low, high = (ordinal(format, bound) for bound in requant_bounds(node, kind))
    # Beyond these only a number's sign counts: it is below half of the smallest, or above the largest.
    drops = np.clip(drops, -(format.mantissa_high.bit_length() + 1), source.bits + 2)
    most, spread = int(drops.max()), int(drops.max() - drops.min())
    check_width(where, max(source.bits + 1 + spread + max(0, -most), most) + format.width)
    return Finish(
        node.output,
        "encode" if drops.size == 1 else "encode_shifted",
        fixed_type(kind, where),
        format,
        constants={
            "conversion": f"qhw::{node.rounding.value}",
            "down": most,
            "low": low,
            "high": high,
            **({} if drops.size == 1 else {"largest_shift": spread}),
        },
        types={"y_format": operand_policy(format)},
        arrays={} if drops.size == 1 else {"shift": Stored.units(most - drops)},
    )
