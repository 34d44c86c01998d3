"""Element-wise tails of ``canonical.onnx``: from an integer to the next integer, in NumPy float32.

A tail is what stands between an accumulator and the next quantizer: scale, bias, batch norm, activation
and rounding, as a list of float32 operations in stored order. Carried out one by one, they define its
codes. A tail whose codes only rise (or only fall) with the integer is a list of thresholds, found by
bisection through those very operations; any other is a table. Neither rounds anything anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.errors import UnsupportedError
from qhw.formats.modes import IntArray
from qhw.graph.tails.operations import (
    CONSTANT,
    FALLING,
    OPERATIONS,
    RISING,
    UNKNOWN,
    Directed,
    Directions,
    Step,
    Value,
)

TABLE_ENTRIES = 1 << 16
"""A Table looks up codes of up to 16 bits."""


SHORT_TABLE = 1 << 8
"""Entries of a table that is always preferred, where a table is."""

EXHAUSTIVE = 1 << 24
"""(Channel, integer) pairs up to which a tail that no rule decides is proven by trying them all."""


LARGEST_INTEGER = 1 << 120
"""Bound of what a tail may read: float32 reaches 2^128."""

_INT64_BOUND = 1 << 61
"""Below it integers are int64 (bisection adds two of them), above it Python's."""


@dataclass(frozen=True)
class Tail:
    """An element-wise function of one or two integers.

    Args:
        name: the quantizer (or node) that it ends in, for messages.
        roots: names of the integers.
        constants: float32, shape ``()`` or ``(channels, 1)``; thresholds of a MultiThreshold
            ``(1 or channels, 1, T)``.
        numbers: rising, what the result is one of; None: any integer.
    """

    name: str
    roots: tuple[str, ...]
    output: str
    steps: tuple[Step, ...]
    constants: Mapping[str, Value]
    numbers: IntArray | None = None

    @property
    def channels(self) -> int:
        """1 where no constant differs by channel."""
        return max((c.shape[0] for c in self.constants.values() if c.ndim > 1), default=1)

    @property
    def spelled(self) -> str:
        """The operations in order, for messages."""
        return " → ".join(step.op for step in self.steps)


@dataclass(frozen=True)
class Thresholds:
    """``levels[number of thresholds reached]``: (C or 1, T) and (C or 1, T + 1), as in ``ir.Threshold``."""

    thresholds: IntArray
    levels: IntArray


@dataclass(frozen=True)
class Lookup:
    """``table[channel, x - first]``, as in ``ir.Table``."""

    table: IntArray
    first: int


def evaluate(tail: Tail, integers: Mapping[str, IntArray]) -> IntArray:
    """The codes that the tail's operations give, in float32, one after the other.

    Args:
        integers: one array per root, shape (channels or 1, n).

    Returns:
        int64, shape (channels or 1, n).

    Raises:
        UnsupportedError: the result is not a finite integer.
    """
    values = _run(tail, integers)
    result = values[tail.output]
    if not np.isfinite(result).all() or (np.abs(result) >= 2.0**62).any():
        raise _not_a_code(tail, values)
    return np.asarray(result.astype(np.int64))


def lower_tail(
    tail: Tail, low: IntArray, high: IntArray, *, prefer_table: bool = False
) -> Thresholds | Lookup:
    """The tail of one integer as thresholds if its codes are proven to rise or fall, else as a table.

    Args:
        low, high: the integer's range, int64 of shape (channels or 1,).
        prefer_table: also a monotone one becomes a table, where that is short: looking a code of 8 bits up
            takes less than comparing it.

    Raises:
        UnsupportedError: the tail is not monotone over a range of more than 2^16 integers.
    """
    low, high = np.atleast_1d(low), np.atleast_1d(high)
    if max(abs(int(low.min())), abs(int(high.max()))) > LARGEST_INTEGER:
        raise UnsupportedError(
            f"'{tail.name}' reads an integer of more than {LARGEST_INTEGER.bit_length() - 1} bits",
            hint="give the layer before it formats with fewer exponent bits, or powers of two for scales",
        )
    if tail.channels == 1:
        low, high = low.min(keepdims=True), high.max(keepdims=True)
    narrow = max(abs(int(low.min())), abs(int(high.max()))) < _INT64_BOUND
    low, high = (
        np.broadcast_to(v, (max(tail.channels, low.size),)).astype(np.int64 if narrow else object)
        for v in (low, high)
    )
    known = directions(tail, low, high)
    entries = int(high.max()) - int(low.min()) + 1
    if (known != UNKNOWN).all():
        found = bisect(tail, known, low, high)
        if not prefer_table or entries > max(SHORT_TABLE, 2 * found.thresholds.shape[1]):
            return found
    if entries > TABLE_ENTRIES:
        raise UnsupportedError(
            f"'{tail.name}' ({tail.spelled}) does not only rise or only fall, "
            f"and reads {entries} different integers",
            allowed=f"any function of at most {TABLE_ENTRIES}, or a monotone one of more",
            hint="put a quantizer of at most 16 bits in front of the activation function",
        )
    return Lookup(_whole_table(tail, int(low.min()), entries), int(low.min()))


