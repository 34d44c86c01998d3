"""The quantizer kernels as plain torch operations: the definition, and the fallback without a compiler.

Element by element and sum by sum it does what ``fixed.cpp`` does, in the same order, so that both give the
same bits. ``unit`` is what a mantissa of 1 stands for, one number per channel or a single one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from qhw.formats.modes import Overflow, Rounding
from qhw.quantizers.kernels.problem import (
    BLOCK,
    INTERLEAVED_CHUNK,
    LANES,
    FloatGrid,
    Layout,
    ListGrid,
    Operands,
    Rule,
    Unit,
    layout_of,
)


def forward(operands: Operands, unit: Unit, rule: Rule) -> Tensor:
    """The quantised values; shape, type and memory order of ``operands.x``."""
    return mantissas(operands, unit, rule) * _per_channel(unit, operands)


def mantissas(operands: Operands, unit: Unit, rule: Rule) -> Tensor:
    """The integers that numbers become, in the type of ``operands.x``."""
    _, scaled, rounded = _steps(operands, unit, rule)
    return _overflow(scaled, rounded, rule)


def backward(operands: Operands, grad: Tensor, unit: Unit, rule: Rule) -> tuple[Tensor, Tensor]:
    """Gradient of the number that was quantised, and per channel the sum of ``grad * dy/ds`` (float64)."""
    value, scaled, rounded = _steps(operands, unit, rule)
    passed, slope = _gradients(value, scaled, rounded, grad, rule)
    return passed, channel_sums(grad.double() * slope.double(), operands.layout)


def affine_sums(operands: Operands, grad: Tensor, unit: Unit, rule: Rule) -> Tensor:
    """Per channel, float64 ``(3, channels)``: sums of the offset's, the gain's and the scale's gradient."""
    value, scaled, rounded = _steps(operands, unit, rule)
    passed, slope = _gradients(value, scaled, rounded, grad, rule)
    wide = passed.double()
    products = (wide, wide * operands.x.double(), grad.double() * slope.double())
    return torch.stack([channel_sums(product, operands.layout) for product in products])


def affine_backward(
    operands: Operands,
    grad: Tensor,
    unit: Unit,
    rule: Rule,
    constant: Tensor,
    slope: Tensor,
) -> Tensor:
    """Gradient of ``x``: ``passed * gain + (x * slope + constant)``, constant and slope per channel."""
    value, scaled, rounded = _steps(operands, unit, rule)
    passed, _ = _gradients(value, scaled, rounded, grad, rule)
    assert operands.gain is not None
    statistics = operands.x * _per_channel(slope, operands) + _per_channel(constant, operands)
    return passed * _per_channel(operands.gain, operands) + statistics


def moments(x: Tensor, axis: int) -> Tensor:
    """Per channel, float64 ``(2, channels)``: sum and sum of squares."""
    layout, wide = layout_of(x, axis), x.double()
    return torch.stack([channel_sums(wide, layout), channel_sums(wide * wide, layout)])


