"""Modules that other layers stand for, and functions that are modules by another name."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812

from qhw.calls.call import Call, Handler
from qhw.calls.kinds import LAYERS
from qhw.calls.shapes import reshape
from qhw.layers import functions
from qhw.layers.arithmetic import Interpolate
from qhw.layers.functions import ElementFunction, Function
from qhw.layers.moves import Pad, Permute, Repeat, Reshape, Slice

ELEMENT_MODULES: Mapping[type[nn.Module], Callable[[Any], ElementFunction | None]] = {
    nn.Sigmoid: lambda layer: functions.SIGMOID,
    nn.Tanh: lambda layer: functions.TANH,
    nn.SiLU: lambda layer: functions.SILU,
    nn.Mish: lambda layer: functions.MISH,
    nn.GELU: lambda layer: functions.gelu(layer.approximate),
    nn.Hardswish: lambda layer: functions.HARD_SWISH,
    nn.Hardsigmoid: lambda layer: functions.HARD_SIGMOID,
    nn.Hardtanh: lambda layer: functions.clip(layer.min_val, layer.max_val),
    nn.ELU: lambda layer: functions.elu(layer.alpha),
    nn.SELU: lambda layer: functions.SELU,
    nn.CELU: lambda layer: functions.celu(layer.alpha),
    nn.Softplus: lambda layer: functions.SOFTPLUS if (layer.beta, layer.threshold) == (1, 20) else None,
    nn.Softsign: lambda layer: functions.SOFTSIGN,
    nn.LogSigmoid: lambda layer: functions.LOG_SIGMOID,
    nn.Tanhshrink: lambda layer: functions.TANH_SHRINK,
    nn.Threshold: lambda layer: functions.thresholded(layer.threshold) if layer.value == 0 else None,
}
"""Element-wise modules; None where their settings have no ONNX operation."""


def _element_module(call: Call, layer: nn.Module) -> None:
    function = ELEMENT_MODULES[type(layer)](layer)
    if function is None:
        raise call.refused(
            f"{layer} cannot be converted", f"{type(layer).__name__} with torch's own settings"
        )
    if isinstance(layer, nn.Hardtanh):
        _bounded(call, layer.min_val, layer.max_val)
    else:
        call.put(Function(function), call.source)


def _bounded(call: Call, low: float | None, high: float | None) -> None:
    """ReLU and ReLU6 are clips that cost nothing."""
    low, high = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    if (low, high) == (0.0, math.inf):
        call.put(nn.ReLU(), call.source)
    elif (low, high) == (0.0, 6.0):
        call.put(nn.ReLU6(), call.source)
    else:
        call.put(Function(functions.clip(low, high)), call.source)


def _clamp(call: Call) -> None:
    bounds = call.argument(1, None, "min"), call.argument(2, None, "max")
    if call.node.target in ("clamp_min", torch.clamp_min):
        bounds = (bounds[0], None)
    if call.node.target in ("clamp_max", torch.clamp_max):
        bounds = (None, call.argument(1, None, "max"))
    if any(isinstance(bound, fx.Node) for bound in bounds):
        raise call.refused("bounds that are tensors", "numbers")
    _bounded(call, *bounds)


def _adaptive_max_pool(call: Call, layer: Any) -> None:
    if layer.return_indices:
        raise call.refused("return_indices", "the maxima alone")
    before_, after = call.source_shape[2:], call.shape[2:]
    if any(size % out for size, out in zip(before_, after, strict=True)):
        raise call.refused(f"{before_} pixels into {after}", "an output size that divides the input's")
    window = tuple(size // out for size, out in zip(before_, after, strict=True))
    kind = nn.MaxPool1d if len(window) == 1 else nn.MaxPool2d
    call.put(kind(window if len(window) > 1 else window[0]), call.source)


def _upsample(call: Call, layer: Any) -> None:
    _resized(call, layer.mode, layer.align_corners)


def _interpolate(call: Call) -> None:
    """F.interpolate and F.upsample."""
    mode = call.argument(3, "nearest", "mode")
    if call.argument(6, False, "antialias"):
        raise call.refused("antialias", "antialias=False")
    _resized(call, mode, call.argument(4, None, "align_corners"))


def _resized(call: Call, mode: str, align_corners: bool | None) -> None:
    """Upsampling by whole factors, or the pixels that a nearest-neighbour reduction keeps."""
    sizes = list(zip(call.source_shape[2:], call.shape[2:], strict=True))
    nearest = mode == "nearest" or (mode == "nearest-exact" and all(out >= size for size, out in sizes))
    if mode == "area":
        kind = nn.AdaptiveAvgPool1d if len(sizes) == 1 else nn.AdaptiveAvgPool2d
        call.put(kind(call.shape[2:] if len(sizes) > 1 else call.shape[2]), call.source)
        return
    if len(sizes) > 2 or not (nearest or mode in ("linear", "bilinear")):
        raise call.refused(
            f"resampling by mode {mode!r} over {len(sizes)} axes", "nearest, linear and bilinear, 1D and 2D"
        )
    if nearest and all(size % out == 0 for size, out in sizes) and any(size > out for size, out in sizes):
        shape, cuts = list(call.source_shape), []
        for axis, (size, out) in enumerate(sizes, 2):
            shape[axis] = out
            cuts.append((Slice(axis, 0, size, size // out), tuple(shape)))
        call.put_chain([cut for cut, _ in cuts], [size for _, size in cuts])
        return
    if any(out % size for size, out in sizes):
        raise call.refused(
            f"resampling of {call.source_shape[2:]} pixels to {call.shape[2:]}", "whole factors"
        )
    factors = tuple(out // size for size, out in sizes)
    if nearest or set(factors) == {1}:
        call.put(Repeat(factors), call.source)
        return
    if align_corners or any(factor & (factor - 1) for factor in factors):
        raise call.refused(
            f"linear upsampling by {factors}{', align_corners' if align_corners else ''}",
            "factors that are powers of two, align_corners=False",
            hint="its weights are then short binary numbers; or use mode='nearest', for any whole factor",
        )
    call.put(Interpolate(factors), call.source)


def _flatten_module(call: Call, layer: nn.Flatten | nn.Unflatten) -> None:
    if isinstance(layer, nn.Flatten) and layer.start_dim == 1 and layer.end_dim in (-1, call_rank(call)):
        return
    reshape(call)


def call_rank(call: Call) -> int:
    """The last axis of the operand."""
    return len(call.source_shape) - 1


def _channel_shuffle(call: Call, layer: Any) -> None:
    batch, channels, *rest = call.shape
    split = (batch, layer.groups, channels // layer.groups, *rest)
    order = (0, 2, 1, *range(3, len(split)))
    swapped = tuple(split[axis] for axis in order)
    layers = (Reshape(split[1:]), Permute(order), Reshape((channels, *rest)))
    call.put_chain(layers, (split, swapped, call.shape))


def _pad_module(call: Call, layer: Any) -> None:
    _padded(call, tuple(layer.padding), float(layer.value))


def _pad(call: Call) -> None:
    """F.pad with a constant."""
    mode = call.argument(2, "constant", "mode")
    if mode != "constant":
        raise call.refused(f"padding mode {mode!r}", "padding with a constant")
    value = call.argument(3, None, "value")
    _padded(call, call.integers(1, "pad"), 0.0 if value is None else float(value))


def _padded(call: Call, pads: Sequence[int], value: float) -> None:
    """Pads as torch has them: before and behind, from the last axis on."""
    rank = len(call.source_shape)
    sides = [(0, 0)] * rank
    for index in range(len(pads) // 2):
        sides[rank - 1 - index] = (pads[2 * index], pads[2 * index + 1])
    if sides[0] != (0, 0) or min(count for pair in sides for count in pair) < 0:
        raise call.refused(f"padding by {tuple(pads)}", "pads from 0 on, and none of the batch")
    if not math.isfinite(value):
        raise call.refused(f"padding with {value}", "a finite number")
    call.put(Pad([a for a, _ in sides[1:]], [b for _, b in sides[1:]], value), call.source)


SETTLED: Mapping[type[nn.Module], Callable[[Call, Any], object]] = {
    **dict.fromkeys(ELEMENT_MODULES, _element_module),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d), _adaptive_max_pool),
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), _upsample),
    **dict.fromkeys((nn.Flatten, nn.Unflatten), _flatten_module),
    nn.ChannelShuffle: _channel_shuffle,
    **dict.fromkeys((nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d), _pad_module),
    **dict.fromkeys(
        (nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
        lambda call, layer: call.put(nn.Dropout(layer.p), call.source),
    ),
}
"""Modules for which other layers stand."""

MODULES: tuple[type[nn.Module], ...] = (*LAYERS, *(kind for kind in SETTLED if kind not in LAYERS))
"""Every module of torch that a model may hold."""


def settle_module(call: Call) -> None:
    """Put the layers in place that stand for a module, where it is not kept."""
    handler = SETTLED.get(type(call.layer))
    if handler is not None:
        handler(call, call.layer)


# --- functions


Build = Callable[[dict[str, Any]], nn.Module]


def _module(kind: Callable[..., nn.Module], *names: str) -> tuple[tuple[str, ...], Build]:
    """A layer whose constructor takes the function's arguments, but those that only say how to compute."""
    return names, lambda given: kind(**{k: v for k, v in given.items() if k not in ("training", "inplace")})