def directions(tail: Tail, low: IntArray, high: IntArray) -> Directions:
    """Per channel, whether codes rise, fall or stay as the integer goes from ``low`` to ``high``.

    Decided by rule, operation by operation (a correctly rounded float32 operation is monotone where the
    real one is); where no rule decides, by trying every integer if there are at most 2^24.
    """
    known: dict[str, Directions] = {root: np.full(low.size, RISING, np.int8) for root in tail.roots}
    for step in tail.steps:
        operands = [
            Directed(tail.constants.get(i), known.get(i, np.zeros(low.size, np.int8))) for i in step.inputs
        ]
        rule = OPERATIONS[step.op].direction
        known[step.output] = np.broadcast_to(rule(step, operands), (low.size,)).astype(np.int8)
    result = known[tail.output]
    if (result != UNKNOWN).all() and _all_finite(tail, np.stack([low, high], axis=1)):
        return result
    if int(np.sum(high - low + 1)) > EXHAUSTIVE:
        return np.full(low.size, UNKNOWN, np.int8)
    return _tried_directions(tail, low, high)


def bisect(tail: Tail, known: Directions, low: IntArray, high: IntArray) -> Thresholds:
    """The smallest integer that reaches each code, all channels and codes at once.

    Args:
        known: each channel's direction, none unknown.
        low, high: each channel's range.
    """
    sign = np.where(known == FALLING, -1, 1).astype(np.int64)[:, None]
    first, last = (sign * _places(tail, end[:, None]) for end in (low, high))
    _check_count(tail, int((last - first).max()))
    rows = [np.arange(a + 1, b + 1) for a, b in zip(first[:, 0], last[:, 0], strict=True)]
    wanted = np.full((len(rows), max(1, *(row.size for row in rows))), np.iinfo(np.int64).max)
    for line, row in zip(wanted, rows, strict=True):
        line[: row.size] = row
    below = np.repeat(low[:, None] - 1, wanted.shape[1], axis=1)
    reached = np.repeat(high[:, None] + 1, wanted.shape[1], axis=1)
    while (reached - below > 1).any():
        middle = np.clip((below + reached) >> 1, low[:, None], high[:, None])
        hit = sign * _places(tail, middle) >= wanted
        reached, below = np.where(hit, middle, reached), np.where(hit, below, middle)
    found = _assembled(reached, rows, sign[:, 0], first[:, 0], high)
    return found if tail.numbers is None else replace(found, levels=tail.numbers[found.levels])


def _places(tail: Tail, integers: IntArray) -> IntArray:
    """The codes of integers (channels, n), as places among the tail's numbers if it has any."""
    codes = _at(tail, integers)
    return codes if tail.numbers is None else np.searchsorted(tail.numbers, codes)


def _check_count(tail: Tail, count: int) -> None:
    if count > TABLE_ENTRIES:
        raise UnsupportedError(
            f"'{tail.name}' ({tail.spelled}) tells {count + 1} codes apart",
            allowed=f"at most {TABLE_ENTRIES} thresholds per channel",
            hint="give the quantizer at most 16 bits",
        )


def affine_form(tail: Tail) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """``(scale, offset)`` per channel, in float64, of a tail that only scales and shifts; else None."""
    values: dict[str, tuple[Any, Any]] = {root: (np.float64(1), np.float64(0)) for root in tail.roots}
    for step in tail.steps:
        constants = [
            tail.constants[i].astype(np.float64).reshape(-1) for i in step.inputs if i in tail.constants
        ]
        moving = [values[i] for i in step.inputs if i in values]
        rule = _AFFINE.get(step.op)
        reversed_operands = step.op in ("Div", "Sub") and step.inputs[0] in tail.constants
        if rule is None or len(moving) != 1 or reversed_operands:
            return None
        values[step.output] = rule(*moving[0], *constants)
    scale, offset = (np.atleast_1d(v) for v in values[tail.output])
    return scale, offset


_AFFINE: dict[str, Callable[..., tuple[Any, Any]]] = {
    "Identity": lambda scale, offset: (scale, offset),
    "Mul": lambda scale, offset, c: (scale * c, offset * c),
    "Div": lambda scale, offset, c: (scale / c, offset / c),
    "Add": lambda scale, offset, c: (scale, offset + c),
    "Sub": lambda scale, offset, c: (scale, offset - c),
}


def _run(tail: Tail, integers: Mapping[str, IntArray]) -> dict[str, Value]:
    """Every intermediate float32 tensor."""
    values = dict(tail.constants)
    values.update({root: as_float32(integers[root]) for root in tail.roots})
    with np.errstate(all="ignore"):
        for step in tail.steps:
            arguments = [values[i] for i in step.inputs]
            values[step.output] = OPERATIONS[step.op].function(step, arguments).astype(np.float32, copy=False)
    return values


