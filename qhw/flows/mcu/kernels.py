"""Which kernel carries out a convolution: what each takes, how its weights lie, the scratch memory it needs.

The generator asks :func:`conv_kernel` alone. A faster kernel is one entry of ``CONV_KERNELS`` in front of the
portable ones, and a file in ``mcu/src``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qhw.flows.mcu import dsp
from qhw.flows.mcu.containers import Bytes, Container, Map
from qhw.flows.mcu.program import ConvLayer, Finish
from qhw.formats.modes import IntArray


@dataclass(frozen=True)
class ConvKernel:
    """A kernel for convolutions.

    Args:
        function: its name in C.
        source: its file in ``mcu/src``.
        takes: whether it can carry out a layer.
        pack: a layer's weights as they lie in flash.
        scratch: bytes of RAM that it needs while it runs.
        finish: the end of a layer's sums, without what lies among the packed weights already.
    """

    function: str
    source: str
    takes: Callable[[ConvLayer], bool]
    pack: Callable[[ConvLayer], Bytes]
    scratch: Callable[[ConvLayer], int]
    finish: Callable[[ConvLayer], Finish] = lambda layer: layer.finish


def conv_kernel(layer: ConvLayer) -> ConvKernel:
    """The first kernel that takes a layer; the last one takes all."""
    return next(kernel for kernel in CONV_KERNELS if kernel.takes(layer))


def packed(weights: IntArray, container: Container) -> Bytes:
    """Rows (..., channels) packed like pixels, one after the other."""
    rows = weights.reshape(-1, weights.shape[-1])
    return Map((rows.shape[1], rows.shape[0]), container).pack(rows.T[np.newaxis]).reshape(-1)


def by_channel(layer: ConvLayer) -> Bytes:
    """[out channel][kernel row][kernel column][channel of its group]."""
    return packed(layer.weights, layer.weight)


def by_tap(layer: ConvLayer) -> Bytes:
    """[kernel row][kernel column][channel], of a depthwise convolution."""
    return packed(layer.weights[..., 0].transpose(1, 2, 0), layer.weight)


def is_narrow(layer: ConvLayer) -> bool:
    """Inputs that 16 bits hold signed, weights of up to 8 bits, sums of 32."""
    return (
        layer.x.low >= -(1 << 15) and layer.x.high < 1 << 15 and layer.weight.bits <= 8 and not layer.wide_sum
    )


def _gathered(layer: ConvLayer) -> int:
    """16-bit numbers for all taps of a pixel; a tap's channels fill whole bytes of weights."""
    each = max(1, 8 // layer.weight.bits)
    rows, columns = layer.kernel
    return 2 * rows * columns * layer.groups * (-(-layer.depth // each) * each)


CONV_KERNELS: tuple[ConvKernel, ...] = (
    *(ConvKernel(*entry) for entry in dsp.CONV_KERNELS),
    ConvKernel(
        "qhw_depthwise",
        "qhw_conv.c",
        lambda layer: layer.is_depthwise and is_narrow(layer),
        by_tap,
        lambda layer: 4 * layer.in_channels,
    ),
    ConvKernel("qhw_conv", "qhw_conv.c", lambda layer: is_narrow(layer), by_channel, _gathered),
    ConvKernel("qhw_depthwise_wide", "qhw_conv.c", lambda layer: layer.is_depthwise, by_tap, lambda layer: 0),
    ConvKernel("qhw_conv_wide", "qhw_conv.c", lambda layer: True, by_channel, lambda layer: 0),
)

SOURCES = (
    "qhw_conv.c",
    "qhw_elementwise.c",
    "qhw_finish.c",
    "qhw_matmul.c",
    "qhw_move.c",
    "qhw_pool.c",
    *dsp.SOURCES,
)
"""Every file of ``mcu/src`` that a project gets; the linker leaves out what is not called."""

_PARTS = {
    "frame": 1000,
    "finish": 2604,
    "finish64": 1092,
    "finish dsp": 2586,
    "conv dsp": 3070,
    "elementwise": 560,
    "both": 1050,
    "pool": 2060,
    "qhw_conv": 1350,
    "qhw_conv_wide": 1094,
    "qhw_depthwise": 940,
    "qhw_depthwise_wide": 992,
    "qhw_depthwise_dsp": 3032,
    "qhw_conv_dsp8": 1100,
    "qhw_conv_dsp4": 1120,
    "qhw_conv_dsp2": 730,
    "qhw_add_dsp": 4584,
    "qhw_matmul": 1814,
    "qhw_copy": 710,
    "qhw_upsample": 114,
    "qhw_reshape": 320,
    "qhw_transpose": 408,
}
"""Bytes of code at -O2 for a Cortex-M7: kernels, what several share, and the test firmware (frame)."""

_SHARED = {
    "qhw_conv": ("finish", "finish64"),
    "qhw_conv_wide": ("finish", "finish64"),
    "qhw_depthwise": ("finish", "finish64"),
    "qhw_depthwise_wide": ("finish", "finish64"),
    "qhw_depthwise_dsp": ("finish", "finish dsp"),
    "qhw_conv_dsp8": ("finish", "finish dsp", "conv dsp"),
    "qhw_conv_dsp4": ("finish", "finish dsp", "conv dsp"),
    "qhw_conv_dsp2": ("finish", "finish dsp", "conv dsp"),
    "qhw_add_dsp": ("finish",),
    "qhw_elementwise": ("finish", "finish64", "elementwise"),
    "qhw_add": ("finish", "finish64", "both"),
    "qhw_mul": ("finish", "finish64", "both"),
    "qhw_max_pool": ("finish", "finish64", "pool"),
    "qhw_sum_pool": ("finish", "finish64", "pool"),
    "qhw_matmul": ("finish",),
}
_USUAL_CODE = 3000
STEP_BYTES = 200
"""A step's geometry, and its call."""


def code_bytes(kernels: Sequence[str]) -> int:
    """An estimate of the code and geometry of steps that call some kernels."""
    return STEP_BYTES * len(kernels) + sum(code_parts(kernels).values())


def code_parts(kernels: Sequence[str]) -> dict[str, int]:
    """An estimate of the code that is there once, however many steps call it: bytes by name."""
    parts = {"frame", *kernels, *(part for name in kernels for part in _SHARED.get(name, ()))}
    own = {name for name in parts if name in _PARTS or name not in _SHARED}
    return {name: _PARTS.get(name, _USUAL_CODE) for name in own}
