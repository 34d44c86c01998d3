"""The arena: where every map lies in RAM while it is needed; maps that are never needed at once share it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qhw.errors import CheckFailedError

ALIGNMENT = 8
_TRIALS = 300


@dataclass(frozen=True)
class Buffer:
    """Bytes that are needed from one moment to another, both included.

    Args:
        name: unique.
        bytes: its size.
        first, last: moments; a step is one.
    """

    name: str
    bytes: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """Whether both are needed at one moment."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Offsets of buffers.

    Args:
        bytes: its size.
        floor: the most bytes that are needed at one moment: no arena is smaller.
    """

    offsets: Mapping[str, int]
    bytes: int
    floor: int


def pack(buffers: Sequence[Buffer]) -> Arena:
    """A small arena: the best of several orders in which buffers take the lowest place that is free.

    Large ones first, long-lived ones first, early ones first; then one buffer after the other is moved in the
    best order so far, at random, until the arena is as small as any can be or the trials are over. The same
    buffers give the same arena.
    """
    floor = lower_bound(buffers)
    orders = [
        sorted(buffers, key=lambda b: (-b.bytes, b.first, b.name)),
        sorted(buffers, key=lambda b: (b.first - b.last, -b.bytes, b.name)),
        sorted(buffers, key=lambda b: (b.first, -b.bytes, b.name)),
    ]
    best = min(orders, key=lambda order: _size(order, _placed(order)))
    size = _size(best, _placed(best))
    chance = random.Random(0)
    for _ in range(_TRIALS if len(buffers) > 2 else 0):
        if size <= floor:
            break
        order = list(best)
        i, j = chance.randrange(len(order)), chance.randrange(len(order))
        order.insert(j, order.pop(i))
        tried = _size(order, _placed(order))
        if tried <= size:
            best, size = order, tried
    offsets = _placed(best)
    arena = Arena({buffer.name: offsets[buffer.name] for buffer in buffers}, size, floor)
    check_apart(buffers, arena)
    return arena


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """The most bytes that are needed at one moment, each buffer rounded up to the alignment."""
    moments = {buffer.first for buffer in buffers}
    return max(
        (sum(aligned(b.bytes) for b in buffers if b.first <= moment <= b.last) for moment in moments),
        default=0,
    )


def check_apart(buffers: Sequence[Buffer], arena: Arena) -> None:
    """Raise CheckFailedError where two buffers that are needed at once overlap, or one leaves the arena."""
    for index, buffer in enumerate(buffers):
        start = arena.offsets[buffer.name]
        if start % ALIGNMENT or start + buffer.bytes > arena.bytes:
            raise CheckFailedError(f"'{buffer.name}' lies outside of the arena")
        for other in buffers[:index]:
            begins = arena.offsets[other.name]
            apart = begins >= start + buffer.bytes or start >= begins + other.bytes
            if buffer.meets(other) and not apart:
                raise CheckFailedError(f"'{buffer.name}' and '{other.name}' overlap in the arena")


def _placed(order: Sequence[Buffer]) -> dict[str, int]:
    """Each buffer at the lowest offset that is free of those before it."""
    offsets: dict[str, int] = {}
    for index, buffer in enumerate(order):
        taken = sorted(
            (offsets[other.name], offsets[other.name] + other.bytes)
            for other in order[:index]
            if buffer.meets(other)
        )
        at = 0
        for start, stop in taken:
            if at + buffer.bytes <= start:
                break
            at = max(at, aligned(stop))
        offsets[buffer.name] = at
    return offsets


def _size(order: Sequence[Buffer], offsets: Mapping[str, int]) -> int:
    return aligned(max((offsets[b.name] + b.bytes for b in order), default=0))


def aligned(size: int) -> int:
    """Bytes, rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT
