"""What makes tensors larger: transposed convolutions and resizing, by repeated elements or zeros."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qhw.graph.front.dyadic import Dyadic
from qhw.graph.front.integers import integers, summands
from qhw.graph.front.matrix import Window, convolution, weights_of
from qhw.graph.front.movement import apply, picked, shape_of
from qhw.graph.front.state import NodeView, State, rule
from qhw.graph.front.values import Activation, Lowered, Movement

_SAME_AS_REPEATING = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel_symmetric", "round_prefer_floor"),
    ("pytorch_half_pixel", "round_prefer_floor"),
}
"""How a nearest-neighbour Resize may name its pixels so that an integer factor repeats every one of them."""


@rule("ConvTranspose")
def conv_transpose(state: State, node: NodeView) -> Lowered:
    """A convolution with the flipped weights, over the input with stride - 1 zeros between its elements.

    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (arXiv 1603.07285), chapter 4.
    """
    x, free = summands(state, node)
    weight = weights_of(state, node)
    spatial = state.builder.type(x).shape[1:]
    rank, groups = len(spatial), int(node.options["group"])
    if weight.ndim != rank + 2 or rank not in (1, 2):
        raise node.refuse(
            f"its weight has shape {weight.shape} for {rank} spatial axes", allowed="1 or 2 axes"
        )
    strides, dilations, extra, pads = (
        tuple(int(n) for n in node.options[name])
        for name in ("strides", "dilations", "output_padding", "pads")
    )
    flipped = weight.moved(lambda array: _flipped(array, groups))
    x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    if set(strides) != {1}:
        x = state.builder.upsample(f"{node.name}_zeros", x, strides, zeros=True, source=node.name)
    reach = [d * (k - 1) for d, k in zip(dilations, flipped.shape[2:], strict=True)]
    begins = [r - p for r, p in zip(reach, pads[:rank], strict=True)]
    # The last element has zeros behind it already.
    ends = [r - p + e - (s - 1) for r, p, e, s in zip(reach, pads[rank:], extra, strides, strict=True)]
    x, inner = _negative_pads_cut(state, node, x, begins, ends)
    frame = Window(flipped.shape[2:], (1,) * rank, inner, dilations)
    return convolution(state, node, x, free, flipped, frame)


def _flipped(array: np.ndarray, groups: int) -> np.ndarray:
    """From (C, M / groups, ...) to (M, C / groups, ...), each kernel turned around."""
    channels, depth, *kernel = array.shape
    turned = array.reshape(groups, channels // groups, depth, *kernel).swapaxes(1, 2)
    turned = turned.reshape(groups * depth, channels // groups, *kernel)
    return np.flip(turned, axis=tuple(range(2, turned.ndim)))


def _negative_pads_cut(
    state: State, node: NodeView, x: str, begins: Sequence[int], ends: Sequence[int]
) -> tuple[str, tuple[int, ...]]:
    for axis, (begin, end) in enumerate(zip(begins, ends, strict=True), 1):
        size = state.builder.type(x).shape[axis]
        first, last = max(0, -begin), size - max(0, -end)
        if first >= last:
            raise node.refuse("its pads leave nothing of the input")
        if (first, last) != (0, size):
            name = f"{node.name}_cut_{axis}"
            x = state.builder.slice(name, x, axis, first, last, source=node.name)
    return x, tuple(max(0, p) for p in (*begins, *ends))


@rule("Resize")
def resize(state: State, node: NodeView) -> Lowered:
    """Nearest neighbours by whole factors, or linear interpolation by powers of two."""
    mode = node.options["mode"]
    if mode not in ("nearest", "linear"):
        raise node.refuse(
            f"mode '{mode}'", allowed="nearest, linear", hint="nn.Upsample(mode='nearest' or 'bilinear')"
        )
    factors = _factors(state, node)
    coordinates = node.options["coordinate_transformation_mode"]
    if mode == "nearest":
        return _repeated(state, node, factors, coordinates)
    if coordinates not in ("half_pixel", "pytorch_half_pixel") or any(f & (f - 1) for f in factors):
        raise node.refuse(
            f"it interpolates by factors {factors} with '{coordinates}' coordinates",
            allowed="powers of two with half_pixel coordinates (align_corners=False in PyTorch)",
        )
    return _interpolated(state, node, factors)


def _factors(state: State, node: NodeView) -> tuple[int, ...]:
    """Whole factors of the spatial axes."""
    before, after = shape_of(state, node), node.output_shapes[0]
    if before[:2] != after[:2]:
        raise node.refuse("it resizes the batch or channel axis", allowed="spatial axes")
    if any(b % a for a, b in zip(before, after, strict=True)):
        raise node.refuse(
            f"it resizes {before[2:]} to {after[2:]}",
            allowed="whole factors",
            hint="choose an output size that is a multiple of the input's",
        )
    return tuple(b // a for a, b in zip(before[2:], after[2:], strict=True))


def _repeated(state: State, node: NodeView, factors: tuple[int, ...], coordinates: str) -> Lowered:
    nearest = node.options["nearest_mode"]
    if (coordinates, nearest) not in _SAME_AS_REPEATING and set(factors) != {1}:
        raise node.refuse(
            f"it picks pixels by '{coordinates}' and '{nearest}'",
            allowed="coordinates that repeat every pixel (torch's nearest mode)",
        )

    def tensor(x: str, name: str) -> str:
        x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
        return state.builder.upsample(name, x, factors, source=node.name)

    out = node.output_shapes[0][1:]
    return apply(
        state, node, Movement(node.name, node.op, out, None, tensor, lambda a: 0 if a == 0 else None)
    )


def _interpolated(state: State, node: NodeView, factors: tuple[int, ...]) -> Lowered:
    """Every pixel from its two neighbours per axis, the edges repeated, by weights odd / (2 factor)."""
    x, free = integers(state, node)
    if free is not None and not free.is_uniform:
        raise node.refuse("it interpolates a tensor with scales per channel", hint="quantise per tensor")
    x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    for axis, factor in enumerate(factors, 1):
        if factor > 1:
            x = _along(state, node, x, axis, factor)
    return Activation(x, free)


def _along(state: State, node: NodeView, x: str, axis: int, factor: int) -> str:
    builder = state.builder
    channels, *spatial = builder.type(x).shape
    size = spatial[axis - 1]
    name = f"{node.name}_axis_{axis}"
    x = picked(state, node, f"{name}_edges", x, axis, [0, *range(size), size - 1])
    steps = tuple(factor if a == axis else 1 for a in range(1, len(spatial) + 1))
    x = builder.upsample(f"{name}_zeros", x, steps, zeros=True, source=node.name)
    # Output o lies (o + 1/2) / factor - 1/2 pixels along the axis: a triangle over 2 * factor of the places.
    rising = [2 * i + 1 for i in range(factor)]
    kernel = tuple(2 * factor if a == axis else 1 for a in range(1, len(spatial) + 1))
    triangle = np.array(rising + rising[::-1], dtype=np.int64).reshape(kernel)
    weight = Dyadic(
        np.broadcast_to(triangle, (channels, 1, *kernel)).copy(),
        np.full((1,) * (len(kernel) + 2), -factor.bit_length()),
    )
    begins = [factor // 2 - 1 if a == axis else 0 for a in range(1, len(spatial) + 1)]
    y = builder.conv(
        f"{name}_sum",
        x,
        state.constant(f"{name}_weight", weight),
        pads=(*begins, *[0] * len(spatial)),
        groups=channels,
        source=node.name,
    )
    return builder.slice(f"{name}_out", y, axis, 0, size * factor, source=node.name)
