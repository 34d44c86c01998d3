"""Windows that slide over spatial axes, and padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Operand


def window_shape(
    spatial: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """Spatial output shape of a sliding window (floor mode)."""
    rank = len(spatial)
    if any(pad < 0 for pad in pads):
        raise ValueError(f"a window cannot have the padding {tuple(pads)}: crop with a Slice")
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise ValueError(f"a window over {rank} axes needs {rank} kernel, stride and dilation numbers")
    out = []
    for axis, (size, k, stride, dilation) in enumerate(zip(spatial, kernel, strides, dilations, strict=True)):
        padded = size + pads[axis] + pads[axis + rank]
        span = dilation * (k - 1) + 1
        if min(k, stride, dilation) < 1 or padded < span:
            raise ValueError(f"a window of {span} does not fit axis {axis} of {padded} elements")
        out.append((padded - span) // stride + 1)
    return tuple(out)


def pooled_shape(
    x: Operand,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """The shape of a window's result for every channel."""
    if x.type.exponent.axis not in (None, 0):
        raise ValueError("exponents may vary along the channel axis only")
    channels, *spatial = x.type.shape
    return (channels, *window_shape(spatial, kernel, strides, pads, dilations))


def patches(
    x: IntArray,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    spatial: Sequence[int],
) -> list[IntArray]:
    """For every kernel position, the elements of ``x`` (N, C, *padded) that each output sees there."""
    return [
        x[
            (
                slice(None),
                slice(None),
                *(
                    slice(k * d, k * d + s * (n - 1) + 1, s)
                    for k, d, s, n in zip(position, dilations, strides, spatial, strict=True)
                ),
            )
        ]
        for position in np.ndindex(*kernel)
    ]


def padded(x: IntArray, pads: Sequence[int], value: int) -> IntArray:
    """``x`` (N, …, *spatial) with spatial padding: begins, then ends."""
    rank = len(pads) // 2
    if not any(pads):
        return x
    widths = [(0, 0)] * (x.ndim - rank) + [(pads[i], pads[i + rank]) for i in range(rank)]
    # In x's own type: a bare int would mix NumPy integers, which overflow, with Python's.
    return np.pad(x, widths, constant_values=np.array(value, x.dtype))
