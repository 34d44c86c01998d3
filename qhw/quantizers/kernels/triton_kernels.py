"""The quantizer kernels in Triton, for CUDA tensors; values and input gradients have the bits of ``eager``.

Every element goes through the operations of ``eager``, in the same order, made of what IEEE 754 decides
alone: addition, subtraction, multiplication, comparison, selection, and integers over the bits. So Triton's
interpreter on a CPU shows what a GPU gives, with these four points that only a GPU can show
(``benchmarks/cuda_kernels.py`` compares there with ``==``):

- no multiplication is fused with an addition: ``enable_fp_fusion=False`` at every launch;
- nothing calls libdevice, whose rounding functions flush denormal numbers: numbers are rounded by adding and
  taking away 2^23 (2^52), which is exact below it;
- NaN is found by its bits, since the compiler may take it that no comparison sees one;
- a free scale divides in float64 and rounds once more, which for float32 is the correctly rounded quotient.

Sums are taken in float64, in two stages of fixed order: within a tile, then over the tiles from the first
on. They are equal from run to run, and differ from those of ``eager`` by the order of summation alone.
"""

import triton
import triton.language as tl

from qhw.formats.modes import Rounding

ROUNDING = {mode: index for index, mode in enumerate(Rounding)}
_RND, _RND_ZERO, _RND_MIN_INF, _RND_INF, _RND_CONV, _TRN, _TRN_ZERO, _CEIL, _UP = (
    tl.constexpr(ROUNDING[Rounding[name]])
    for name in ("RND", "RND_ZERO", "RND_MIN_INF", "RND_INF", "RND_CONV", "TRN", "TRN_ZERO", "CEIL", "UP")
)

SAT, SAT_ZERO, WRAP, WRAP_SM = range(4)
_SAT_ZERO, _WRAP, _WRAP_SM = tl.constexpr(SAT_ZERO), tl.constexpr(WRAP), tl.constexpr(WRAP_SM)

INTEGERS, FLOATS, LISTED = range(3)
_FLOATS, _LISTED = tl.constexpr(FLOATS), tl.constexpr(LISTED)

PLAIN, SUM, AFFINE = range(3)
_SUM, _AFFINE = tl.constexpr(SUM), tl.constexpr(AFFINE)

RELU, NO_SLOPE, LEAKY = range(3)
_RELU, _LEAKY = tl.constexpr(RELU), tl.constexpr(LEAKY)

# Where a rule's numbers lie in the array that kernels read: as arguments, Triton would take them for float32.
_LOW, _HIGH, _SLOPE, _CAP, _MODULUS, _PER_MODULUS, _BOTTOM, _NORMAL, _PER_NORMAL, _GAP, _LIST_START = (
    tl.constexpr(i) for i in range(11)
)


# --- numbers and their bits -------------------------------------------------------------------------


@triton.jit
def _bits(x):
    if x.dtype == tl.float64:
        bits = x.to(tl.int64, bitcast=True)
    else:
        bits = x.to(tl.int32, bitcast=True)
    return bits


@triton.jit
def _magnitude(x):
    if x.dtype == tl.float64:
        bits = _bits(x) & 0x7FFFFFFFFFFFFFFF
    else:
        bits = _bits(x) & 0x7FFFFFFF
    return bits.to(x.dtype, bitcast=True)


@triton.jit
def _signed(magnitude, x):
    """A number that is not negative, with the sign of ``x``."""
    if x.dtype == tl.float64:
        sign = (_bits(x) >> 63) << 63
    else:
        sign = (_bits(x) >> 31) << 31
    return (_bits(magnitude) | sign).to(x.dtype, bitcast=True)


@triton.jit
def _is_nan(x):
    if x.dtype == tl.float64:
        found = (_bits(x) & 0x7FFFFFFFFFFFFFFF) > 0x7FF0000000000000
    else:
        found = (_bits(x) & 0x7FFFFFFF) > 0x7F800000
    return found


@triton.jit
def _inverse_power(x):
    """The inverse of a positive normal power of two in float64."""
    return (0x7FE0000000000000 - _bits(x)).to(tl.float64, bitcast=True)


# --- rounding ---------------------------------------------------------------------------------------


