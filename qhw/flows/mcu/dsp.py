"""Kernels for cores with DSP instructions: where each is exact, how its weights and roundings lie in flash.

The layouts are those of ``mcu/include/qhw_kernels_dsp.h``. A kernel sums several channels in one register;
whether their fields hold the sums is decided here, from the weights themselves and the range of the input's
container.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from qhw.flows.mcu.containers import Bytes
from qhw.flows.mcu.program import ConvLayer, ElementwiseLayer, Finish
from qhw.formats.modes import IntArray

UNIT = 4
"""Taps of a unit, and output channels of a block."""

_PAIRS = ((0, 2), (1, 3))
_MOST_UNITS = 0xFFFF
_KNOWN = 64
"""Layers that are remembered: each is asked about by its planning, its arrays and its price."""

_ADD_BITS = 4
"""How much further left than a layer says ``qhw_add_dsp`` forms its sums."""

_MOST_SHIFT = 14 - _ADD_BITS
"""A left shift is a multiplication by 16 bits, signed."""


@dataclass(frozen=True)
class FastRounding:
    """Rounding as one multiplication: the upper 32 bits of ``sum * multiplier + addend``, saturated.

    Args:
        multiplier, addend: one number per channel.
        ties_to_even: whether a lower word of 0 is a tie, which goes to the even neighbour.
    """

    multiplier: tuple[int, ...]
    addend: tuple[int, ...]
    ties_to_even: bool

    def pack(self) -> Bytes:
        """12 bytes each: the addend's lower and upper word, the multiplier."""
        words = [
            struct.pack("<Iii", a & 0xFFFF_FFFF, a >> 32, m)
            for m, a in zip(self.multiplier, self.addend, strict=True)
        ]
        return np.frombuffer(b"".join(words), dtype=np.uint8)


def fast_rounding(finish: Finish, low: IntArray, high: IntArray, bits: int = 0) -> FastRounding | None:
    """The same rounding as one multiplication, for sums in [low, high] per channel; None if there is none.

    With a shift of s bits, ``round((sum * m + a) / 2**s)`` is the upper word of ``sum * m * 2**(32-s) +
    (a + r) * 2**(32-s)``, where r is what makes the floor that rounding. Modes that treat negative numbers
    otherwise agree with one that does not where the lower bound is 0 or more, since negative numbers saturate
    there. Sums may come shifted left by ``bits``; low and high are then of the sums before.
    """
    if finish.kind != "ROUND" or finish.overflow != "SAT" or finish.out.bits > 16:
        return None
    signless = finish.low >= 0
    mode = {"RND_INF": "RND", "RND_ZERO": "RND_MIN_INF", "TRN_ZERO": "TRN", "UP": "CEIL"}.get(
        finish.rounding, finish.rounding
    )
    if mode != finish.rounding and not signless:
        return None
    multiplier = finish.multiplier or (1,)
    addend = finish.addend or (0,)
    if not all(-bits <= s <= 32 - bits for s in finish.shift):
        return None
    multipliers, addends = [], []
    for channel in range(len(low)):
        m, a, s = (v[channel % len(v)] for v in (multiplier, addend, finish.shift))
        half, last = (1 << max(s, 0)) >> 1, (1 << max(s, 0)) - 1
        extra = {"RND": half, "RND_CONV": half, "RND_MIN_INF": max(half - 1, 0), "TRN": 0, "CEIL": last}[mode]
        multipliers.append(m << (32 - bits - s))
        addends.append((a + extra) << (32 - s))
    for m, a, *span in zip(multipliers, addends, low, high, strict=True):
        ends = [(int(end) << bits) * m + a for end in span]
        if not -(2**31) <= m < 2**31 or not all(-(2**63) <= v < 2**63 for v in (*ends, a)):
            return None
    return FastRounding(tuple(multipliers), tuple(addends), mode == "RND_CONV" and max(finish.shift) > 0)


@lru_cache(_KNOWN)
def sum_bounds(layer: ConvLayer) -> tuple[IntArray, IntArray]:
    """The least and the largest sum of each output channel; with padding too: every container holds 0."""
    weights = layer.weights.reshape(layer.out_channels, -1)
    ends = weights * layer.x.low, weights * layer.x.high
    return np.minimum(*ends).sum(axis=1), np.maximum(*ends).sum(axis=1)


def _with_header(weights: Bytes, rounding: FastRounding | None, chunk: int) -> Bytes:
    """What ``qhw_packed`` is, and what follows it."""
    offset = 8 + len(weights) if rounding else 0
    header = struct.pack("<IHH", offset, bool(rounding and rounding.ties_to_even), chunk)
    parts = [np.frombuffer(header, dtype=np.uint8), weights]
    return np.concatenate([*parts, rounding.pack()] if rounding else parts)