def _steps(operands: Operands, unit: Unit, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
    """The number before its activation, the activated one in units of the last place, and that rounded."""
    value = operands.x
    if operands.other is not None:
        value = value + operands.other
    if operands.gain is not None and operands.offset is not None:
        value = value * _per_channel(operands.gain, operands) + _per_channel(operands.offset, operands)
    # Adding 0 turns -0 into +0, as the zero point of Brevitas's quantizer does.
    scaled = rule.activation(value) / _per_channel(unit, operands) + 0.0
    return value, scaled, round_to_grid(scaled, rule)


def _per_channel(values: Unit, operands: Operands) -> Tensor:
    tensor = torch.as_tensor(values).to(operands.x)
    if operands.axis is None or tensor.numel() == 1:
        return tensor.reshape(())
    shape = [1] * operands.x.dim()
    shape[operands.axis] = -1
    return tensor.reshape(shape)


def round_to_grid(scaled: Tensor, rule: Rule) -> Tensor:
    """Numbers in units of the last place, rounded; beyond the range they stay beyond it."""
    match rule.grid:
        case FloatGrid() as grid:
            low, high = rule.bounds(scaled.dtype)
            within = torch.where(scaled > 4 * high, 4 * high, scaled)
            within = torch.where(within < 4 * low, 4 * low, within)
            gap = _gap(within, grid)
            return round_to_integer(within * (1.0 / gap), rule.rounding) * gap
        case ListGrid() as grid:
            return _listed(scaled, grid, rule)
    return round_to_integer(scaled, rule.rounding)


def _gap(x: Tensor, grid: FloatGrid) -> Tensor:
    """The distance between neighbours of a minifloat around ``x``: from the bits of its exponent."""
    integer, mask = (torch.int32, 0x7F800000) if x.dtype == torch.float32 else (torch.int64, 0x7FF << 52)
    power = (x.abs().view(integer) & mask).view(x.dtype)
    return torch.where(power < 2.0**grid.mantissa_bits, grid.gap, power * 2.0**-grid.mantissa_bits)


def _listed(scaled: Tensor, grid: ListGrid, rule: Rule) -> Tensor:
    low, high = rule.bounds(scaled.dtype)
    within = torch.where(scaled > high + 1, high + 1, scaled)
    within = torch.where(within >= low - 1, within, low - 1)
    twice = within * 2.0
    whole = torch.floor(twice)
    place = (2.0 * (whole - 2.0 * grid.low)).long() + (whole != twice).long()
    found = torch.from_numpy(grid.table).to(scaled)[place]
    beyond = (scaled > high + 0.5) | (scaled < low - 0.5) | (scaled != scaled)
    return torch.where(beyond, scaled, found)


def round_to_integer(x: Tensor, rounding: Rounding) -> Tensor:
    """Floating-point numbers rounded to integers by one of the nine modes; exact."""
    match rounding:
        case Rounding.RND_CONV:
            return torch.round(x)
        case Rounding.TRN:
            return torch.floor(x)
        case Rounding.TRN_ZERO:
            return torch.trunc(x)
        case Rounding.CEIL:
            return torch.ceil(x)
        case Rounding.UP:
            return torch.copysign(torch.ceil(x.abs()), x)
    magnitude = x.abs()
    floor = torch.floor(magnitude)
    rest = magnitude - floor
    ties = {
        Rounding.RND: x > 0,
        Rounding.RND_ZERO: torch.zeros_like(x, dtype=torch.bool),
        Rounding.RND_MIN_INF: x < 0,
        Rounding.RND_INF: torch.ones_like(x, dtype=torch.bool),
    }
    up = (rest > 0.5) | ((rest == 0.5) & ties[rounding])
    return torch.copysign(floor + up.to(x.dtype), x)


def _overflow(scaled: Tensor, rounded: Tensor, rule: Rule) -> Tensor:
    low, high = rule.bounds(rounded.dtype)
    if rule.overflow is Overflow.SAT_ZERO:
        return torch.where((rounded < low) | (rounded > high), 0.0, rounded)
    if rule.overflow.saturates:
        above = torch.where(rounded > high, high, rounded)
        return torch.where(above < low, low, above)
    return _wrap(scaled, rounded, rule)


def _wrap(scaled: Tensor, rounded: Tensor, rule: Rule) -> Tensor:
    modulus = math.ldexp(1.0, rule.width)
    bottom = -modulus / 2 if rule.signed else 0.0
    wrapped = rounded - torch.floor((rounded - bottom) / modulus) * modulus
    # ``rounded - bottom`` may itself have been rounded: at most one turn too many or too few.
    wrapped = torch.where(wrapped >= bottom + modulus, wrapped - modulus, wrapped)
    wrapped = torch.where(wrapped < bottom, wrapped + modulus, wrapped)
    if rule.overflow is Overflow.WRAP:
        return wrapped
    # The bit above the sign is the source's, from before the rounding's carry.
    turns = torch.floor(torch.floor(scaled) / modulus)
    above_sign = turns - 2.0 * torch.floor(turns / 2.0) == 1.0
    reflected = (wrapped != rounded) & (above_sign != (wrapped < 0))
    return torch.where(reflected, -1.0 - wrapped, wrapped)


def _gradients(
    value: Tensor, scaled: Tensor, rounded: Tensor, grad: Tensor, rule: Rule
) -> tuple[Tensor, Tensor]:
    """Gradient of the number before its activation, and ``dy/ds``."""
    low, high = rule.bounds(rounded.dtype)
    inside = (rounded >= low) & (rounded <= high)
    passed = grad if rule.passes else torch.where(inside, grad, 0.0)
    activation = rule.activation
    if activation.slope != 1.0:
        negative = passed * activation.slope if activation.slope != 0.0 else torch.zeros_like(passed)
        passed = torch.where(value > 0, passed, negative)
    if not math.isinf(activation.cap):
        passed = torch.where(value >= activation.cap, 0.0, passed)
    bound = torch.where(rounded < low, low, high)
    return passed, torch.where(inside, rounded - scaled, bound)


def channel_sums(values: Tensor, layout: Layout) -> Tensor:
    """Float64 sums per channel ``(channels,)``, added up in the order that the compiled kernel uses."""
    if layout.channels_last and values.dim() == 4:
        values = values.permute(0, 2, 3, 1)
    if values.numel() == 0:
        return torch.zeros(layout.channels, dtype=torch.float64, device=values.device)
    if layout.interleaved:
        return _interleaved_sums(values.reshape(layout.outer, layout.channels))
    rows = values.reshape(layout.outer, layout.channels, layout.inner)
    return _row_sums(rows)


def _in_order(values: Tensor, dim: int) -> Tensor:
    """The sum along an axis from its first element to its last; torch.sum promises no order."""
    return values.cumsum(dim).select(dim, -1)


def _interleaved_sums(rows: Tensor) -> Tensor:
    chunk = max(1, INTERLEAVED_CHUNK // rows.shape[1])
    padded = functional.pad(rows, (0, 0, 0, -rows.shape[0] % chunk))
    return _in_order(_in_order(padded.reshape(-1, chunk, rows.shape[1]), 1), 0)


def _row_sums(rows: Tensor) -> Tensor:
    outer, channels, inner = rows.shape
    block = BLOCK if inner > BLOCK else inner + -inner % LANES
    padded = functional.pad(rows, (0, -inner % block))
    lanes = _in_order(padded.reshape(outer, channels, -1, block // LANES, LANES), 3)
    blocks = _in_order(lanes, 3)
    return _in_order(blocks.permute(1, 0, 2).reshape(channels, -1), 1)
