"""Runs a chain of element-wise steps: in the compiled kernel, or step by step in NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray, Overflow, Rounding
from qhw.sim.chain import (
    Array,
    Bound,
    ChainStep,
    Count,
    Join,
    MultiplyAdd,
    Product,
    Round,
    TableLookup,
    run_numpy,
)

Buffer = Callable[[tuple[int, ...]], Array]
"""Gives a C-contiguous array of a shape, of the chain's result type."""

_TYPES = {
    np.dtype(t): i
    for i, t in enumerate((np.uint8, np.int8, np.int16, np.int32, np.int64, np.float32, np.float64))
}
_SCALE, _JOIN, _PRODUCT, _ROUND, _CLAMP, _ZERO_OUTSIDE, _WRAP, _TABLE, _COUNT = range(9)
_NOTHING, _ODD_FLOOR, _NEGATIVE, _NOT_NEGATIVE = range(4)

# (x + add + (selected & mask)) >> shift: what to add, what selects, and the mask, for a shift of s bits.
_ROUNDINGS: dict[Rounding, tuple[Callable[[int], int], int, Callable[[int], int]]] = {
    Rounding.TRN: (lambda s: 0, _NOTHING, lambda s: 0),
    Rounding.RND: (lambda s: 1 << (s - 1), _NOTHING, lambda s: 0),
    Rounding.RND_MIN_INF: (lambda s: (1 << (s - 1)) - 1, _NOTHING, lambda s: 0),
    Rounding.RND_CONV: (lambda s: (1 << (s - 1)) - 1, _ODD_FLOOR, lambda s: 1),
    Rounding.RND_ZERO: (lambda s: (1 << (s - 1)) - 1, _NEGATIVE, lambda s: 1),
    Rounding.RND_INF: (lambda s: (1 << (s - 1)) - 1, _NOT_NEGATIVE, lambda s: 1),
    Rounding.CEIL: (lambda s: (1 << s) - 1, _NOTHING, lambda s: 0),
    Rounding.TRN_ZERO: (lambda s: 0, _NEGATIVE, lambda s: (1 << s) - 1),
    Rounding.UP: (lambda s: 0, _NOT_NEGATIVE, lambda s: (1 << s) - 1),
}


_PARALLEL_ELEMENTS = 1 << 16
"""Below this, waking other threads costs more than they save."""