def as_float32(integers: IntArray) -> Value:
    """Integers of any size in float32, each rounded once."""
    if integers.dtype != object:
        return integers.astype(np.float32)
    rounded = [_float32(int(integer)) for integer in integers.flat]
    return np.array(rounded, dtype=np.float32).reshape(integers.shape)


def _float32(integer: int) -> float:
    """A sticky last bit stands for all the bits behind 62: float32 rounds the same."""
    spare = max(abs(integer).bit_length() - 62, 0)
    kept = abs(integer) >> spare
    sticky = kept | int(kept << spare != abs(integer))
    return math.copysign(math.ldexp(float(np.float32(np.int64(sticky))), spare), integer)


def _not_a_code(tail: Tail, values: Mapping[str, Value]) -> UnsupportedError:
    """Where numbers of a tail stop being finite, or small enough for an integer, and what for."""
    for step in tail.steps:
        operands = np.broadcast_arrays(*(values[name] for name in step.inputs), values[step.output])[:-1]
        lost = ~np.isfinite(np.broadcast_to(values[step.output], operands[0].shape))
        if lost.any() and all(np.isfinite(operand[lost]).all() for operand in operands):
            numbers = ", ".join(f"{float(operand[lost].reshape(-1)[0]):g}" for operand in operands)
            return UnsupportedError(
                f"'{tail.name}' ({tail.spelled}): {step.op} of {numbers} is no finite number",
                hint="keep what it reads within its range, by a quantizer without a sign, a Relu or a Clip; "
                "or look for a zero or infinite scale or variance",
            )
    return UnsupportedError(
        f"'{tail.name}' ({tail.spelled}) gives NaN or numbers beyond 62 bits",
        hint="look for a zero or infinite scale or variance in front of it",
    )


def _at(tail: Tail, integers: IntArray) -> IntArray:
    """The codes of integers (channels, n), with every channel in the result."""
    return np.asarray(np.broadcast_to(evaluate(tail, {tail.roots[0]: integers}), integers.shape))


def _all_finite(tail: Tail, ends: IntArray) -> bool:
    """Whether every intermediate number is finite at both ends, hence between them if all are monotone."""
    values = _run(tail, dict.fromkeys(tail.roots, ends))
    return all(bool(np.isfinite(values[step.output]).all()) for step in tail.steps)


def _tried_directions(tail: Tail, low: IntArray, high: IntArray) -> Directions:
    """Each channel's direction by the codes of every integer in its range."""
    found = np.full(low.size, UNKNOWN, np.int8)
    for c in range(low.size):
        one = _channel_of(tail, c)
        codes = _at(one, np.arange(low[c], high[c] + 1)[None, :])
        rise, fall = (codes[:, 1:] >= codes[:, :-1]).all(), (codes[:, 1:] <= codes[:, :-1]).all()
        found[c] = CONSTANT if rise and fall else RISING if rise else FALLING if fall else UNKNOWN
    return found


def _channel_of(tail: Tail, channel: int) -> Tail:
    """The tail of one channel alone."""
    constants = {
        n: c[channel : channel + 1] if c.ndim > 1 and len(c) > 1 else c for n, c in tail.constants.items()
    }
    return replace(tail, constants=constants)


def _whole_table(tail: Tail, first: int, entries: int) -> IntArray:
    rows = [
        _at(_channel_of(tail, c), np.arange(first, first + entries, dtype=np.int64)[None, :])
        for c in range(tail.channels)
    ]
    return _shared(np.concatenate(rows))


def _assembled(
    reached: IntArray, rows: Sequence[IntArray], sign: IntArray, first: IntArray, high: IntArray
) -> Thresholds:
    """Rows of equal length: codes that are jumped over dropped, then thresholds beyond the range."""
    kept = [_last_of_equals(reached[c, : row.size], row) for c, row in enumerate(rows)]
    count = max(1, *(found.size for found, _ in kept))
    thresholds = np.empty((len(kept), count), dtype=reached.dtype)
    levels = np.empty((len(kept), count + 1), dtype=np.int64)
    ends = np.array([row[-1] if row.size else first[c] for c, (_, row) in enumerate(kept)])
    most = {direction: ends[sign == direction].max() for direction in np.unique(sign)}
    for c, (found, row) in enumerate(kept):
        spare = np.arange(1, count - found.size + 1).astype(reached.dtype)
        thresholds[c] = np.concatenate([found, high[c] + spare])
        reachable = np.concatenate([first[c : c + 1], row])
        # Never reached, so any code will do: going on counting lets channels share their levels.
        levels[c] = np.concatenate([reachable, np.minimum(ends[c] + spare, most[sign[c]])])
    return Thresholds(_shared(thresholds), _shared(levels * sign[:, None]))


def _last_of_equals(found: IntArray, codes: IntArray) -> tuple[IntArray, IntArray]:
    """Thresholds without repeats: where several codes share one, only the last code stays."""
    last = np.append(found[1:] != found[:-1], True)[: found.size]
    return found[last], codes[last]


def _shared(rows: IntArray) -> IntArray:
    return rows[:1] if (rows == rows[:1]).all() else rows