def unpacked_finish(layer: ConvLayer) -> Finish:
    """The end of a layer's sums, without the numbers of a rounding that lies behind its weights."""
    if fast_rounding(layer.finish, *sum_bounds(layer)) is None:
        return layer.finish
    return replace(layer.finish, multiplier=None, addend=None, shift=(0,))


def _blocks(layer: ConvLayer) -> IntArray:
    """Weights (groups, blocks, units, channel of the block, tap of the unit), filled with 0."""
    each = layer.out_channels // layer.groups
    rows = layer.weights.reshape(layer.groups, each, -1)
    taps = rows.shape[2]
    filled = np.zeros((layer.groups, -(-each // UNIT) * UNIT, -(-taps // UNIT) * UNIT), dtype=np.int64)
    filled[:, :each, :taps] = rows
    blocks = filled.reshape(layer.groups, -1, UNIT, filled.shape[2] // UNIT, UNIT)
    return np.asarray(blocks.transpose(0, 1, 3, 2, 4))


def _words(parts: Sequence[tuple[IntArray, int]]) -> IntArray:
    """Codes, each at its bit."""
    return np.asarray(np.bitwise_or.reduce([codes.astype(np.uint64) << np.uint64(at) for codes, at in parts]))


def _pack8(blocks: IntArray) -> IntArray:
    words = []
    for first, second in _PAIRS:
        for channel in (0, 2):
            lower, upper = blocks[..., channel, :] + 128, blocks[..., channel + 1, :] & 255
            codes = (lower[..., first], upper[..., first], lower[..., second], upper[..., second])
            words.append(_words([(code, 8 * i) for i, code in enumerate(codes)]))
    return np.stack(words, axis=-1)


def _pack4(blocks: IntArray) -> IntArray:
    words = []
    for pair in _PAIRS:
        parts = []
        for half, tap in enumerate(pair):
            for channel in range(UNIT):
                code = blocks[..., channel, tap]
                parts.append(((code + 8) if channel < 3 else code & 15, 16 * half + 4 * channel))
        words.append(_words(parts))
    return np.stack(words, axis=-1)


def _pack2(blocks: IntArray) -> IntArray:
    parts = []
    for i, (pair, channel) in enumerate((p, c) for p in _PAIRS for c in (0, 2)):
        for half, tap in enumerate(pair):
            lower, upper = blocks[..., channel, tap] + 2, blocks[..., channel + 1, tap] & 3
            parts.append((lower, 2 * ((2 * i + 8 * half) % 16)))
            parts.append((upper, 2 * ((2 * i + 7 + 8 * half) % 16)))
    return _words(parts)[..., np.newaxis]


_PACKS = {8: _pack8, 4: _pack4, 2: _pack2}


_FIELDS = {
    8: ((128, 31), (0, 23), (128, 31), (0, 23)),
    4: ((8, 31), (8, 27), (8, 23), (0, 19)),
    2: ((2, 14), (0, 17), (2, 14), (0, 17)),
}
"""By the weights' bits, for each channel of a block: what its weights are stored with on top, and the bits
that its sum may have in magnitude."""


@lru_cache(_KNOWN)
def chunk_of(bits: int, layer: ConvLayer) -> int:
    """Units whose sums fit into the kernel's fields, whatever the input is; 0 where not even one does."""
    blocks = _blocks(layer)
    units, largest = blocks.shape[2], max(-layer.x.low, layer.x.high)
    signed = (
        bits == 2 and layer.x.is_signed
    )  # the lower of two sums has a sign, then, which takes one of its bits
    sizes = [
        (
            np.abs(blocks[..., channel, :] + offset).sum(axis=-1) * largest,
            1 << (width - (signed and offset > 0)),
        )
        for channel, (offset, width) in enumerate(_FIELDS[bits])
    ]

    def fits(chunk: int) -> bool:
        starts = np.arange(0, units, chunk)
        return all((np.add.reduceat(size, starts, axis=-1) < limit).all() for size, limit in sizes)

    return next((n for n in (units, *_halvings(units)) if n <= _MOST_UNITS and fits(n)), 0)


def _halvings(units: int) -> list[int]:
    """Chunks that split the units evenly into 2, 3, 4... parts, falling."""
    return sorted({-(-units // parts) for parts in range(2, units + 1)}, reverse=True)


def weight_bits(layer: ConvLayer) -> int | None:
    """The bits of the narrowest kernel that carries a layer out exactly; None if only a portable one does."""
    if layer.x.bits > 8 or layer.wide_sum or not _sums_fit(layer):
        return None
    low, high = int(layer.weights.min()), int(layer.weights.max())
    for bits in (2, 4, 8):
        half = 1 << (bits - 1)
        if -half <= low and high < half and chunk_of(bits, layer):
            return bits
    return None


def _takes_conv(bits: int, layer: ConvLayer) -> bool:
    return weight_bits(layer) == bits


def _sums_fit(layer: ConvLayer) -> bool:
    """Whether sums have 32 bits."""
    low, high = sum_bounds(layer)
    return bool(low.min() >= -(2**31) and high.max() < 2**31)


def pack_conv(layer: ConvLayer) -> Bytes:
    """Weights and roundings of ``qhw_conv_dsp8``, ``4`` or ``2``, whichever carries the layer out."""
    bits = weight_bits(layer)
    assert bits is not None
    words = _PACKS[bits](_blocks(layer)).astype("<u4")
    weights = np.ascontiguousarray(words).view(np.uint8).reshape(-1)
    return _with_header(weights, fast_rounding(layer.finish, *sum_bounds(layer)), chunk_of(bits, layer))


def conv_scratch(layer: ConvLayer) -> int:
    """Bytes: two columns, the sums of two pixels, a column as bytes."""
    rows, columns = layer.kernel
    units = -(-rows * columns * layer.depth // UNIT)
    sums = 8 * (-(-layer.out_channels // UNIT) + 1) * UNIT
    return 16 * units + sums + (0 if layer.depth % UNIT == 0 else UNIT * units)


def takes_depthwise(layer: ConvLayer) -> bool:
    """Whether ``qhw_depthwise_dsp`` carries a layer out."""
    narrow = layer.x.bits <= 8 and layer.weight.bits <= 8 and not layer.wide_sum and _sums_fit(layer)
    return (
        layer.is_depthwise and layer.in_channels % UNIT == 0 and narrow and int(layer.weights.max()) < 2**15
    )


def pack_depthwise(layer: ConvLayer) -> Bytes:
    """Weights in 16 bits, four channels in the order 0, 2, 1, 3; and roundings of ``qhw_depthwise_dsp``."""
    rows = layer.weights[..., 0].reshape(layer.in_channels // UNIT, UNIT, -1)
    fours = rows.transpose(0, 2, 1)[..., [0, 2, 1, 3]]
    weights = np.ascontiguousarray(fours.astype("<i2")).view(np.uint8).reshape(-1)
    return _with_header(weights, fast_rounding(layer.finish, *sum_bounds(layer)), 0)


def depthwise_scratch(layer: ConvLayer) -> int:
    """Bytes: the sums of a pixel; of a kernel of 3 x 3, a strip of 16 columns of four channels."""
    strip = 4 * (4 * 27 + 4 * 10 + 4 * 16)
    return max(4 * layer.in_channels, strip)


def takes_add(layer: ElementwiseLayer) -> bool:
    """Whether ``qhw_add_dsp`` carries a residual addition out: of bytes, rounded alike in all channels."""
    x, other, finish = layer.x, layer.other, layer.finish
    if other is None or not x.bits == other.bits == finish.out.bits == 8 or layer.channels % UNIT:
        return False
    if max(layer.shifts) > _MOST_SHIFT or any(
        len(v or (1,)) > 1 for v in (finish.multiplier, finish.addend, finish.shift)
    ):
        return False
    ends = [(c.low << s, c.high << s) for c, s in zip((x, other), layer.shifts, strict=True)]
    low, high = (np.array([sum(end)]) for end in zip(*ends, strict=True))
    return fast_rounding(finish, low, high, _ADD_BITS) is not None


CONV_KERNELS = (
    (
        "qhw_depthwise_dsp",
        "qhw_depthwise_dsp.c",
        takes_depthwise,
        pack_depthwise,
        depthwise_scratch,
        unpacked_finish,
    ),
    ("qhw_conv_dsp2", "qhw_conv_dsp.c", partial(_takes_conv, 2), pack_conv, conv_scratch, unpacked_finish),
    ("qhw_conv_dsp4", "qhw_conv_dsp.c", partial(_takes_conv, 4), pack_conv, conv_scratch, unpacked_finish),
    ("qhw_conv_dsp8", "qhw_conv_dsp.c", partial(_takes_conv, 8), pack_conv, conv_scratch, unpacked_finish),
)
"""For ``ConvKernel``, in front of the portable ones: its fields, in order."""

SOURCES = ("qhw_conv_dsp.c", "qhw_dot_dsp.c", "qhw_depthwise_dsp.c", "qhw_add_dsp.c", "qhw_finish_dsp.c")
"""Their files in ``mcu/src``."""