_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")

_AVG_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")

_RELU = _module(nn.ReLU, "inplace")

_SIGMOID = _module(nn.Sigmoid)

_TANH = _module(nn.Tanh)

FUNCTIONS: Mapping[Any, tuple[tuple[str, ...], Build]] = {
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), _RELU),
    F.relu6: _module(nn.ReLU6, "inplace"),
    F.leaky_relu: _module(nn.LeakyReLU, "negative_slope", "inplace"),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_"), _SIGMOID),
    **dict.fromkeys((F.tanh, torch.tanh, "tanh", "tanh_"), _TANH),
    F.silu: _module(nn.SiLU, "inplace"),
    F.mish: _module(nn.Mish, "inplace"),
    F.gelu: _module(nn.GELU, "approximate"),
    F.hardswish: _module(nn.Hardswish, "inplace"),
    F.hardsigmoid: _module(nn.Hardsigmoid, "inplace"),
    F.hardtanh: _module(nn.Hardtanh, "min_val", "max_val", "inplace"),
    F.elu: _module(nn.ELU, "alpha", "inplace"),
    F.selu: _module(nn.SELU, "inplace"),
    F.celu: _module(nn.CELU, "alpha", "inplace"),
    F.softplus: _module(nn.Softplus, "beta", "threshold"),
    F.softsign: _module(nn.Softsign),
    F.logsigmoid: _module(nn.LogSigmoid),
    F.tanhshrink: _module(nn.Tanhshrink),
    F.threshold: _module(nn.Threshold, "threshold", "value", "inplace"),
    **dict.fromkeys(
        (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
        _module(nn.Dropout, "p", "training", "inplace"),
    ),
    torch.dropout: _module(nn.Dropout, "p", "training"),
    F.max_pool1d: _module(nn.MaxPool1d, *_MAX_POOL),
    F.max_pool2d: _module(nn.MaxPool2d, *_MAX_POOL),
    torch.max_pool1d: _module(nn.MaxPool1d, *_MAX_POOL[:-1]),
    torch.max_pool2d: _module(nn.MaxPool2d, *_MAX_POOL[:-1]),
    F.avg_pool1d: _module(nn.AvgPool1d, *_AVG_POOL[:-1]),
    F.avg_pool2d: _module(nn.AvgPool2d, *_AVG_POOL),
    F.adaptive_avg_pool1d: _module(nn.AdaptiveAvgPool1d, "output_size"),
    F.adaptive_avg_pool2d: _module(nn.AdaptiveAvgPool2d, "output_size"),
    F.adaptive_max_pool1d: _module(nn.AdaptiveMaxPool1d, "output_size", "return_indices"),
    F.adaptive_max_pool2d: _module(nn.AdaptiveMaxPool2d, "output_size", "return_indices"),
    F.pixel_shuffle: _module(nn.PixelShuffle, "upscale_factor"),
    F.pixel_unshuffle: _module(nn.PixelUnshuffle, "downscale_factor"),
    F.channel_shuffle: _module(nn.ChannelShuffle, "groups"),
}
"""Functions and methods that a layer stands for, with the names of their arguments after the tensor."""