class _Operation(ctypes.Structure):
    """The kernel's ``Operation``."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("flag", ctypes.c_int32),
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("c", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
        ("levels", ctypes.c_void_p),
        ("data_type", ctypes.c_int32),
        ("steps", ctypes.c_int32),
        ("low", ctypes.c_int64),
        ("high", ctypes.c_int64),
    )


class _Job(ctypes.Structure):
    """The kernel's ``Job``."""

    _fields_ = (
        ("ops", ctypes.c_void_p),
        ("count", ctypes.c_int32),
        ("input", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("in_type", ctypes.c_int32),
        ("out_type", ctypes.c_int32),
        ("rows", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("inner", ctypes.c_int64),
    )


@dataclass(frozen=True)
class _Encoded:
    """A step as kernel parameters; the arrays are kept alive here."""

    kind: int
    flag: int = 0
    per_channel: tuple[Array | None, ...] = (None, None, None)
    data: Array | None = None
    levels: Array | None = None
    tensor: str | None = None
    search_steps: int = 0
    low: int = 0
    high: int = 0


def _encode(step: ChainStep, channels: int, lane: np.dtype[np.signedinteger]) -> _Encoded:
    """A step's parameters in lanes, one per channel."""

    def row(values: IntArray) -> Array:
        return np.ascontiguousarray(np.broadcast_to(values.reshape(-1), (channels,)).astype(lane))

    match step:
        case MultiplyAdd(multiplier, offset):
            flag = int((multiplier != 1).any()) | 2 * int((offset != 0).any())
            return _Encoded(_SCALE, flag, (row(multiplier), row(offset), None))
        case Join(tensor, own, other):
            flag = int((own != 1).any() or (other != 1).any())
            return _Encoded(_JOIN, flag, (row(own), row(other), None), tensor=tensor)
        case Product(tensor):
            return _Encoded(_PRODUCT, tensor=tensor)
        case Round():
            return _encode_round(step, row)
        case Bound():
            return _encode_bound(step, lane)
        case TableLookup(table, first):
            starts = np.arange(len(table)) * table.shape[1] - first
            return _Encoded(_TABLE, 0, (row(starts), None, None), np.ascontiguousarray(table, dtype=lane))
        case Count():
            return _encode_count(step, row, lane)


def _encode_round(step: Round, row: Callable[[IntArray], Array]) -> _Encoded:
    add, selector, mask = _ROUNDINGS[step.rounding]
    shifts = [int(s) for s in step.shift.flat]
    adds = np.array([add(s) if s else 0 for s in shifts], dtype=object)
    masks = np.array([mask(s) if s else 0 for s in shifts], dtype=object)
    return _Encoded(_ROUND, selector, (row(step.shift), row(adds), row(masks)))


def _encode_bound(step: Bound, lane: np.dtype[np.signedinteger]) -> _Encoded:
    if step.overflow is Overflow.WRAP:
        return _Encoded(_WRAP, low=-step.low, high=step.high - step.low)
    limits = np.iinfo(lane)
    low, high = max(step.low, int(limits.min)), min(step.high, int(limits.max))
    return _Encoded(_ZERO_OUTSIDE if step.overflow is Overflow.SAT_ZERO else _CLAMP, low=low, high=high)


def _encode_count(
    step: Count, row: Callable[[IntArray], Array], lane: np.dtype[np.signedinteger]
) -> _Encoded:
    limits = np.iinfo(lane)
    rows, count = step.thresholds.shape
    search_steps = count.bit_length()
    # Rows are filled up to 2^steps - 1 with a threshold that no number reaches.
    padded = np.full((rows, (1 << search_steps) - 1), limits.max, dtype=lane)
    padded[:, :count] = np.clip(step.thresholds, int(limits.min), int(limits.max)).astype(lane)
    starts, level_starts = np.arange(rows) * padded.shape[1], np.arange(len(step.levels)) * (count + 1)
    return _Encoded(
        _COUNT,
        0,
        (row(starts), row(level_starts), None),
        padded,
        np.ascontiguousarray(step.levels, dtype=lane),
        search_steps=search_steps,
    )


def _address(array: Array | None) -> int | None:
    return None if array is None else array.ctypes.data


def channels_last(x: Array) -> bool:
    """Whether a batch (N, C, …) is stored with the channel running fastest."""
    return x.ndim > 2 and np.moveaxis(x, 1, -1).flags.c_contiguous


def in_layout(x: Array, last: bool) -> Array:
    """The same batch, dense, channel fastest or in plain row-major order."""
    if not last:
        return np.ascontiguousarray(x)
    return x if channels_last(x) else np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


class CompiledChain:
    """A chain in the compiled kernel.

    Args:
        kernel: the compiled library of ``qhw.sim.native``.
        lane_bits: 32 or 64, proven to hold every intermediate number.
        buffer: takes the results; the next run overwrites them.
    """

    def __init__(
        self,
        kernel: ctypes.CDLL,
        steps: Sequence[ChainStep],
        channels: int,
        lane_bits: int,
        result: np.dtype[np.generic],
        buffer: Buffer,
        threads: int,
    ):
        lane: np.dtype[np.signedinteger] = np.dtype(np.int32 if lane_bits == 32 else np.int64)
        self._kernel, self._lane_bits, self._threads = kernel, lane_bits, threads
        self._result, self._buffer, self._channels = result, buffer, channels
        self._encoded = [_encode(step, channels, lane) for step in steps]
        self._ops = (_Operation * len(self._encoded))()
        for op, encoded in zip(self._ops, self._encoded, strict=True):
            op.kind, op.flag, op.steps = encoded.kind, encoded.flag, encoded.search_steps
            op.a, op.b, op.c = map(_address, encoded.per_channel)
            op.data, op.levels = _address(encoded.data), _address(encoded.levels)
            op.low, op.high = encoded.low, encoded.high

    def __call__(self, x: Array, tensors: Mapping[str, Array], overwrite: bool = False) -> Array:
        """Run on a batch (N, C, …); ``overwrite`` allows the result to take the place of ``x``."""
        last = channels_last(x)
        x = in_layout(x, last)
        inner = 1 if last else int(np.prod(x.shape[2:], dtype=np.int64))
        shape = (x.shape[0], *x.shape[2:], x.shape[1]) if last else x.shape
        in_place = overwrite and x.dtype == self._result
        out = (np.moveaxis(x, 1, -1) if last else x) if in_place else self._buffer(shape)
        sides = self._place(tensors, last)
        rows = x.size // max(1, self._channels * inner)
        job = _Job(
            ctypes.addressof(self._ops),
            len(self._ops),
            x.ctypes.data,
            out.ctypes.data,
            _TYPES[x.dtype],
            _TYPES[self._result],
            rows,
            self._channels,
            inner,
        )
        threads = self._threads if x.size >= _PARALLEL_ELEMENTS else 1
        self._kernel.qhw_elementwise(ctypes.byref(job), self._lane_bits, threads)
        del sides
        return np.moveaxis(out, -1, 1) if last else out

    def _place(self, tensors: Mapping[str, Array], last: bool) -> list[Array]:
        """Write the addresses of side operands, in the layout of the main one; keep them alive."""
        sides = []
        for op, encoded in zip(self._ops, self._encoded, strict=True):
            if encoded.tensor is not None:
                side = in_layout(tensors[encoded.tensor], last)
                op.data, op.data_type = side.ctypes.data, _TYPES[side.dtype]
                sides.append(side)
        return sides


class NumpyChain:
    """A chain in NumPy's int64, step by step: slower, the same codes."""

    def __init__(self, steps: Sequence[ChainStep], result: np.dtype[np.generic]):
        self._steps, self._result = steps, result

    def __call__(self, x: Array, tensors: Mapping[str, Array], overwrite: bool = False) -> Array:
        lanes: IntArray = x.astype(np.int64)
        for step in self._steps:
            lanes = run_numpy(step, lanes, tensors)
        return lanes.astype(self._result)
