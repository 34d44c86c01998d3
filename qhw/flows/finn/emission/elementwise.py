"""Sums, products and scalings, element by element."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qhw.flows.finn.carried import Carried
from qhw.flows.finn.emission.draft import Draft, is_streamed, refused
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.infer import requant_bounds


def _exponents(draft: Draft, name: str, node: ir.Node) -> IntArray:
    """Exponents of a tensor, one or per channel."""
    exponent = draft.graph.tensors[name].exponent
    if exponent.axis not in (None, 0):
        raise refused(node, f"'{name}' has an exponent per index of axis {exponent.axis}, not of the channel")
    return np.array(exponent.values, dtype=object)


def _constant_row(draft: Draft, name: str, node: ir.Node) -> IntArray:
    """A constant operand as one number or one per channel."""
    value = draft.graph.constants[name].astype(object)
    rank = len(draft.graph.tensors[node.output].shape)
    aligned = value.reshape((1,) * (rank - value.ndim) + value.shape)
    if aligned.size > 1 and aligned.size != aligned.shape[0]:
        raise refused(node, f"its constant '{name}' {value.shape} varies along other axes than the channel")
    return aligned.reshape(-1)


def _shifted(draft: Draft, node: ir.Node, index: int) -> Carried | IntArray:
    """An operand at the result's exponent: a constant's numbers, or a tensor multiplied by powers of two."""
    name = node.inputs[index]
    by = _exponents(draft, name, node) - _exponents(draft, node.output, node)
    factors = np.array([1 << int(shift) for shift in by], dtype=object)
    if name in draft.graph.constants:
        row: IntArray = _constant_row(draft, name, node) * factors
        return row
    plain = draft.plain(node, index, any_layout=True)
    return _scaled(draft, node, plain, factors, f"{node.output}_operand{index}")


def _scaled(draft: Draft, node: ir.Node, carried: Carried, factors: IntArray, name: str) -> Carried:
    if (factors == 1).all():
        return carried
    factor = draft.constant(f"{name}_factor", draft.per_element(carried, factors, node), node)
    result = draft.tensor(name, draft.shape(carried.name), "INT32")
    draft.node("Mul", [carried.name, factor], [result], node)
    return replace(carried, name=result)


def _add(draft: Draft, node: ir.Node) -> None:
    first, second = (_shifted(draft, node, index) for index in (0, 1))
    if not isinstance(first, Carried):
        first, second = second, first
    assert isinstance(first, Carried)
    output = draft.result(node, first)
    if isinstance(second, Carried):
        _check_alike(first, second, node)
        draft.node("Add", [first.name, second.name], [output], node)
    else:
        bias = draft.constant(f"{node.name}_bias", draft.per_element(first, second, node), node)
        draft.node("Add", [first.name, bias], [output], node)
    draft.carry(node.output, output, order=first.order, axes=first.axes)


def _mul(draft: Draft, node: ir.Node) -> None:
    constant = next((i for i in (1, 0) if node.inputs[i] in draft.graph.constants), None)
    if constant is not None:
        x = draft.plain(node, 1 - constant, any_layout=True)
        factors = _constant_row(draft, node.inputs[constant], node)
        _check_read(draft, node)
        _multiplied(draft, node, x, factors)
        return
    first, second = (draft.plain(node, index, any_layout=True) for index in (0, 1))
    _check_alike(first, second, node)
    _check_read(draft, node)
    output = draft.result(node, first)
    draft.node("Mul", [first.name, second.name], [output], node)
    draft.carry(node.output, output, order=first.order, axes=first.axes)


def _check_read(draft: Draft, node: ir.Node) -> None:
    for name in node.inputs:
        format = draft.graph.tensors[name].format
        if not is_streamed(format):
            raise refused(
                node, f"it multiplies numbers of {format}, FINN's units integers", "use --flow hls4ml"
            )


def _check_alike(first: Carried, second: Carried, node: ir.Node) -> None:
    orders = first.order, second.order
    same = orders[0] is orders[1] or (None not in orders and np.array_equal(*orders))  # type: ignore[arg-type]
    if first.shape != second.shape or first.axes != second.axes or not same:
        raise refused(
            node, f"it joins tensors {first.shape} and {second.shape}, which travel in different orders"
        )


def _multiplied(draft: Draft, node: ir.Node, x: Carried, factors: IntArray) -> None:
    factor = draft.constant(f"{node.name}_multiplier", draft.per_element(x, factors, node), node)
    output = draft.result(node, x)
    draft.node("Mul", [x.name, factor], [output], node)
    draft.carry(node.output, output, order=x.order, axes=x.axes)


def _affine(draft: Draft, node: ir.Node) -> None:
    x = draft.plain(node, any_layout=True)
    _check_read(draft, node)
    out = _exponents(draft, node.output, node)
    by = _exponents(draft, node.inputs[0], node) + _exponents(draft, node.inputs[1], node) - out
    multiplier = draft.graph.constants[node.inputs[1]].reshape(-1).astype(object)
    factors = multiplier * np.array([1 << int(shift) for shift in by], dtype=object)
    if len(node.inputs) == 2:
        _multiplied(draft, node, x, factors)
        return
    scaled = _scaled(draft, node, x, factors, f"{node.output}_product")
    by = _exponents(draft, node.inputs[2], node) - out
    offset = draft.graph.constants[node.inputs[2]].reshape(-1).astype(object)
    offsets = offset * np.array([1 << int(shift) for shift in by], dtype=object)
    bias = draft.constant(f"{node.name}_offset", draft.per_element(x, offsets, node), node)
    output = draft.result(node, x)
    draft.node("Add", [scaled.name, bias], [output], node)
    draft.carry(node.output, output, order=x.order, axes=x.axes)


def _requant(draft: Draft, node: ir.Node) -> None:
    """An exact change of exponent alone; what rounds or clips has become thresholds."""
    assert isinstance(node, ir.Requant)
    kind = draft.graph.tensors[node.output]
    by = _exponents(draft, node.inputs[0], node) - _exponents(draft, node.output, node)
    low, high = draft.ranges[node.inputs[0]].bounds
    shift = max(int(most) for most in by)
    least, most = requant_bounds(node, kind)
    fits = low << max(shift, 0) >= least and high << max(shift, 0) <= most
    if any(step < 0 for step in by) or not fits:
        raise refused(
            node,
            f"it rounds to {kind.format.width} bits; FINN's thresholds are practical up to 8, and it has no "
            f"exact unit for more",
            "give the results of this layer at most 8 bits, or use --flow hls4ml",
        )
    if not is_streamed(kind.format):
        raise refused(
            node,
            f"its results are numbers of {kind.format}, FINN streams integers",
            "use --flow hls4ml for it",
        )
    x = draft.plain(node, any_layout=True)
    factors = np.array([1 << int(step) for step in by], dtype=object)
    if (factors == 1).all():
        draft.carry(node.output, x.name, order=x.order, axes=x.axes)
    else:
        _multiplied(draft, node, x, factors)


EMITTERS: Mapping[str, Callable[[Draft, Any], None]] = {
    "Add": _add,
    "Affine": _affine,
    "Mul": _mul,
    "Requant": _requant,
}
