"""Multiply-accumulators of minifloats, alone and with integers, and the conversion from fixed point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache, partial
from itertools import pairwise
from typing import NamedTuple

from qhw.cost import lut4, structure
from qhw.cost.cells import Cells, cells_of
from qhw.cost.structure import levels
from qhw.cost.unit_models import Features, UnitModel, Values
from qhw.formats.modes import Rounding
from qhw.rtl.finish import ROUNDINGS
from qhw.rtl.minifloats import normalised_places, product_span


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


def _shifts(cells: Cells, shifter: PipelinedShifter, lanes: int = 1) -> Features:
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


def _significand_bits(values: Values) -> int:
    """Bits of a product's significand; a factor of one bit makes it no longer."""
    ma, mb = values["MA"], values["MB"]
    return ma + mb + (2 if ma and mb else 1)


def _exponent_luts(cells: Cells, values: Values) -> int:
    """LUTs of the two leading bits and of the sum of the places; on ECP5 the sign's, too.

    Two decoded bits of fields of two bits fit the LUT of their sum; of longer fields, each takes its own.
    """
    short, long = sorted((values["EA"], values["EB"]))
    if cells.inputs == 4:
        return lut4.leading_bit(short) + lut4.leading_bit(long) + lut4.sum_of_places(short, long) + 1
    leading = (short > 1) + (long > 1)
    if short == 1:
        return leading + (long if long > 1 else 0)
    decoded = 2 * short if short > 2 else 2 if long > 2 else 0
    return leading + long + decoded


def _significands(values: Values) -> tuple[int, int]:
    """Bits of the two that are multiplied."""
    return values["MA"] + 1, values["MB"] + 1


def _minifloat_mac(cells: Cells, values: Values) -> Features:
    bits, span = _significand_bits(values), product_span(values)
    return {
        **cells.multipliers(1, *_significands(values)),
        "exponent LUTs": _exponent_luts(cells, values),
        **_shifts(cells, staged_shifter(bits, span, bits + span)),
        **cells.signed_accumulator(values["A"], bits + span),
    }


def _operands(values: Values) -> int:
    return 2 + values["EA"] + values["MA"] + values["EB"] + values["MB"]


def _minifloat_mac_registers(values: Values) -> int:
    bits, span = _significand_bits(values), product_span(values)
    shifter = staged_shifter(bits, span, bits + span)
    product = 1 + bits + span.bit_length()
    controls = shifter.stages + (2 + shifter.stages)
    return _operands(values) + product + shifter.registers + controls + values["A"]


def _lane_shifter(values: Values) -> PipelinedShifter:
    bits, span = _significand_bits(values) + 1, product_span(values)
    return staged_shifter(bits, span, bits + span, signed=True)


def _minifloat_dot(cells: Cells, values: Values) -> Features:
    lanes, bits = values["L"], _significand_bits(values)
    return {
        **cells.multipliers(lanes, *_significands(values)),
        "exponent LUTs": lanes * _exponent_luts(cells, values),
        **_negated(cells, lanes, bits),
        **_shifts(cells, _lane_shifter(values), lanes),
        **cells.tree(lanes, bits + product_span(values) + 1),
        **cells.accumulator(values["A"]),
    }


def _negated(cells: Cells, lanes: int, bits: int) -> Features:
    """A sign taken into a number; on ECP5 its bits are inverted beside the chain."""
    if cells.inputs == 4:
        return {"sign LUTs": lanes * lut4.negation(bits)}
    return {"sign bits": lanes * (bits + 1)}


def _minifloat_dot_registers(values: Values) -> int:
    lanes, bits, span = values["L"], _significand_bits(values), product_span(values)
    shifter = _lane_shifter(values)
    lane = _operands(values) + 1 + bits + (bits + 1) + 2 * span.bit_length() + shifter.registers
    tree = structure.tree_registers(lanes, bits + span + 1)
    return lanes * lane + tree + 3 + shifter.stages + levels(lanes) + values["A"]


def _mixed_product(values: Values) -> tuple[int, int]:
    """Bits of the integer times the significand, and the places of the shift."""
    a, mantissa = values["WA"], values["MB"]
    bits = a if mantissa == 0 else mantissa + 1 if a == 1 and not values["SA"] else a + mantissa + 1
    return bits, (1 << values["EB"]) - 2


def _mixed_mac(cells: Cells, values: Values) -> Features:
    bits, span = _mixed_product(values)
    signed = bool(values["SA"])
    return {
        **cells.multipliers(1, values["WA"], values["MB"] + 1, signed),
        "exponent LUTs": _mixed_exponent(cells, values["EB"]),
        **_shifts(cells, staged_shifter(bits, span, bits + span, signed)),
        **cells.signed_accumulator(values["A"], bits + span),
    }


def _mixed_exponent(cells: Cells, bits: int) -> int:
    if cells.inputs == 4:
        return lut4.leading_bit(bits) + lut4.places(bits)
    return bits + 1 if bits > 1 else 0


