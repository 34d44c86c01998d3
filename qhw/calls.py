"""Every call in a traced model becomes a call of a layer that conversion knows: one table entry per kind.

A model says the same in three ways, as a module, as a function and as a method of a tensor. Here each
becomes one layer (or a few): torch's own where :data:`LAYERS` has it, otherwise one of :mod:`qhw.layers`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812

from qhw.errors import UnsupportedError
from qhw.layers import functions
from qhw.layers.arithmetic import Add, Affine, Interpolate, MatMul, Multiply, Subtract, Total
from qhw.layers.elementwise import Normalize
from qhw.layers.functions import ElementFunction, Function
from qhw.layers.moves import Concat, Largest, Pad, Permute, Repeat, Reshape, Slice

LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Flatten,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Identity,
    Normalize,
)
"""Layers that stay what they are until conversion puts their quantised form in their place."""

OWN_LAYERS: tuple[type[nn.Module], ...] = (
    Add,
    Affine,
    Concat,
    Function,
    Interpolate,
    Largest,
    MatMul,
    Multiply,
    Pad,
    Permute,
    Repeat,
    Reshape,
    Slice,
    Subtract,
    Total,
)
"""What other calls become."""


# --- one call ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A node of the traced graph that calls something, and how to put layers in its place.

    Args:
        module, node: the graph and its node.
        batch: the size of the batch that shapes were found with.
        pixels: whether the model's input is whole pixels of 0..255.
        originals: the user's layers by path, before any was replaced.
    """

    module: fx.GraphModule
    node: fx.Node
    batch: int
    pixels: bool = False
    originals: Mapping[str, nn.Module] = field(default_factory=dict)

    @property
    def layer(self) -> nn.Module:
        """The layer that is called."""
        path = str(self.node.target)
        return self.originals.get(path) or self.module.get_submodule(path)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result, batch axis included."""
        return tuple(self.node.meta["shape"])

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def source(self) -> fx.Node:
        """The first operand, a tensor."""
        first = self.argument(0, None, "input", "tensor", "x")
        if not is_tensor(first):
            raise self.refused("its operand is a constant", "a tensor that depends on the input")
        node: fx.Node = first
        return node

    @property
    def source_shape(self) -> tuple[int, ...]:
        return tuple(self.source.meta["shape"])

    def argument(self, position: int, default: Any, *names: str) -> Any:
        """An argument, given by position or by any of its names; numbers that shapes give are filled in."""
        found = default
        if len(self.node.args) > position:
            found = self.node.args[position]
        else:
            found = next((self.node.kwargs[name] for name in names if name in self.node.kwargs), default)
        return _filled_in(found)

    def integers(self, position: int, *names: str) -> tuple[int, ...]:
        """Whole numbers, given one by one or as one sequence."""
        found = self.argument(position, (), *names)
        if isinstance(found, int):
            rest = [_filled_in(argument) for argument in self.node.args[position:]] or [found]
            return tuple(int(number) for number in rest)
        return tuple(int(number) for number in found or ())

    def axis(self, value: int, rank: int | None = None) -> int:
        """An axis from 0, which has to be another than the batch's."""
        rank = rank or len(self.source_shape)
        if value % rank == 0:
            raise self.refused("it works along the batch axis", "axes from 1 on")
        return value % rank

    def refused(self, what: str, allowed: str | None = None, hint: str | None = None) -> UnsupportedError:
        """The error that names the call."""
        return UnsupportedError(f"{place(self.node)}: {what}", allowed=allowed, hint=hint)

    def put(self, layer: nn.Module, *args: fx.Node, shape: Sequence[int] | None = None) -> fx.Node:
        """A call of a layer in place of this one."""
        node, module = self.node, self.module
        if node.op == "call_module":  # the first call of a layer keeps its path
            path = str(node.target)
            path = path if module.get_submodule(path) is self.layer else free_path(module, path)
        else:
            path = free_path(module, _join(_scope(node), label(node.target)))
        set_layer(module, path, layer)
        with module.graph.inserting_after(node):
            call = module.graph.call_module(path, args)
        call.meta = {"shape": tuple(node.meta["shape"] if shape is None else shape)}
        call.meta |= {key: node.meta[key] for key in ("nn_module_stack",) if key in node.meta}
        node.replace_all_uses_with(call)
        module.graph.erase_node(node)
        return call

    def put_chain(self, layers: Sequence[nn.Module], shapes: Sequence[Sequence[int]]) -> fx.Node:
        """Several layers, one after the other, in place of this call; the shape of each one's result."""
        first, *rest = layers
        call = self.put(first, self.source, shape=shapes[0])
        for layer, shape in zip(rest, shapes[1:], strict=True):
            call = append(self.module, call, layer, shape)
        return call

    def skip(self) -> None:
        """The operand itself in place of the call."""
        self.node.replace_all_uses_with(self.source)
        self.module.graph.erase_node(self.node)


def is_tensor(value: Any) -> bool:
    """Whether an argument is a tensor that depends on the model's input."""
    return isinstance(value, fx.Node) and "constant" not in value.meta and value.meta.get("shape") is not None


def _filled_in(value: Any) -> Any:
    return fx.map_arg(value, lambda node: node.meta["value"] if "value" in node.meta else node)


def append(module: fx.GraphModule, node: fx.Node, layer: nn.Module, shape: Sequence[int]) -> fx.Node:
    """A layer behind a node: whatever read the node reads the layer."""
    path = free_path(module, f"{node.target}_{type(layer).__name__.lower()}")
    set_layer(module, path, layer)
    with module.graph.inserting_after(node):
        call = module.graph.call_module(path, (node,))
    call.meta = {**node.meta, "shape": tuple(shape)}
    node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)
    return call


def before(module: fx.GraphModule, node: fx.Node, layer: nn.Module, shape: Sequence[int]) -> fx.Node:
    """A layer that reads a node, for one reader of it only."""
    path = free_path(module, f"{node.name}_{type(layer).__name__.lower()}")
    set_layer(module, path, layer)
    with module.graph.inserting_after(node):
        call = module.graph.call_module(path, (node,))
    call.meta = {"shape": tuple(shape)}
    return call


# --- the tables ----------------------------------------------------------------------------------------------

Handler = Callable[[Call], object]
Build = Callable[[dict[str, Any]], nn.Module]

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
    given = {
        name: _filled_in(value) for name, value in zip(names, call.node.args[1:], strict=False)
    } | {name: _filled_in(value) for name, value in call.node.kwargs.items()}
    given.pop("input", None)
    settle_module(replace(call, node=call.put(build(given), call.source)))


# --- modules that are not kept as they are


def _element_module(call: Call, layer: nn.Module) -> None:
    function = ELEMENT_MODULES[type(layer)](layer)
    if function is None:
        raise call.refused(f"{layer} cannot be converted", f"{type(layer).__name__} with torch's own settings")
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


def _interpolate(call: Call) -> None:
    """F.interpolate and F.upsample."""
    mode = call.argument(3, "nearest", "mode")
    if call.argument(6, False, "antialias"):
        raise call.refused("antialias", "antialias=False")
    _resized(call, mode, call.argument(4, None, "align_corners"))


def _flatten_module(call: Call, layer: nn.Flatten | nn.Unflatten) -> None:
    if isinstance(layer, nn.Flatten) and layer.start_dim == 1 and layer.end_dim in (-1, call_rank(call)):
        return
    _reshape(call)


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


def _pad(call: Call) -> None:
    """F.pad with a constant."""
    mode = call.argument(2, "constant", "mode")
    if mode != "constant":
        raise call.refused(f"padding mode {mode!r}", "padding with a constant")
    value = call.argument(3, None, "value")
    _padded(call, call.integers(1, "pad"), 0.0 if value is None else float(value))


