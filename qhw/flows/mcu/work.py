"""What a step does: how often each loop of its kernel runs, which is what its instructions are counted by.

Every function follows one file of ``mcu/src`` loop by loop. A count is named by its kind of work and, where
the kernel has a branch for it, by what the branch depends on: ``loaded int8``, ``loaded packed``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from qhw.flows.mcu import dsp
from qhw.flows.mcu.containers import Container
from qhw.flows.mcu.layout import Call, Layout
from qhw.flows.mcu.program import (
    ConvLayer,
    CopyLayer,
    ElementwiseLayer,
    Finish,
    MatMulLayer,
    PoolLayer,
    Step,
)
from qhw.formats.modes import IntArray

_CHUNK = 32
"""QHW_CHUNK: channels that portable kernels finish together."""

_STRIP = 16
"""STRIP: columns of a strip of ``qhw_depthwise_dsp``."""

Work = Counter[str]


def work_of(layout: Layout, step: Step) -> dict[str, float]:
    """Counts by name, of all calls of a step in one inference."""
    total: Work = Counter()
    for call in layout.calls(step):
        total["calls"] += 1
        total.update(_WORK[step.kernel](layout, step, call))
    return {name: float(count) for name, count in total.items() if count}


def loops_of(kernel: str) -> str:
    """What a kernel shares its loops with: one function convolves, by weights of 8, 4 and 2 bits."""
    return kernel.rstrip("248") if kernel.startswith("qhw_conv_dsp") else kernel


# --- what kernels share -------------------------------------------------------------------------------


def _kind(container: Container) -> str:
    """A container, as far as loading and storing depend on it."""
    if container.bits == 8:
        return str(container)
    return "packed" if container.bits < 8 else f"words of {container.bits} bits"


def _inside(length: int, out: int, taps: int, stride: int, dilation: int, pad: int) -> IntArray:
    """For each output along an axis, how many taps of the kernel lie inside the map."""
    at = np.arange(out)[:, np.newaxis] * stride - pad + np.arange(taps) * dilation
    return np.asarray(((at >= 0) & (at < length)).sum(axis=1))


def _axes(layer: ConvLayer | PoolLayer, call: Call) -> tuple[IntArray, IntArray]:
    """Taps that lie inside the map, by row and by column."""
    rows, columns = (
        _inside(*axis)
        for axis in zip(
            call.in_plane,
            call.out_plane,
            layer.kernel,
            layer.strides,
            layer.dilations,
            call.pads,
            strict=True,
        )
    )
    return rows, columns


def _finished(finish: Finish, pixels: int, channels: int) -> Work:
    """``qhw_finish_chunk``; of wide layers, ``qhw_finish64`` for each number."""
    count = pixels * channels
    kind = finish.kind
    if kind == "ROUND":
        kind = finish.rounding if finish.overflow == "SAT" else f"{finish.overflow} {finish.rounding}"
    prefix = "wide " if finish.wide else ""
    work: Work = Counter({f"finished {prefix}{kind}": count, f"stored {_kind(finish.out)}": count})
    if finish.thresholds is not None:
        work[f"compared {prefix}".rstrip()] += count * finish.thresholds.shape[1].bit_length()
    if not finish.wide:
        work["chunks"] += pixels * -(-channels // _CHUNK)
        work["multiplied"] += count * (finish.multiplier is not None)
        work["offset"] += count * (finish.addend is not None)
    return work


def _finished_dsp(layer: ConvLayer, pixels: int, channels: int) -> Work:
    """``qhw_finish_pixel`` or ``qhw_finish_four``, of pixels with so many channels."""
    finish = layer.finish
    rounding = dsp.fast_rounding(finish, *dsp.sum_bounds(layer))
    if rounding is None:
        return _finished(finish, pixels, channels)
    usual = (
        rounding.ties_to_even
        and finish.out.bits <= 8
        and finish.high - finish.low == (1 << finish.out.bits) - 1
    )
    whole = channels // 4 * 4 if usual else 0
    rest = ("evenly" if rounding.ties_to_even else "up") + " words" * (finish.out.bits == 16)
    return Counter(
        {
            f"fours {finish.out.bits}": pixels * whole,
            f"ones {rest}": pixels * (channels - whole),
            "rests": pixels * (channels > whole),
        }
    )


# --- convolutions with DSP instructions ---------------------------------------------------------------


def _conv_dsp(layout: Layout, step: Step, call: Call) -> Work:
    layer = step.layer
    assert isinstance(layer, ConvLayer)
    pixels, groups = call.pixels, layer.groups
    taps = math.prod(layer.kernel) * layer.depth
    units, blocks = -(-taps // 4), groups * -(-(layer.out_channels // groups) // 4)
    work = _gathered(layer, call, units)
    work["columns"] += pixels * groups
    work["pixels"] += pixels
    chunk = min(units, dsp.chunk_of(int(step.kernel[-1]), layer) or units)
    parts = [min(chunk, units - begin) for begin in range(0, units, chunk)]
    passes = sum(-(-part // 2) for part in parts)
    for pixel, count in (("pair", pixels // 2), ("single", pixels % 2)):
        name = f"{pixel} {step.kernel[-1]}"
        work[f"blocks {name}"] += count * blocks
        work[f"parts {name}"] += count * blocks * (len(parts) if len(parts) > 1 else 0)
        work[f"units {name}"] += count * blocks * units
        work[f"passes {name}"] += count * blocks * passes
    return work + _finished_dsp(layer, pixels, layer.out_channels)


def _gathered(layer: ConvLayer, call: Call, units: int) -> Work:
    """``put_column`` for every output pixel and group."""
    rows, columns = _axes(layer, call)
    (height, width), groups = layer.kernel, layer.groups
    pixels = call.pixels
    inside = int(rows.sum() * columns.sum())
    work: Work = Counter()
    kernel_rows, rows_inside = pixels * height, int(rows.sum()) * call.out_plane[1]
    if layer.depth % dsp.UNIT:
        work["put int8" if layer.x.is_signed else "put uint8"] += pixels * groups * units
        runs = groups == 1 and layer.dilations[1] == 1 and layer.x.bits == 8
        if runs:
            each = columns * layer.depth
            work["copied words"] += int(rows.sum() * (-(-each // 4))[each > 3].sum())
            work["copied bytes"] += int(rows.sum() * each[each < 4].sum())
        else:
            work[f"copied {_kind(layer.x)}"] += inside * layer.depth * groups
            work["taps"] += rows_inside * width * groups
        rows_outside = kernel_rows - rows_inside
        if runs:  # rows at an edge are cleared before what lies inside is copied over
            edges = int(rows.sum() * (columns < width).sum())
            work["times cleared"] += rows_outside + edges
            work["bytes cleared"] += (rows_outside + edges) * width * layer.depth
        else:
            work["times cleared"] += groups * (rows_outside + rows_inside * width - inside)
            work["bytes cleared"] += groups * (kernel_rows * width - inside) * layer.depth
        work["rows of bytes"] += kernel_rows * groups
        work["rows inside"] += rows_inside * groups
        return work
    each_tap = layer.depth // dsp.UNIT
    work[f"put {layer.x}"] += inside * each_tap * groups
    work["units cleared"] += (pixels * height * width - inside) * each_tap * groups
    if height * width == 1:
        work["points"] += inside * groups
        return work
    work["rows"] += kernel_rows * groups
    run = groups == 1 and layer.dilations[1] == 1
    work["runs"] += rows_inside if run else inside * groups
    work["taps"] += 0 if run else rows_inside * width * groups
    return work


def _depthwise_dsp(layout: Layout, step: Step, call: Call) -> Work:
    layer = step.layer
    assert isinstance(layer, ConvLayer)
    blocks, pixels = layer.in_channels // dsp.UNIT, call.pixels
    height, width = call.out_plane
    if layer.kernel == (3, 3) and layer.strides == layer.dilations == (1, 1):
        strips = [min(_STRIP, width - begin) for begin in range(0, width, _STRIP)]
        pairs = [-(-columns // 2) for columns in strips]
        work: Work = Counter(
            {
                "strips": blocks * len(strips),
                "strip blocks": blocks,
                "strip rows put": blocks * (height + 2) * len(strips),
                "strip rows": blocks * height * len(strips),
                f"strip pairs put {layer.x}": blocks * (height + 2) * sum(pair + 1 for pair in pairs),
                "strip pairs": blocks * height * sum(pairs),
            }
        )
        return work + _finished_dsp(layer, pixels * blocks, dsp.UNIT)
    rows, columns = _axes(layer, call)
    three = int(rows.sum() * (columns == 3).sum()) * blocks
    work = Counter(
        {
            "pixels": pixels,
            "blocks": pixels * blocks,
            f"threes {layer.x}": three,
            "rows": int(rows.sum()) * width * blocks - three,
            f"taps {layer.x}": int(rows.sum() * columns[columns != 3].sum()) * blocks,
        }
    )
    return work + _finished_dsp(layer, pixels, layer.in_channels)


# --- portable kernels ---------------------------------------------------------------------------------


def _conv(layout: Layout, step: Step, call: Call) -> Work:
    layer = step.layer
    assert isinstance(layer, ConvLayer)
    rows, columns = _axes(layer, call)
    inside, places, pixels = int(rows.sum() * columns.sum()), math.prod(layer.kernel), call.pixels
    work: Work = Counter({"pixels": pixels, "places": pixels * places})
    work["runs"] += pixels * places * layer.groups
    work[f"loaded {_kind(layer.x)}"] += inside * layer.in_channels
    work["cleared"] += (pixels * places - inside) * layer.in_channels
    each = max(1, 8 // layer.weight.bits)  # a tap's weights fill whole bytes
    work["dots"] += pixels * layer.out_channels
    work[f"macs {layer.weight}"] += pixels * layer.out_channels * places * (-(-layer.depth // each) * each)
    return work + _finished(layer.finish, pixels, layer.out_channels)


def _conv_wide(layout: Layout, step: Step, call: Call) -> Work:
    layer = step.layer
    assert isinstance(layer, ConvLayer)
    rows, columns = _axes(layer, call)
    inside, pixels = int(rows.sum() * columns.sum()), call.pixels
    macs = inside * layer.depth * layer.out_channels
    work: Work = Counter({"pixels": pixels, "macs": macs})
    work["places"] += pixels * math.prod(layer.kernel) * layer.out_channels
    work["places inside"] += inside * layer.out_channels
    work[f"loaded {_kind(layer.x)}"] += macs
    work[f"weights {_kind(layer.weight)}"] += macs
    work["sums"] += pixels * layer.out_channels
    return work + _finished(layer.finish, pixels, layer.out_channels)


def _depthwise(layout: Layout, step: Step, call: Call) -> Work:
    layer = step.layer
    assert isinstance(layer, ConvLayer)
    rows, columns = _axes(layer, call)
    inside, pixels = int(rows.sum() * columns.sum()), call.pixels
    macs = inside * layer.in_channels
    quick = layer.x == Container(8, False) and layer.weight == Container(8, True)
    work: Work = Counter({"pixels": pixels, "places": pixels * math.prod(layer.kernel), "runs": inside})
    work["quick"] += macs if quick else 0
    work[f"loaded {_kind(layer.x)}"] += 0 if quick else macs
    work[f"weights {_kind(layer.weight)}"] += 0 if quick else macs
    work["sums"] += pixels * layer.in_channels
    return work + _finished(layer.finish, pixels, layer.in_channels)


def _elementwise(layout: Layout, step: Step, call: Call) -> Work:
    """``qhw_elementwise``, ``qhw_add``, ``qhw_mul``: a row is one pixel where all channels are alike."""
    layer = step.layer
    assert isinstance(layer, ElementwiseLayer)
    finish, operands = layer.finish, [c for c in (layer.x, layer.other) if c is not None]
    per_channel = [finish.multiplier, finish.addend, finish.shift, finish.thresholds, finish.levels]
    alike = all(values is None or len(values) == 1 for values in per_channel)
    height, width = call.out_plane
    flat = alike and min(c.bits for c in (*operands, finish.out)) >= 8
    pixels, channels = (height, layer.channels * width) if flat else (height * width, layer.channels)
    work: Work = Counter({"rows": height, "pixels": pixels})
    for operand in operands:
        work[f"loaded {'wide ' if finish.wide else ''}{_kind(operand)}"] += pixels * channels
    return work + _finished(finish, pixels, channels)


def _add_dsp(layout: Layout, step: Step, call: Call) -> Work:
    layer = step.layer
    assert isinstance(layer, ElementwiseLayer)
    finish, other = layer.finish, layer.other
    assert other is not None
    even = finish.rounding == "RND_CONV" and finish.shift[0] > 0
    whole = (finish.low, finish.high) in ((0, 255), (-128, 127))
    way = ("evenly" if whole else "evenly bounded") if even else "up"
    elements = call.pixels * layer.channels
    return Counter(
        {
            "rows": call.out_plane[0],
            f"summed {way}": elements,
            f"widened {layer.x.is_signed}": elements,
            f"widened {other.is_signed}": elements,
        }
    )


def _pool(layout: Layout, step: Step, call: Call) -> Work:
    layer = step.layer
    assert isinstance(layer, PoolLayer)
    rows, columns = _axes(layer, call)
    inside, places, pixels = int(rows.sum() * columns.sum()), math.prod(layer.kernel), call.pixels
    results = 1 if layer.across else layer.channels
    narrow = not layer.across and not layer.finish.wide and (layer.x.bits, layer.x.is_signed) != (32, False)
    narrow = narrow and layer.x.bits <= 32
    work: Work = Counter({"pixels": pixels, f"loaded {'' if narrow else 'wide '}{_kind(layer.x)}": 0})
    work[f"loaded {'' if narrow else 'wide '}{_kind(layer.x)}"] += inside * layer.channels
    if narrow:
        chunks = -(-results // _CHUNK)
        work["places"] += pixels * places * chunks
        work["runs"] += inside * chunks
        work["begun"] += pixels * results
    else:
        work["places wide"] += pixels * places * results
        work["sums"] += pixels * results
    return work + _finished(layer.finish, pixels, results)


def _matmul(layout: Layout, step: Step, call: Call) -> Work:
    layer = step.layer
    assert isinstance(layer, MatMulLayer)
    outputs = layer.batches * layer.rows * layer.columns
    work: Work = Counter({"pixels": layer.out.pixels, "sums": outputs})
    for side in (layer.a, layer.b):
        work[f"loaded {_kind(side.container)}"] += outputs * layer.depth
    return work + _finished(layer.finish, layer.out.pixels, layer.out.channels)


# --- moves --------------------------------------------------------------------------------------------


def _copy(layout: Layout, step: Step, call: Call) -> Work:
    layer = step.layer
    assert isinstance(layer, CopyLayer)
    work: Work = Counter({"boxes": len(layer.boxes)})
    if layer.fill is not None:
        work[f"filled {_kind(layer.out.container)}"] += layer.out.pixels * layer.out.channels
        work["filled pixels"] += layer.out.pixels
    for box in layer.boxes:
        rows, columns, channels = box.size
        into = box.out.container
        work["rows"] += rows
        work["pixels"] += rows * columns
        if box.x.container.bits == into.bits == 8 and box.step[2] == 1:
            work["bytes"] += rows * columns * channels
            work["bytes left"] += rows * columns * (channels % 4)
        else:
            work[f"loaded {_kind(box.x.container)}"] += rows * columns * channels
            work[f"stored {_kind(into)}"] += rows * columns * channels
    return work


def _moved(layout: Layout, step: Step, call: Call) -> Work:
    """``qhw_upsample``, ``qhw_reshape`` and ``qhw_transpose``."""
    out = layout.program.maps[step.writes]
    if step.kernel == "qhw_upsample":
        return Counter({"pixels": out.pixels, "bytes": out.bytes})
    elements = out.pixels * out.channels
    return Counter({"channels": out.channels, f"moved {_kind(out.container)}": elements})


_WORK: Mapping[str, Callable[[Layout, Step, Call], Work]] = {
    "qhw_conv_dsp8": _conv_dsp,
    "qhw_conv_dsp4": _conv_dsp,
    "qhw_conv_dsp2": _conv_dsp,
    "qhw_depthwise_dsp": _depthwise_dsp,
    "qhw_add_dsp": _add_dsp,
    "qhw_conv": _conv,
    "qhw_conv_wide": _conv_wide,
    "qhw_depthwise": _depthwise,
    "qhw_depthwise_wide": _conv_wide,
    "qhw_elementwise": _elementwise,
    "qhw_add": _elementwise,
    "qhw_mul": _elementwise,
    "qhw_max_pool": _pool,
    "qhw_sum_pool": _pool,
    "qhw_matmul": _matmul,
    "qhw_copy": _copy,
    "qhw_upsample": _moved,
    "qhw_reshape": _moved,
    "qhw_transpose": _moved,
}