def _mixed_mac_registers(values: Values) -> int:
    bits, span = _mixed_product(values)
    shifter = staged_shifter(bits, span, bits + span, bool(values["SA"]))
    operands = values["WA"] + 1 + values["EB"] + values["MB"]
    product = 1 + bits + span.bit_length()
    controls = shifter.stages + (2 + shifter.stages)
    return operands + product + shifter.registers + controls + values["A"]


class _Conversion(NamedTuple):
    """The values that ``cost_models/rtl/fixed_to_minifloat.v`` derives from its parameters.

    Args:
        range_bits: bits of the largest magnitude that may be in range.
        magnitude: bits of the magnitude that are looked at one by one.
        point: digits of the normalised magnitude that go.
        rounded: bits of the rounded code.
    """

    range_bits: int
    magnitude: int
    places: int
    point: int
    rounded: int
    shifter: PipelinedShifter


def _conversion(values: Values) -> _Conversion:
    a, e, m, p = values["A"], values["E"], values["M"], values["P"]
    range_bits = p + m + (1 << e) - 1
    magnitude, places = min(a, range_bits), normalised_places(values)
    point = p + places
    rounded = e + m + 1 if a > range_bits else m + (places + 1).bit_length() if a > p + m else a - p
    shifter = staged_shifter(magnitude, places, magnitude, unseen=_unseen(values, point))
    return _Conversion(range_bits, magnitude, places, point, rounded, shifter)


def _unseen(values: Values, point: int) -> int:
    """Digits below the point that the rounding does not look at."""
    rounding = ROUNDINGS[values["ROUNDING"]]
    if rounding is Rounding.TRN_ZERO:
        return point
    return max(0, point - 1) if rounding is Rounding.RND_INF else 0


def _fixed_to_minifloat(cells: Cells, values: Values) -> Features:
    parts = _conversion(values)
    saturates = values["A"] > parts.range_bits
    return {
        "magnitude bits": values["A"],
        "leading zeros": parts.places,
        **_shifts(cells, parts.shifter),
        "reduction LUTs": _reductions(cells, values, parts),
        "rounded bits": parts.rounded,
        "saturated bits": values["E"] + values["M"] + 1 if saturates else 0,
    }


def _reductions(cells: Cells, values: Values, parts: _Conversion) -> int:
    """LUTs that see whether any digit is set among those that go, and among those above the range."""
    sticky = cells.reduction(parts.point) if _unseen(values, parts.point) == 0 else 0
    return sticky + cells.reduction(values["A"] - parts.range_bits)


def _fixed_to_minifloat_of_lut4(cells: Cells, values: Values) -> Features:
    parts, bits = _conversion(values), values["A"]
    code = values["E"] + values["M"]
    rounds = ROUNDINGS[values["ROUNDING"]] is not Rounding.TRN_ZERO
    # Where nothing is rounded, the mantissa passes below the exponent's addition.
    added = parts.rounded + 1 if rounds else parts.rounded - values["M"]
    return {
        "magnitude LUTs": bits - 1 + lut4.adder(bits + 1),
        "leading zeros": lut4.leading_zeros(parts.places),
        **_shifts(cells, parts.shifter),
        "reduction LUTs": _reductions(cells, values, parts),
        "rounded LUTs": lut4.adder(added) + parts.places.bit_length(),
        "code LUTs": (code if bits > parts.range_bits else 0) + lut4.reduction(code + 2),
    }


def _fixed_to_minifloat_registers(values: Values) -> int:
    parts, a = _conversion(values), values["A"]
    saturates, stages = a > parts.range_bits, parts.shifter.stages
    # The exponent comes from the leading zeros and the range check; both read the bits above the subnormals'.
    inspected = parts.shifter.read | set(range(values["P"] + values["M"] + 1, a))
    magnitudes = len(inspected) + len(parts.shifter.read)
    # The whole amount is delayed along the shifter: the exponent field is computed from it.
    amount = (stages + 1) * parts.places.bit_length()
    flags = stages + 3 + (stages + 2 if saturates else 0)
    code = 1 + min(parts.rounded, values["E"] + values["M"])
    return a + magnitudes + parts.shifter.data_registers + amount + flags + parts.rounded + code


def models(family: str) -> Mapping[str, UnitModel]:
    """The models of the minifloat units, in one family's cells."""
    own = cells_of(family)
    conversion = _fixed_to_minifloat if own.inputs == 6 else _fixed_to_minifloat_of_lut4
    return {
        "minifloat_mac": UnitModel(partial(_minifloat_mac, own), _minifloat_mac_registers),
        "minifloat_dot": UnitModel(partial(_minifloat_dot, own), _minifloat_dot_registers),
        "mixed_mac": UnitModel(partial(_mixed_mac, own), _mixed_mac_registers),
        "fixed_to_minifloat": UnitModel(partial(conversion, own), _fixed_to_minifloat_registers),
    }