@triton.jit
def _nearest(x):
    """To the nearest integer, ties to even; numbers without a fraction, infinity and NaN stay."""
    magnitude = _magnitude(x)
    if x.dtype == tl.float64:
        whole = magnitude >= 4503599627370496.0
        rounded = (magnitude + 4503599627370496.0) - 4503599627370496.0
    else:
        whole = magnitude >= 8388608.0
        rounded = (magnitude + 8388608.0) - 8388608.0
    return _signed(tl.where(whole, magnitude, rounded), x)


@triton.jit
def _floor(x):
    rounded = _nearest(x)
    return tl.where(rounded > x, rounded - 1.0, rounded)


@triton.jit
def _ceil(x):
    rounded = _nearest(x)
    return _signed(_magnitude(tl.where(rounded < x, rounded + 1.0, rounded)), x)


@triton.jit
def _round_by_ties(x, MODE: tl.constexpr):
    """To the nearest integer; a tie goes away from zero where the mode says so."""
    magnitude = _magnitude(x)
    floor = _floor(magnitude)
    rest = magnitude - floor
    up = rest > 0.5
    if MODE == _RND_INF:
        up = rest >= 0.5
    if MODE == _RND:
        up = up | ((rest == 0.5) & (x > 0))
    if MODE == _RND_MIN_INF:
        up = up | ((rest == 0.5) & (x < 0))
    return _signed(tl.where(up, floor + 1.0, floor), x)


@triton.jit
def _round(x, MODE: tl.constexpr):
    """By one of the nine modes, as ``eager.round_to_integer``."""
    if MODE == _RND_CONV:
        result = _nearest(x)
    elif MODE == _TRN:
        result = _floor(x)
    elif MODE == _CEIL:
        result = _ceil(x)
    elif MODE == _UP:
        result = _signed(_ceil(_magnitude(x)), x)
    elif MODE == _TRN_ZERO:
        result = _signed(_floor(_magnitude(x)), x)
    else:
        result = _round_by_ties(x, MODE)
    return result


@triton.jit
def _gap_and_inverse(x, numbers):
    """The distance between neighbours of a minifloat around ``x``, from its exponent, and its inverse."""
    normal = tl.load(numbers + _NORMAL)
    if x.dtype == tl.float64:
        power = (_bits(x) & 0x7FF0000000000000).to(tl.float64, bitcast=True)
    else:
        power = (_bits(x) & 0x7F800000).to(tl.float32, bitcast=True)
    gap = tl.where(power < normal, tl.load(numbers + _GAP), power * tl.load(numbers + _PER_NORMAL))
    # The inverse of the largest power of two is denormal; that of infinity (of a NaN, too) is 0.
    if x.dtype == tl.float64:
        exponent = 2046 - (_bits(gap) >> 52)
        inverse = tl.where(exponent > 0, exponent << 52, tl.where(exponent == 0, 1 << 51, 0))
    else:
        exponent = 254 - (_bits(gap) >> 23)
        inverse = tl.where(exponent > 0, exponent << 23, tl.where(exponent == 0, 1 << 22, 0))
    return gap, inverse.to(x.dtype, bitcast=True)


@triton.jit
def _round_floats(x, numbers, MODE: tl.constexpr):
    low, high = 4.0 * tl.load(numbers + _LOW), 4.0 * tl.load(numbers + _HIGH)
    within = tl.where(x > high, high, x)
    within = tl.where(within < low, low, within)
    within = tl.where(_is_nan(x), x, within)
    gap, inverse = _gap_and_inverse(within, numbers)
    return _round(within * inverse, MODE) * gap


@triton.jit
def _round_listed(x, numbers, table):
    """To a number of a list, which depends on ``floor(2 x)`` and on whether ``2 x`` is whole."""
    low, high = tl.load(numbers + _LOW), tl.load(numbers + _HIGH)
    within = tl.where(x > high + 1.0, high + 1.0, x)
    within = tl.where(within < low - 1.0, low - 1.0, within)
    within = tl.where(_is_nan(x), low - 1.0, within)
    twice = within * 2.0
    whole = _floor(twice)
    place = (2.0 * (whole - tl.load(numbers + _LIST_START))).to(tl.int32) + (whole != twice).to(tl.int32)
    beyond = (x > high + 0.5) | (x < low - 0.5) | _is_nan(x)
    return tl.where(beyond, x, tl.load(table + place).to(x.dtype))