SETTLED: Mapping[type[nn.Module], Callable[[Call, Any], None]] = {
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


# --- arithmetic


def _constant(call: Call, value: Any) -> Tensor:
    """A number, a parameter or a buffer that a tensor is combined with."""
    found = value.meta.get("constant") if isinstance(value, fx.Node) else value
    if isinstance(found, bool | int | float):
        return torch.tensor(float(found))
    if isinstance(found, Tensor) and found.is_floating_point():
        return found
    if isinstance(found, Tensor) and not found.is_complex():
        return found.float()
    raise call.refused(f"arithmetic with {found}", "tensors, and real constants")


def _changed(constant: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of a constant, computed in float64; of a parameter, a parameter."""
    value = function(constant.detach().double()).to(constant.dtype)
    return nn.Parameter(value, constant.requires_grad) if isinstance(constant, nn.Parameter) else value


def _affine(call: Call, source: fx.Node, gain: Tensor | None, offset: Tensor | None) -> None:
    """A constant factor or summand; those that follow each other become one, if none is trained."""
    shape = tuple(source.meta["shape"])
    for constant in (gain, offset):
        if constant is None:
            continue
        stretched = constant.dim() == len(shape) > 0 and constant.shape[0] != 1
        try:
            fits = torch.broadcast_shapes(constant.shape, shape) == shape
        except RuntimeError:
            fits = False
        if stretched or not fits:
            raise call.refused(
                f"a constant of shape {tuple(constant.shape)} beside a tensor of shape {shape}",
                "constants without a batch axis, that do not enlarge the tensor",
            )
    layer = Affine(gain, offset)
    first = call.module.get_submodule(str(source.target)) if source.op == "call_module" else None
    if isinstance(first, Affine) and first.is_fixed and layer.is_fixed and len(source.users) == 1:
        call.put(first.then(layer), source.all_input_nodes[0])
        call.module.graph.erase_node(source)
    elif call.pixels and source.op == "placeholder" and _power_of_two(gain) is not None and offset is None:
        call.put(Normalize(exponent=_power_of_two(gain) or 0), source)
    else:
        call.put(layer, source)


def _power_of_two(factor: Tensor | None) -> int | None:
    if factor is None or factor.dim() or isinstance(factor, nn.Parameter):
        return None
    mantissa, exponent = math.frexp(float(factor))
    return exponent - 1 if mantissa == 0.5 else None


def _operands(call: Call) -> tuple[Any, Any]:
    operands = call.argument(0, None, "input"), call.argument(1, None, "other")
    if not any(is_tensor(operand) for operand in operands):
        raise call.refused("both operands are constants", "a tensor that depends on the input")
    return operands


def _check_broadcast(call: Call, operands: tuple[fx.Node, fx.Node]) -> None:
    shapes = [tuple(operand.meta["shape"]) for operand in operands]
    if len(shapes[0]) != len(shapes[1]) or call.shape not in shapes:
        raise call.refused(
            f"{label(call.node.target)} of shapes {shapes[0]} and {shapes[1]}",
            "two tensors of one shape, or one with axes of length 1 where the other is longer",
        )


def _sum(sign: int) -> Handler:
    kind = Add if sign > 0 else Subtract

    def handler(call: Call) -> None:
        """a + b or a - b: of two tensors, or of a tensor and a constant."""
        a, b = _operands(call)
        alpha = float(call.argument(2, 1, "alpha"))
        if is_tensor(a) and is_tensor(b):
            if alpha != 1:
                raise call.refused(f"alpha={alpha}", "alpha=1")
            _check_broadcast(call, (a, b))
            call.put(kind(), a, b)
        elif is_tensor(a):
            constant = _constant(call, b)
            _affine(call, a, None, _changed(constant, lambda value: value * (sign * alpha)))
        else:
            factor = sign * alpha
            _affine(call, b, None if factor == 1 else torch.tensor(factor), _constant(call, a))

    return handler


def _multiply(call: Call) -> None:
    a, b = _operands(call)
    if is_tensor(a) and is_tensor(b):
        if a is b:
            call.put(Function(functions.SQUARE), a)
            return
        _check_broadcast(call, (a, b))
        call.put(Multiply(), a, b)
    else:
        source, constant = (a, b) if is_tensor(a) else (b, a)
        _affine(call, source, _constant(call, constant), None)


def _divide(call: Call) -> None:
    a, b = _operands(call)
    if call.argument(2, None, "rounding_mode") is not None:
        raise call.refused("a division that rounds", "a division by a constant, not rounded")
    if is_tensor(b):
        raise call.refused(
            "a division by a tensor",
            "a division by a constant",
            hint="multiply by a function of bounded values instead (a sigmoid, for a gate)",
        )
    divisor = _constant(call, b)
    if bool((divisor == 0).any()):
        raise call.refused("a division by zero", "constants other than 0")
    _affine(call, a, _changed(divisor, torch.reciprocal), None)


def _negative(call: Call) -> None:
    _affine(call, call.source, torch.tensor(-1.0), None)


def _power(call: Call) -> None:
    base, exponent = call.argument(0, None, "input"), call.argument(1, None, "exponent")
    if not is_tensor(base) or exponent != 2:
        raise call.refused(f"a power of {exponent}", "squares")
    call.put(Function(functions.SQUARE), base)


def _clamp(call: Call) -> None:
    bounds = call.argument(1, None, "min"), call.argument(2, None, "max")
    if call.node.target in ("clamp_min", torch.clamp_min):
        bounds = (bounds[0], None)
    if call.node.target in ("clamp_max", torch.clamp_max):
        bounds = (None, call.argument(1, None, "max"))
    if any(isinstance(bound, fx.Node) for bound in bounds):
        raise call.refused("bounds that are tensors", "numbers")
    _bounded(call, *bounds)


def _matmul(call: Call) -> None:
    a, b = call.argument(0, None, "input"), call.argument(1, None, "other", "mat2")
    if is_tensor(a) and not is_tensor(b):
        weight = _constant(call, b)
        if weight.dim() == 2:
            _linear_layer(call, a, weight.T, None)
            return
    ranks = [len(operand.meta["shape"]) for operand in (a, b) if is_tensor(operand)]
    if len(ranks) < 2 or ranks[0] != ranks[1] or ranks[0] < 3:
        raise call.refused(
            "a matrix product of these operands",
            "two tensors with the batch axis and the same number of axes, 3 or more; or a tensor and a matrix",
        )
    call.put(MatMul(), a, b)


def _linear_layer(call: Call, x: fx.Node, weight: Tensor, bias: Tensor | None) -> None:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    _take(layer, weight, bias)
    call.put(layer, x)


def _take(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)


def _parameters(call: Call) -> tuple[Tensor, Tensor | None]:
    """The weight and bias of F.linear and F.conv…, which have to be the model's own."""
    weight, bias = call.argument(1, None, "weight"), call.argument(2, None, "bias")
    if is_tensor(weight) or is_tensor(bias):
        raise call.refused("weights that are computed", "parameters of the model")
    return _constant(call, weight), None if bias is None else _constant(call, bias)


def _linear(call: Call) -> None:
    _linear_layer(call, call.source, *_parameters(call))


def _convolution(kind: Any, *names: str) -> Handler:
    def handler(call: Call) -> None:
        """F.conv… with a weight of the model."""
        weight, bias = _parameters(call)
        settings = {
            name: value
            for position, name in enumerate(names, 3)
            if (value := call.argument(position, None, name)) is not None
        }
        groups = settings.get("groups", 1)
        sides = (weight.shape[1] * groups, weight.shape[0])
        inputs, outputs = sides if not kind.__name__.startswith("ConvT") else (weight.shape[0], sides[0])
        layer = kind(inputs, outputs, tuple(weight.shape[2:]), bias=bias is not None, **settings)
        _take(layer, weight, bias)
        call.put(layer, call.source)

    return handler


_CONV = ("stride", "padding", "dilation", "groups")
_CONV_TRANSPOSE = ("stride", "padding", "output_padding", "groups", "dilation")


# --- shapes


def kept_batch(call: Call, shape: Sequence[int] | None = None) -> tuple[int, ...]:
    """A result's shape without the batch axis, which has to be in front."""
    shape = call.shape if shape is None else tuple(shape)
    if len(shape) < 2 or shape[0] != call.batch:
        raise call.refused(
            f"a reshape to {tuple(shape)} that does not keep the batch axis",
            hint="use flatten(1), or reshape(x.shape[0], …)",
        )
    return tuple(shape[1:])


def _reshape(call: Call) -> None:
    call.put(Reshape(kept_batch(call)), call.source)


def _permute(call: Call) -> None:
    """permute, transpose, movedim and the like: the order is found by moving numbers."""
    rank = len(call.source_shape)
    probe = torch.empty(tuple(range(2, rank + 2)))
    target = call.node.target
    args = _filled_in(call.node.args[1:])
    kwargs = {key: _filled_in(value) for key, value in call.node.kwargs.items() if key != "input"}
    if target is getattr:
        moved = getattr(probe, str(args[0]))
    else:
        moved = getattr(probe, target)(*args, **kwargs) if isinstance(target, str) else target(probe, *args, **kwargs)
    order = tuple(size - 2 for size in moved.shape)
    if order[0] != 0:
        raise call.refused(f"the order {order} of axes moves the batch axis", "axis 0 in front")
    call.put(Permute(order), call.source)


def _concat(call: Call) -> None:
    tensors = call.argument(0, (), "tensors")
    axis = call.argument(1, 0, "dim", "axis")
    if not all(is_tensor(tensor) for tensor in tensors):
        raise call.refused("a concatenation with constants", "tensors that depend on the input")
    if axis % call.rank == 0:
        raise call.refused("a concatenation along the batch", "axis 1 and up")
    call.put(Concat(axis % call.rank), *tensors)


def _stack(call: Call) -> None:
    tensors = call.argument(0, (), "tensors")
    axis = call.argument(1, 0, "dim", "axis") % call.rank
    if axis == 0 or not all(is_tensor(tensor) for tensor in tensors):
        raise call.refused("a stack along the batch, or of constants", "axis 1 and up")
    shape = (*call.shape[:axis], 1, *call.shape[axis + 1 :])
    parts = [before(call.module, tensor, Reshape(shape[1:]), shape) for tensor in tensors]
    call.put(Concat(axis), *parts)


def _getitem(call: Call) -> None:
    """Slices of a tensor, parts of a split, values of a maximum."""
    source, index = call.node.args
    assert isinstance(source, fx.Node)
    if source.target in PARTS:
        PARTS[source.target](call, Call(call.module, source, call.batch), index)
    else:
        _sliced(call, _filled_in(index))


def _sliced(call: Call, index: Any) -> None:
    items = list(index) if isinstance(index, tuple) else [index]
    if any(not (isinstance(item, int | slice) or item is None or item is Ellipsis) for item in items):
        raise call.refused(f"the index {index}", "whole numbers, slices, None and … with constant bounds")
    named = sum(item is not None and item is not Ellipsis for item in items)
    rank = len(call.source_shape)
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (rank - named)
    layers: list[tuple[nn.Module, tuple[int, ...]]] = []
    shape, axis = list(call.source_shape), 0
    for item in items:
        if item is None:
            continue
        size = shape[axis]
        start, stop, step = (item % size, item % size + 1, 1) if isinstance(item, int) else item.indices(size)
        if (start, stop, step) != (0, size, 1):
            if axis == 0 or step < 1 or stop <= start:
                raise call.refused(f"the index {index}", "axes behind the batch's, steps from 1 on")
            shape[axis] = len(range(start, stop, step))
            layers.append((Slice(axis, start, stop, step), tuple(shape)))
        axis += 1
    if tuple(shape) != call.shape or not layers:
        layers.append((Reshape(kept_batch(call)), call.shape))
    call.put_chain([layer for layer, _ in layers], [size for _, size in layers])


def _part(call: Call, whole: Call, index: int) -> None:
    """One part of split, chunk or unbind."""
    axis = whole.axis(int(whole.argument(2, 0, "dim", "axis")))
    sizes = [shape[axis] for shape in whole.node.meta["parts"]]
    start = sum(sizes[: index % len(sizes)])
    call.node.args = (whole.source,)
    call.put(Slice(axis, start, start + sizes[index]), whole.source)


def _unbound(call: Call, whole: Call, index: int) -> None:
    axis = whole.axis(int(whole.argument(1, 0, "dim")))
    place_ = index % whole.source_shape[axis]
    call.node.args = (whole.source,)
    cut = (*call.shape[:axis], 1, *call.shape[axis:])
    call.put_chain((Slice(axis, place_, place_ + 1), Reshape(kept_batch(call))), (cut, call.shape))


def _maximum_of(call: Call, whole: Call, index: Any) -> None:
    """The values of ``x.max(dim)``."""
    if index not in (0, "values"):
        raise call.refused("the places of maxima", "their values")
    axes = (int(whole.argument(1, 0, "dim")),)
    keep = bool(whole.argument(2, False, "keepdim"))
    call.node.args = (whole.source,)
    _reduced(call, axes, keep, lambda found: Largest(found))


PARTS: Mapping[Any, Callable[[Call, Call, Any], None]] = {
    **dict.fromkeys((torch.split, torch.chunk, "split", "chunk", "split_with_sizes"), _part),
    **dict.fromkeys((torch.unbind, "unbind"), _unbound),
    **dict.fromkeys((torch.max, "max"), _maximum_of),
}
"""Calls whose results are several tensors, and what one of them becomes."""


def _select(call: Call) -> None:
    axis, index = (int(call.argument(i, 0, name)) for i, name in ((1, "dim"), (2, "index")))
    axis = call.axis(axis)
    size = call.source_shape[axis]
    cut = (*call.shape[:axis], 1, *call.shape[axis:])
    layers = (Slice(axis, index % size, index % size + 1), Reshape(kept_batch(call)))
    call.put_chain(layers, (cut, call.shape))


def _narrow(call: Call) -> None:
    axis, start, length = (int(call.argument(i, 0, n)) for i, n in ((1, "dim"), (2, "start"), (3, "length")))
    call.put(Slice(call.axis(axis), start, start + length), call.source)


def _attribute(call: Call) -> None:
    """x.T, x.mT, and the values of a maximum."""
    source, name = call.node.args
    assert isinstance(source, fx.Node)
    if source.target in PARTS:
        PARTS[source.target](call, Call(call.module, source, call.batch), name)
    elif name in ("mT", "T", "mH", "H"):
        _permute(call)
    else:
        raise call.refused(f"attribute {name!r} of a tensor", "shape and mT")


def _expand(call: Call) -> None:
    """Nothing, where arithmetic follows that broadcasts anyway."""
    if len(call.shape) != len(call.source_shape) or any(
        user.target not in ARITHMETIC for user in call.node.users
    ):
        raise call.refused("an expanded tensor", "expand in front of an addition or a product, which broadcast")
    call.skip()


def _repeat(call: Call) -> None:
    """The whole tensor so many times along each axis."""
    factors = call.integers(1, "repeats", "dims")
    shape = list(call.source_shape)
    if len(factors) != len(shape) or factors[0] != 1:
        raise call.refused(f"repeat{factors}", "one number for each axis, 1 for the batch")
    node = call.source
    last = [axis for axis, factor in enumerate(factors) if factor > 1]
    for axis in last[:-1]:
        shape[axis] *= factors[axis]
        path = free_path(call.module, f"{node.name}_concat")
        set_layer(call.module, path, Concat(axis))
        with call.module.graph.inserting_before(call.node):
            node = call.module.graph.call_module(path, (node,) * factors[axis])
        node.meta = {"shape": tuple(shape)}
    if last:
        call.put(Concat(last[-1]), *(node,) * factors[last[-1]])
    else:
        call.skip()


def _repeat_interleave(call: Call) -> None:
    count, axis = call.argument(1, None, "repeats"), call.argument(2, None, "dim")
    rank = len(call.source_shape)
    if not isinstance(count, int) or axis is None or rank not in (3, 4) or axis % rank < 2:
        raise call.refused("repeat_interleave", "a whole number, along a spatial axis")
    call.put(Repeat([count if i == axis % rank else 1 for i in range(2, rank)]), call.source)


# --- reductions


def _reduced(
    call: Call, axes: Sequence[int], keep: bool, over: Callable[[tuple[int, ...]], nn.Module]
) -> None:
    """A layer that reduces axes to length 1, and a reshape behind it where they do not stay."""
    shape = call.source_shape
    found = tuple(sorted({axis % len(shape) for axis in axes}))
    if not found or 0 in found:
        raise call.refused(f"{label(call.node.target)} over axes {tuple(axes)}", "axes from 1 on, named")
    reduced = tuple(1 if axis in found else size for axis, size in enumerate(shape))
    result = call.shape
    node = call.put(over(found), call.source, shape=reduced)
    if not keep:
        if len(result) < 2:
            raise call.refused("a result of one number for each sample", "keepdim=True for the last axis")
        path = free_path(call.module, f"{node.target}_flatten")
        set_layer(call.module, path, Reshape(result[1:]))
        with call.module.graph.inserting_after(node):
            flat = call.module.graph.call_module(path, (node,))
        flat.meta = {**node.meta, "shape": result}
        node.replace_all_uses_with(flat, delete_user_cb=lambda user: user is not flat)


def _axes_of(call: Call) -> tuple[tuple[int, ...], bool]:
    axes = call.argument(1, (), "dim", "axis")
    axes = (axes,) if isinstance(axes, int) else tuple(axes or ())
    return axes, bool(call.argument(2, False, "keepdim"))


def _spatial(call: Call, axes: Sequence[int]) -> bool:
    rank = len(call.source_shape)
    return rank in (3, 4) and {axis % rank for axis in axes} == set(range(2, rank))


def _mean(call: Call) -> None:
    """A mean over every spatial axis is a global average pool."""
    axes, keep = _axes_of(call)
    if _spatial(call, axes):
        pool = nn.AdaptiveAvgPool1d(1) if len(call.source_shape) == 3 else nn.AdaptiveAvgPool2d(1)
        _reduced(call, axes, keep, lambda found: pool)
    else:
        _reduced(call, axes, keep, lambda found: Total(found, mean=True))


def _total(call: Call) -> None:
    axes, keep = _axes_of(call)
    _reduced(call, axes, keep, Total)


def _largest(call: Call) -> None:
    """A maximum over every spatial axis is a global maximum pool."""
    axes, keep = _axes_of(call)
    shape = call.source_shape
    if _spatial(call, axes):
        pool = nn.MaxPool1d(shape[2]) if len(shape) == 3 else nn.MaxPool2d(shape[2:])
        _reduced(call, axes, keep, lambda found: pool)
    else:
        _reduced(call, axes, keep, Largest)


def _cast(call: Call) -> None:
    """Nothing, where the numbers stay floats."""
    if not call.node.meta["floating"]:
        raise call.refused("numbers become integers", "floating-point types")
    call.skip()


ARITHMETIC: Mapping[Any, Handler] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _sum(1)),
    **dict.fromkeys(
        (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_", "subtract"), _sum(-1)
    ),
    **dict.fromkeys(
        (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"), _multiply
    ),
    **dict.fromkeys(
        (operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide, "div", "div_"), _divide
    ),
}
"""Calls that broadcast."""

HANDLERS: Mapping[Any, Handler] = {
    **dict.fromkeys(FUNCTIONS, _layer_call),
    **dict.fromkeys(ELEMENT_CALLS, _element_call),
    **ARITHMETIC,
    **dict.fromkeys((operator.neg, torch.neg, "neg", "neg_"), _negative),
    **dict.fromkeys((operator.pow, torch.pow, "pow"), _power),
    **dict.fromkeys((torch.clamp, torch.clip, torch.clamp_min, torch.clamp_max), _clamp),
    **dict.fromkeys(("clamp", "clip", "clamp_", "clamp_min", "clamp_max"), _clamp),
    **dict.fromkeys((operator.matmul, torch.matmul, torch.bmm, "matmul", "bmm"), _matmul),
    F.linear: _linear,
    F.conv1d: _convolution(nn.Conv1d, *_CONV),
    F.conv2d: _convolution(nn.Conv2d, *_CONV),
    F.conv_transpose1d: _convolution(nn.ConvTranspose1d, *_CONV_TRANSPOSE),
    F.conv_transpose2d: _convolution(nn.ConvTranspose2d, *_CONV_TRANSPOSE),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _concat),
    torch.stack: _stack,
    **dict.fromkeys((torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten), _reshape),
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous"), _reshape),
    **dict.fromkeys(("unflatten", "view_as", "reshape_as"), _reshape),
    **dict.fromkeys((torch.permute, torch.transpose, torch.movedim, torch.moveaxis), _permute),
    **dict.fromkeys((torch.swapaxes, torch.swapdims), _permute),
    **dict.fromkeys(("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims"), _permute),
    operator.getitem: _getitem,
    getattr: _attribute,
    **dict.fromkeys((torch.select, "select"), _select),
    **dict.fromkeys((torch.narrow, "narrow"), _narrow),
    **dict.fromkeys(("expand", "expand_as", torch.broadcast_to), _expand),
    **dict.fromkeys(("repeat", torch.tile, "tile"), _repeat),
    **dict.fromkeys((torch.repeat_interleave, "repeat_interleave"), _repeat_interleave),
    F.pad: _pad,
    **dict.fromkeys((F.interpolate, F.upsample), _interpolate),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((torch.sum, "sum"), _total),
    **dict.fromkeys((torch.amax, "amax"), _largest),
    **dict.fromkeys(("float", "double", "to", "type_as", "clone", torch.clone), _cast),
}
"""What stands for a function or a method."""

SIZES: frozenset[Any] = frozenset({"size", "dim", "numel", getattr, operator.getitem, len}) | {
    operator.add,
    operator.sub,
    operator.mul,
    operator.floordiv,
    operator.truediv,
    operator.mod,
    operator.neg,
    operator.pow,
}
"""How models compute with shapes; nothing is left of it once the layers know theirs."""


def to_layers(module: fx.GraphModule, batch: int, pixels: bool) -> None:
    """Put layers in place of every call of a graph whose nodes have their shapes."""
    originals = dict(module.named_modules())
    for node in list(module.graph.nodes):
        if "constant" not in node.meta:
            to_layer(Call(module, node, batch, pixels, originals))


def to_layer(call: Call) -> None:
    """Put layers in place of a call.

    Raises:
        UnsupportedError: none stands for it; the message names the module whose forward() made the call.
    """
    node = call.node
    if node.op == "call_module":
        node.args, node.kwargs = (*node.args, *node.kwargs.values()), {}
        settle_module(call)
        return
    if node.op not in ("call_function", "call_method") or (node.target in PARTS and "parts" in node.meta):
        return
    if node.meta["shape"] is None:
        if node.target not in SIZES or "value" not in node.meta:
            raise unsupported(node, label(node.target))
        return
    handler = HANDLERS.get(node.target)
    if handler is None:
        raise unsupported(node, label(node.target))
    handler(call)


# --- names


def free_path(module: nn.Module, wanted: str) -> str:
    """The wanted path, or the first numbered one that no submodule has."""
    taken = {path for path, _ in module.named_modules()}
    return next(path for path in numbered(wanted) if path not in taken)


def numbered(name: str) -> Any:
    """A name, and what it becomes where it is taken: ``relu``, ``relu_1``, ``relu_2``…"""
    yield name
    number = 1
    while True:
        yield f"{name}_{number}"
        number += 1


def set_layer(module: fx.GraphModule, path: str, layer: nn.Module) -> None:
    """Put a layer at a path, making the modules on the way as needed."""
    module.add_submodule(path, layer)


def label(target: Any) -> str:
    """What a call is called in paths and messages."""
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    known = {"iadd": "add", "cat": "concat", "fn": "pool", "imul": "mul", "isub": "sub", "getitem": "slice"}
    name = known.get(name, name)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def place(node: fx.Node) -> str:
    """Which layer of the user's model a node is, for messages."""
    if node.op == "call_module":
        return f"layer {node.target}"
    return f"module {_scope(node) or '(the model itself)'}, {label(node.target)}"


def _scope(node: fx.Node) -> str:
    """The path of the module whose forward() made the call."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(next(reversed(stack.values()))[0]) if stack else ""


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


HINTS = {
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "softmax", "log_softmax", "Softmin", "Softmax2d"),
        "leave it out of the model: the largest logit stays the largest",
    ),
    **dict.fromkeys(
        ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"),
        "a state that is carried on has no place in the exact graph: use nn.Conv1d with dilation in its place",
    ),
    **dict.fromkeys(
        ("MultiheadAttention", "TransformerEncoderLayer", "TransformerEncoder", "Transformer"),
        "its softmax and layer norm divide by computed numbers: mix positions by nn.Conv1d, or by nn.Linear "
        "over a transposed tensor",
    ),
    "scaled_dot_product_attention": "its softmax divides by computed numbers: mix positions by nn.Conv1d",
    **dict.fromkeys(
        ("Embedding", "EmbeddingBag", "embedding"),
        "it looks whole numbers up: give the model one-hot vectors, and nn.Linear(…, bias=False) in its place",
    ),
    **dict.fromkeys(
        ("LayerNorm", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "RMSNorm", "LocalResponseNorm")
        + ("layer_norm", "group_norm", "instance_norm"),
        "it divides by statistics of its own input: use nn.BatchNorm1d or nn.BatchNorm2d, whose numbers are "
        "known after training",
    ),
    **dict.fromkeys(
        ("Conv3d", "ConvTranspose3d", "MaxPool3d", "AvgPool3d", "BatchNorm3d", "AdaptiveAvgPool3d"),
        "use the two-dimensional kind, with depth among the channels",
    ),
    **dict.fromkeys(
        ("ReflectionPad2d", "ReplicationPad2d", "ReflectionPad1d", "ReplicationPad1d", "CircularPad2d"),
        "pad with zeros (nn.ZeroPad2d)",
    ),
    "item": "the conversion needs a graph that is the same for every input",
    "einsum": "use torch.matmul",
    **dict.fromkeys(("sqrt", "log", "rsqrt", "reciprocal"), "it is unbounded near 0: use a bounded function"),
}
"""What to do about some of the kinds that cannot be converted."""

SUPPORTED = (
    f"{', '.join(dict.fromkeys(kind.__name__.removesuffix('1d').removesuffix('2d') for kind in LAYERS))} and "
    "element-wise functions, 1D and 2D; sums, products, concatenation, slices, permutations, reshapes, padding, "
    "upsampling, reductions over axes; and the functions and methods that say the same"
)
"""What a model may be made of, for messages."""


def unsupported(node: fx.Node, kind: str) -> UnsupportedError:
    """The error for a kind that cannot be converted."""
    return UnsupportedError(f"{place(node)}: {kind} cannot be converted", allowed=SUPPORTED, hint=HINTS.get(kind))
