"""Sums, products and powers, with tensors and with constants; layers whose weights are given in the call."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812

from qhw.calls.call import Call, Handler, is_tensor, label
from qhw.layers import functions
from qhw.layers.arithmetic import Add, Affine, MatMul, Multiply, Subtract
from qhw.layers.elementwise import Normalize
from qhw.layers.functions import Function


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
        stretched = constant is not None and constant.dim() == len(shape) > 0 and constant.shape[0] != 1
        if constant is not None and (stretched or call.shape != shape):
            raise call.refused(
                f"a constant of shape {tuple(constant.shape)} beside a tensor of shape {shape}",
                "constants without a batch axis, that do not enlarge the tensor",
            )
    layer = Affine(gain, offset)
    first = call.module.get_submodule(str(source.target)) if source.op == "call_module" else None
    if isinstance(first, Affine) and first.is_fixed and layer.is_fixed and len(source.users) == 1:
        call.put(first.then(layer), source.all_input_nodes[0])
        call.module.graph.erase_node(source)
    elif _is_pixels(source) and _power_of_two(gain) is not None and offset is None:
        call.put(Normalize(exponent=_power_of_two(gain) or 0), source)
    else:
        call.put(layer, source)


def _is_pixels(source: fx.Node) -> bool:
    """Whether a node is an input that is whole pixels of 0..255."""
    return source.op == "placeholder" and bool(source.meta.get("pixels"))


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
            "two tensors with a batch axis and as many axes, 3 or more; or a tensor and a matrix",
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

BROADCASTING: Mapping[Any, Handler] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _sum(1)),
    **dict.fromkeys(
        (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_", "subtract"), _sum(-1)
    ),
    **dict.fromkeys(
        (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"), _multiply
    ),
    **dict.fromkeys(
        (operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide, "div", "div_"),
        _divide,
    ),
}
"""Calls that broadcast."""

CALLS: Mapping[Any, Handler] = {
    **BROADCASTING,
    **dict.fromkeys((operator.neg, torch.neg, "neg", "neg_"), _negative),
    **dict.fromkeys((operator.pow, torch.pow, "pow"), _power),
    **dict.fromkeys((operator.matmul, torch.matmul, torch.bmm, "matmul", "bmm"), _matmul),
    F.linear: _linear,
    F.conv1d: _convolution(nn.Conv1d, *_CONV),
    F.conv2d: _convolution(nn.Conv2d, *_CONV),
    F.conv_transpose1d: _convolution(nn.ConvTranspose1d, *_CONV_TRANSPOSE),
    F.conv_transpose2d: _convolution(nn.ConvTranspose2d, *_CONV_TRANSPOSE),
}
"""Arithmetic."""