ELEMENT_CALLS: Mapping[Any, ElementFunction] = {
    **dict.fromkeys((torch.exp, "exp", "exp_"), functions.EXP),
    **dict.fromkeys((torch.abs, abs, operator.abs, "abs", "abs_"), functions.ABS),
    **dict.fromkeys((torch.erf, torch.special.erf, "erf"), functions.ERF),
    **dict.fromkeys((torch.square, "square"), functions.SQUARE),
}
"""Element-wise functions that torch has no module of."""


def _element_call(call: Call) -> None:
    call.put(Function(ELEMENT_CALLS[call.node.target]), call.source)


def _layer_call(call: Call) -> None:
    """A function that a layer stands for; the layer may then stand for others."""
    names, build = FUNCTIONS[call.node.target]
    given = dict(zip(names, call.node.args[1:], strict=False)) | dict(call.node.kwargs)
    given.pop("input", None)
    settle_module(replace(call, node=call.put(build(given), call.source)))


CALLS: Mapping[Any, Handler] = {
    **dict.fromkeys(FUNCTIONS, _layer_call),
    **dict.fromkeys(ELEMENT_CALLS, _element_call),
    **dict.fromkeys((torch.clamp, torch.clip, torch.clamp_min, torch.clamp_max), _clamp),
    **dict.fromkeys(("clamp", "clip", "clamp_", "clamp_min", "clamp_max"), _clamp),
    F.pad: _pad,
    **dict.fromkeys((F.interpolate, F.upsample), _interpolate),
}
"""Functions that modules stand for."""