@triton.jit
def _wrapped(scaled, rounded, numbers, MODE: tl.constexpr):
    modulus, per_modulus = tl.load(numbers + _MODULUS), tl.load(numbers + _PER_MODULUS)
    bottom = tl.load(numbers + _BOTTOM)
    wrapped = rounded - _floor((rounded - bottom) * per_modulus) * modulus
    wrapped = tl.where(wrapped >= bottom + modulus, wrapped - modulus, wrapped)
    wrapped = tl.where(wrapped < bottom, wrapped + modulus, wrapped)
    if MODE == _WRAP_SM:
        turns = _floor(_floor(scaled) * per_modulus)
        above_sign = turns - 2.0 * _floor(turns * 0.5) == 1.0
        reflected = (wrapped != rounded) & (above_sign != (wrapped < 0.0))
        wrapped = tl.where(reflected, -1.0 - wrapped, wrapped)
    return wrapped


@triton.jit
def _overflow(scaled, rounded, numbers, MODE: tl.constexpr):
    low, high = tl.load(numbers + _LOW), tl.load(numbers + _HIGH)
    if (MODE == _WRAP) or (MODE == _WRAP_SM):
        result = _wrapped(scaled, rounded, numbers, MODE)
    elif MODE == _SAT_ZERO:
        result = tl.where((rounded < low) | (rounded > high), 0.0, rounded)
    else:
        result = tl.where(rounded > high, high, rounded)
        result = tl.where(result < low, low, result)
    return tl.where(_is_nan(rounded), rounded, result)


# --- a tile -----------------------------------------------------------------------------------------


