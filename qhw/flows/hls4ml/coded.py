"""Layers of the project's own, for operands of any formats: exact sums, rounded once at their end.

They carry out what hls4ml's layers cannot: products of minifloats, and of k-hot numbers without a multiplier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qhw.flows.hls4ml.carry import (
    Carried,
    FixedType,
    Stored,
    channels_last,
    check_width,
    listed,
    natural_order,
    scaled,
)
from qhw.flows.hls4ml.finish import Finish, exactly, requantised
from qhw.flows.hls4ml.folding import divisors
from qhw.flows.hls4ml.operands import has_encoder, operand_policy, stored_weights, weight_policy
from qhw.flows.hls4ml.plan import Kernel, Planner
from qhw.formats.modes import IntArray, Overflow
from qhw.graph import ir
from qhw.graph.ir import ExactGraph


def is_coded(graph: ExactGraph, node: ir.Node) -> bool:
    """Whether a node multiplies or adds operands of which one lists its codes."""
    operands = node.inputs[:2]
    return any(listed(graph.tensors[tensor]) is not None for tensor in operands)


def policy(x: Carried) -> str:
    """How the header library reads the elements of a tensor."""
    if x.format is not None:
        return operand_policy(x.format)
    return f"qhw::integer<{x.type.bits}, {'true' if x.type.signed else 'false'}>"


@dataclass(frozen=True)
class Sums:
    """Exact sums of products and a bias, as the accumulators count them.

    ``exponents``: those of a mantissa of 1, one or one per output; ``shift``: how far products move
    left.
    """

    accum: FixedType
    shift: int
    exponents: IntArray
    bias: IntArray


def _sums(
    planner: Planner, node: ir.Node, products: IntArray, results: IntArray, bias: IntArray, finest: IntArray
) -> Sums:
    """Accumulators for products in ``2**products``, a bias in ``2**finest``, and a result in ``2**results``.

    The shift is one for all outputs; where they differ, an accumulator is finer than its result by some bits.
    """
    exact, shifts = planner.exact(node), np.asarray(products - results)
    shift = int(shifts.max())
    exponents = np.asarray(products - shift)
    extra = int((results - exponents).max())
    check_width(planner.where(node), exact.bits + extra)
    accum = FixedType(exact.bits + extra, exact.signed, int(exponents.min()))
    return Sums(accum, shift, exponents, scaled(bias, finest - exponents))


def _finish(
    planner: Planner, node: ir.Node, sums: Sums, targets: IntArray, wanted: IntArray | None
) -> Finish:
    """How the sums end: in the Requant that alone reads them, if its exponents (``wanted``) can be given."""
    requant = planner.following(node)
    if requant is not None and wanted is not None and _absorbable(planner, requant):
        planner.absorbed.add(requant.name)
        return requantised(planner, requant, sums.accum, sums.exponents, wanted)
    return exactly(node.output, sums.accum, planner.exact(node), sums.exponents, targets)


def _absorbable(planner: Planner, requant: ir.Requant) -> bool:
    format = listed(planner.graph.tensors[requant.output])
    return requant.overflow is not Overflow.WRAP_SM and (format is None or has_encoder(format))


def _along(planner: Planner, tensor: str, axis: int) -> IntArray | None:
    """A tensor's exponents, one or one per index of ``axis``; None where they vary along another."""
    exponent = planner.graph.tensors[tensor].exponent
    return planner.exponents(tensor) if exponent.axis in (None, axis) else None


def sums_by_output(planner: Planner, node: ir.Node, axis: int, n_out: int) -> tuple[Sums, Finish]:
    """Sums and their end for a product with weights; ``axis`` of the result is the output channel."""
    x, weight = node.inputs[:2]
    products = planner.exponents(x) + planner.exponents(weight)
    results = planner.exponents(node.output)
    if len(node.inputs) > 2:
        bias, finest = planner.constant(node, 2).reshape(-1), planner.exponents(node.inputs[2])
    else:
        bias, finest = np.zeros(1, dtype=np.int64), results
    sums = _sums(planner, node, products, results, bias, finest)
    sums = replace(sums, bias=np.broadcast_to(sums.bias, (n_out,)))
    requant = planner.following(node)
    wanted = None if requant is None else _along(planner, requant.output, axis)
    return sums, _finish(planner, node, sums, results, wanted)