@triton.jit
def _place(outer, channels, inner, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INTERLEAVED: tl.constexpr):
    """This program's elements (offset and mask), their channel and its mask, and the tile's number in it."""
    program = tl.program_id(0).to(tl.int64)
    if INTERLEAVED:
        across = tl.cdiv(channels, COLUMNS)
        tile = program // across
        row = (tile * ROWS + tl.arange(0, ROWS))[:, None]
        channel = (program % across * COLUMNS + tl.arange(0, COLUMNS))[None, :]
        is_channel = channel < channels
        offsets = row * channels + channel
        mask = (row < outer) & is_channel
    else:
        across = tl.cdiv(inner, COLUMNS)
        band = program // across
        channel = band % channels
        is_channel = channel < channels
        row = (band // channels * ROWS + tl.arange(0, ROWS))[:, None]
        column = (program % across * COLUMNS + tl.arange(0, COLUMNS))[None, :]
        offsets = (row * channels + channel) * inner + column
        mask = (row < outer) & (column < inner)
        tile = band // channels * across + program % across
    return offsets, mask, channel, is_channel, tile


@triton.jit
def _of_channel(values, channel, is_channel, PER_CHANNEL: tl.constexpr):
    """A float64 number per channel, or the only one."""
    if PER_CHANNEL:
        found = tl.load(values + channel, mask=is_channel, other=1.0)
    else:
        found = tl.load(values)
    return found


@triton.jit
def _value(
    x,
    other,
    gain,
    offset,
    offsets,
    mask,
    channel,
    is_channel,
    OPERAND: tl.constexpr,
    AFFINE_CHANNELS: tl.constexpr,
):
    """The number that is to be quantised."""
    if OPERAND == _SUM:
        value = x + tl.load(other + offsets, mask=mask, other=0.0)
    elif OPERAND == _AFFINE:
        value = x * _of_channel(gain, channel, is_channel, AFFINE_CHANNELS).to(x.dtype)
        value = value + _of_channel(offset, channel, is_channel, AFFINE_CHANNELS).to(x.dtype)
    else:
        value = x
    return value


@triton.jit
def _activated(value, numbers, SLOPE: tl.constexpr, HAS_CAP: tl.constexpr):
    x = value
    if SLOPE == _RELU:
        x = tl.where(x > 0, x, tl.where(_is_nan(x), x, 0.0))
    if SLOPE == _LEAKY:
        x = tl.where((x > 0) | _is_nan(x), x, x * tl.load(numbers + _SLOPE))
    if HAS_CAP:
        cap = tl.load(numbers + _CAP)
        x = tl.where((x > cap) & ~_is_nan(x), cap, x)
    return x


@triton.jit
def _scaled(x, unit, FREE: tl.constexpr):
    """In units of the last place; adding 0 turns -0 into +0."""
    if FREE:
        scaled = (x.to(tl.float64) / unit).to(x.dtype)
    else:
        scaled = x * _inverse_power(unit).to(x.dtype)
    return scaled + 0.0


@triton.jit
def _rounded(scaled, numbers, table, ROUNDING: tl.constexpr, GRID: tl.constexpr):
    if GRID == _FLOATS:
        rounded = _round_floats(scaled, numbers, ROUNDING)
    elif GRID == _LISTED:
        rounded = _round_listed(scaled, numbers, table)
    else:
        rounded = _round(scaled, ROUNDING)
    return rounded


@triton.jit
def _gradients(
    value, scaled, rounded, grad, numbers, PASSES: tl.constexpr, SLOPE: tl.constexpr, HAS_CAP: tl.constexpr
):
    """Gradient of the number before its activation, and dy/ds; as ``eager._gradients``."""
    low, high = tl.load(numbers + _LOW), tl.load(numbers + _HIGH)
    inside = (rounded >= low) & (rounded <= high) & ~_is_nan(rounded)
    passed = grad
    if not PASSES:
        passed = tl.where(inside, grad, 0.0)
    positive = (value > 0) & ~_is_nan(value)
    if SLOPE == _RELU:
        passed = tl.where(positive, passed, 0.0)
    if SLOPE == _LEAKY:
        passed = tl.where(positive, passed, passed * tl.load(numbers + _SLOPE))
    if HAS_CAP:
        passed = tl.where((value >= tl.load(numbers + _CAP)) & ~_is_nan(value), 0.0, passed)
    bound = tl.where((rounded < low) & ~_is_nan(rounded), low, high)
    return passed, tl.where(inside, rounded - scaled, bound)


@triton.jit
def _store_sum(
    partial, terms, mask, kind, tile, tiles, channel, is_channel, channels, INTERLEAVED: tl.constexpr
):
    """The tile's float64 sum of a kind, per channel: to ``partial`` (kinds, tiles, channels)."""
    terms = tl.where(mask, terms, 0.0)
    place = partial + (kind * tiles + tile) * channels + channel
    if INTERLEAVED:
        tl.store(place, tl.sum(terms, axis=0)[None, :], mask=is_channel)
    else:
        tl.store(place, tl.sum(tl.sum(terms, axis=1), axis=0))


# --- the kernels ------------------------------------------------------------------------------------


@triton.jit
def forward_kernel(
    x_in, other, gain, offset, unit_in, numbers, table, y_out,
    outer, channels, inner,
    OPERAND: tl.constexpr, AFFINE_CHANNELS: tl.constexpr, UNIT_CHANNELS: tl.constexpr,
    ROUNDING: tl.constexpr, OVERFLOW: tl.constexpr, GRID: tl.constexpr, SLOPE: tl.constexpr,
    HAS_CAP: tl.constexpr, PASSES: tl.constexpr, FREE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    offsets, mask, channel, is_channel, _ = _place(outer, channels, inner, ROWS, COLUMNS, INTERLEAVED)
    x = tl.load(x_in + offsets, mask=mask, other=0.0)
    value = _value(x, other, gain, offset, offsets, mask, channel, is_channel, OPERAND, AFFINE_CHANNELS)
    unit = _of_channel(unit_in, channel, is_channel, UNIT_CHANNELS)
    scaled = _scaled(_activated(value, numbers, SLOPE, HAS_CAP), unit, FREE)
    rounded = _rounded(scaled, numbers, table, ROUNDING, GRID)
    y = _overflow(scaled, rounded, numbers, OVERFLOW) * unit.to(x.dtype)
    tl.store(y_out + offsets, y, mask=mask)


@triton.jit
def backward_kernel(
    x_in, other, gain, offset, unit_in, numbers, table, grad_in, constant, slope, dx_out, partial,
    tiles, outer, channels, inner,
    WITH_DX: tl.constexpr, SUMS: tl.constexpr, WITH_STATISTICS: tl.constexpr,
    OPERAND: tl.constexpr, AFFINE_CHANNELS: tl.constexpr, UNIT_CHANNELS: tl.constexpr,
    ROUNDING: tl.constexpr, OVERFLOW: tl.constexpr, GRID: tl.constexpr, SLOPE: tl.constexpr,
    HAS_CAP: tl.constexpr, PASSES: tl.constexpr, FREE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    offsets, mask, channel, is_channel, tile = _place(outer, channels, inner, ROWS, COLUMNS, INTERLEAVED)
    x = tl.load(x_in + offsets, mask=mask, other=0.0)
    grad = tl.load(grad_in + offsets, mask=mask, other=0.0)
    value = _value(x, other, gain, offset, offsets, mask, channel, is_channel, OPERAND, AFFINE_CHANNELS)
    unit = _of_channel(unit_in, channel, is_channel, UNIT_CHANNELS)
    scaled = _scaled(_activated(value, numbers, SLOPE, HAS_CAP), unit, FREE)
    rounded = _rounded(scaled, numbers, table, ROUNDING, GRID)
    passed, derivative = _gradients(value, scaled, rounded, grad, numbers, PASSES, SLOPE, HAS_CAP)
    if WITH_STATISTICS:
        passed = passed * _of_channel(gain, channel, is_channel, AFFINE_CHANNELS).to(x.dtype)
        through = x * _of_channel(slope, channel, is_channel, True).to(x.dtype)
        through = through + _of_channel(constant, channel, is_channel, True).to(x.dtype)
        passed = passed + through
    if WITH_DX:
        tl.store(dx_out + offsets, passed, mask=mask)
    if SUMS > 0:
        terms = grad.to(tl.float64) * derivative.to(tl.float64)
        _store_sum(partial, terms, mask, SUMS - 1, tile, tiles, channel, is_channel, channels, INTERLEAVED)
    if SUMS == 3:
        wide = passed.to(tl.float64)
        _store_sum(partial, wide, mask, 0, tile, tiles, channel, is_channel, channels, INTERLEAVED)
        terms = wide * x.to(tl.float64)
        _store_sum(partial, terms, mask, 1, tile, tiles, channel, is_channel, channels, INTERLEAVED)


@triton.jit
def moments_kernel(
    x_in, partial, tiles, outer, channels, inner,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    offsets, mask, channel, is_channel, tile = _place(outer, channels, inner, ROWS, COLUMNS, INTERLEAVED)
    x = tl.load(x_in + offsets, mask=mask, other=0.0).to(tl.float64)
    _store_sum(partial, x, mask, 0, tile, tiles, channel, is_channel, channels, INTERLEAVED)
    _store_sum(partial, x * x, mask, 1, tile, tiles, channel, is_channel, channels, INTERLEAVED)


@triton.jit
def finish_kernel(partial, sums, tiles, channels, TILES: tl.constexpr, CHANNELS: tl.constexpr):
    """Sums over the tiles: every lane in the order of the tiles, then the lanes."""
    kind = tl.program_id(1)
    channel = (tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    total = tl.zeros([TILES, CHANNELS], tl.float64)
    for start in range(0, tiles, TILES):
        tile = (start + tl.arange(0, TILES))[:, None]
        place = partial + (kind * tiles + tile).to(tl.int64) * channels + channel
        total += tl.load(place, mask=(tile < tiles) & (channel < channels), other=0.0)
    tl.store(sums + kind * channels + channel, tl.sum(total, axis=0)[None, :], mask=channel < channels)


@triton.jit
def unit_kernel(theta_in, unit_out, channels, LARGEST: tl.constexpr, CHANNELS: tl.constexpr):
    """``2**-round(theta)`` in float64, within the bounds."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    theta = tl.load(theta_in + channel, mask=channel < channels, other=0.0)
    theta = tl.where(theta > LARGEST, LARGEST, theta)
    theta = tl.where(theta < -LARGEST, -LARGEST, theta)
    exponent = 1023 - _nearest(theta).to(tl.int64)
    tl.store(unit_out + channel, (exponent << 52).to(tl.float64, bitcast=True), mask=channel < channels)