def _product_layer(
    planner: Planner,
    node: ir.Node,
    function: str,
    x: Carried,
    weight: IntArray,
    constants: dict[str, Any],
    axis: int,
    n_out: int,
    out: Carried,
) -> None:
    """Append a matvec or conv; ``weight`` is flat, output by output, as the kernel walks over it."""
    format = planner.graph.tensors[node.inputs[1]].format
    sums, finish = sums_by_output(planner, node, axis, n_out)
    n_param = max((stored.mantissas.size for stored in finish.arrays.values()), default=1)
    options = planner.reuse(node, weight.size // n_out, n_out, divisors(weight.size))
    kernel = Kernel(
        f"qhw::{function}<{{input_t}}, {{output_t}}, {{config}}>",
        f"qhw/{function}.h",
        {
            **constants,
            "reuse_factor": options["reuse_factor"],
            "product_shift": sums.shift,
            "n_param": n_param,
            **finish.constants,
        },
        {
            "x_format": policy(x),
            "w_format": weight_policy(format),
            "accum_t": sums.accum,
            "finish": f"qhw::{finish.operation}_op",
            **finish.types,
        },
        {
            "weight": stored_weights(format, weight),
            "bias": Stored.units(sums.bias),
            **{name: repeated(stored, n_param) for name, stored in finish.arrays.items()},
        },
    )
    out = replace(out, type=finish.type, format=finish.format)
    planner.finish(finish.tensor, planner.kernel(node, x, kernel, out, **options))


def repeated(stored: Stored, n: int) -> Stored:
    return replace(stored, mantissas=np.broadcast_to(stored.mantissas, (n,)))


def convolution(planner: Planner, node: ir.Conv) -> None:
    """A convolution with its padding, strides, dilations and groups, one matrix-vector product per window."""
    x = planner.channel_last(node, 0)
    weight, shape = planner.constant(node, 1), planner.graph.tensors[node.output].shape
    filters, _, *kernel = weight.shape
    constants = {
        "n_chan": x.dims[-1],
        "n_filt": filters,
        "n_group": node.groups,
        **window_2d(x.dims[:-1], shape[1:], kernel, node.strides, node.dilations, node.pads),
    }
    flat = np.moveaxis(weight, 1, -1).reshape(-1)
    order, dims = channels_last(shape)
    _product_layer(planner, node, "conv", x, flat, constants, 0, filters, Carried("", dims, order, x.type))


def window_2d(
    inside: tuple[int, ...],
    outside: tuple[int, ...],
    kernel: Any,
    strides: Any,
    dilations: Any,
    pads: Any,
) -> dict[str, int]:
    """A window's geometry with a height, 1 where there is one spatial axis."""
    rank, words = len(kernel), {}
    for i, axis in enumerate(("height", "width")):
        at = i - (2 - rank)
        here = at >= 0
        words[f"in_{axis}"] = inside[at] if here else 1
        words[f"out_{axis}"] = outside[at] if here else 1
        words[f"filt_{axis}"] = kernel[at] if here else 1
        words[f"stride_{axis}"] = strides[at] if here else 1
        words[f"dilation_{axis}"] = dilations[at] if here else 1
        begin, end = (("top", "bottom"), ("left", "right"))[i]
        words[f"pad_{begin}"] = pads[at] if here else 0
        words[f"pad_{end}"] = pads[at + rank] if here else 0
    return words


def matrix_product(planner: Planner, node: ir.MatMul) -> None:
    """A vector, or every row of a matrix, times a constant matrix."""
    weight, shape = planner.constant(node, 1), planner.graph.tensors[node.output].shape
    n_in, n_out = weight.shape
    x = planner.travelling(node, 0)
    if len(shape) == 1:
        out = Carried("", (n_out,), natural_order((n_out,)), x.type)
        constants = {"n_in": n_in, "n_out": n_out}
        flat = weight[x.order].T.reshape(-1)
        _product_layer(planner, node, "matvec", x, flat, constants, 0, n_out, out)
        return
    rows = int(np.prod(shape[:-1]))
    x = planner.arranged(node, x, natural_order((rows, n_in)), (rows, n_in))
    constants = {
        "n_chan": n_in,
        "n_filt": n_out,
        "n_group": 1,
        **window_2d((rows,), (rows,), (1,), (1,), (1,), (0, 0)),
    }
    out = Carried("", (rows, n_out), natural_order((rows, n_out)), x.type)
    _product_layer(planner, node, "conv", x, weight.T.reshape(-1), constants, len(shape) - 1, n_out, out)


def affine(planner: Planner, node: ir.Affine | ir.Mul, tensor: str, multiplier: IntArray, where: str) -> None:
    """A constant for every element (row-major) times it, plus the offset of an Affine.

    ``tensor`` is the computed operand, ``where`` the constant one.
    """
    x, shape = planner.carried[tensor], planner.graph.tensors[node.output].shape

    def exponents(name: str) -> IntArray:
        return planner.element_exponents(name, shape)[x.order]

    results = exponents(node.output)
    factor = _channelwise_exponents(planner, node, where, shape)[x.order]
    offset, finest = np.zeros(x.size, dtype=np.int64), results
    if isinstance(node, ir.Affine) and len(node.inputs) > 2:
        offset = channelwise(planner.constant(node, 2).reshape(-1), shape)[x.order]
        finest = _channelwise_exponents(planner, node, node.inputs[2], shape)[x.order]
    sums = _sums(planner, node, exponents(tensor) + factor, results, offset, finest)
    requant = planner.following(node)
    finish = _finish(planner, node, sums, results, None if requant is None else exponents(requant.output))
    format = planner.graph.tensors[where].format
    carried = planner.elementwise(
        node,
        x,
        "exact_affine",
        finish.type,
        {
            "multiplier": stored_weights(format, multiplier[x.order]),
            "offset": Stored.units(sums.bias),
            **{name: repeated(stored, x.size) for name, stored in finish.arrays.items()},
        },
        constants={"product_shift": sums.shift, **finish.constants},
        types={
            "x_format": policy(x),
            "w_format": weight_policy(format),
            "accum_t": sums.accum,
            "finish": f"qhw::{finish.operation}_op",
            **finish.types,
        },
        header="qhw/affine.h",
        format=finish.format,
    )
    planner.finish(finish.tensor, carried)


def channelwise(values: IntArray, shape: tuple[int, ...]) -> IntArray:
    """One value, or one per index of axis 0, for every element of ``shape``, row-major."""
    column = values.reshape(-1, *[1] * max(0, len(shape) - 1)) if shape else values.reshape(())
    return np.broadcast_to(column, shape).reshape(-1)


def _channelwise_exponents(planner: Planner, node: ir.Node, tensor: str, shape: tuple[int, ...]) -> IntArray:
    """The exponents of a constant operand for every element of the result."""
    if isinstance(node, ir.Mul):
        return planner.element_exponents(tensor, shape)
    return channelwise(planner.exponents(tensor), shape)


def merge(planner: Planner, node: ir.Add | ir.Mul, a: Carried, b: Carried, shifts: tuple[int, int]) -> None:
    """The sum or product of two computed tensors; ``shifts``: how far an Add moves each left."""
    b = planner.arranged(node, b, a.order, a.dims)
    shape, exact = planner.graph.tensors[node.output].shape, planner.exact(node)
    exponents = planner.element_exponents(node.output, shape)
    accum = replace(exact, exponent=int(exponents.min()))
    check_width(planner.where(node), accum.bits)
    sums = Sums(accum, 0, exponents, np.zeros(1, dtype=np.int64))
    requant, wanted = planner.following(node), None
    if requant is not None:
        wanted = planner.element_exponents(requant.output, shape)
        if np.unique(wanted - exponents).size > 1:
            wanted = None
    finish = _finish(planner, node, sums, exponents, wanted)
    operation = "add" if isinstance(node, ir.Add) else "multiply"
    moves = dict(zip(("a_shift", "b_shift"), shifts, strict=True)) if operation == "add" else {}
    kernel = Kernel(
        f"qhw::merge<qhw::{operation}_op, {{input0_t}}, {{input1_t}}, {{output_t}}, {{config}}>",
        "qhw/merge.h",
        {"n_in": a.size, "n_param": 1, **moves, **finish.constants},
        {
            "a_format": policy(a),
            "b_format": policy(b),
            "accum_t": accum,
            "finish": f"qhw::{finish.operation}_op",
            **finish.types,
        },
        finish.arrays,
    )
    out = replace(a, type=finish.type, format=finish.format)
    planner.finish(finish.tensor, planner.kernel(node, (a, b), kernel, out))
