"""Sums, products and scalings, element by element."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qhw.flows.finn.carried import Carried
from qhw.flows.finn.emission.draft import Draft, is_streamed, refused
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.infer import requant_bounds


@dataclass(frozen=True)
class _Numbers:
    """Numbers of a constant or of exponents: one, or one per index of an axis of the graph's tensor."""

    values: IntArray
    axis: int | None = None

    def times(self, other: _Numbers, node: ir.Node) -> _Numbers:
        return _Numbers(self.values * other.values, _common(self.axis, other.axis, node))


def _common(first: int | None, second: int | None, node: ir.Node) -> int | None:
    if None not in (first, second) and first != second:
        raise refused(
            node, f"its constants differ along axes {first} and {second}, FINN's along one", _OTHERWISE
        )
    return second if first is None else first


_OTHERWISE = "use one number for the whole tensor, or --flow hls4ml"


def _shifts(draft: Draft, node: ir.Node, names: Sequence[str]) -> _Numbers:
    """Powers of two from the exponents of tensors, added up, to the result's."""
    total, axis = np.zeros(1, dtype=object), None
    for sign, name in (*((1, name) for name in names), (-1, node.output)):
        exponent = draft.graph.tensors[name].exponent
        total = total + sign * np.array(exponent.values, dtype=object)
        axis = _common(axis, exponent.axis if len(exponent.values) > 1 else None, node)
    return _Numbers(total, axis)


def _factors(draft: Draft, node: ir.Node, names: Sequence[str]) -> _Numbers:
    shifts = _shifts(draft, node, names)
    return _Numbers(np.array([1 << int(shift) for shift in shifts.values], dtype=object), shifts.axis)


def _constant_row(draft: Draft, name: str, node: ir.Node) -> _Numbers:
    """A constant operand as one number, or one per index of an axis."""
    value = draft.graph.constants[name].astype(object)
    rank = len(draft.graph.tensors[node.output].shape)
    aligned = value.reshape((1,) * (rank - value.ndim) + value.shape)
    axes = [axis for axis, size in enumerate(aligned.shape) if size > 1]
    if len(axes) > 1:
        raise refused(node, f"its constant '{name}' {value.shape} differs along several axes", _OTHERWISE)
    return _Numbers(aligned.reshape(-1), axes[0] if axes else None)


def _of_channels(draft: Draft, name: str) -> _Numbers:
    """A constant with one number, or one per index of axis 0."""
    value = draft.graph.constants[name].reshape(-1).astype(object)
    return _Numbers(value, 0 if value.size > 1 else None)


def _operand(draft: Draft, node: ir.Node, index: int, *constants: _Numbers) -> Carried:
    """A plain operand, with the axis of those constants as FINN's channel."""
    plain = draft.plain(node, index, any_layout=True)
    axis: int | None = None
    for constant in constants:
        axis = _common(axis, constant.axis, node)
    return plain if axis is None else draft.by_axis(plain, axis, node)


def _scaled(draft: Draft, node: ir.Node, carried: Carried, factors: IntArray, name: str) -> Carried:
    if (factors == 1).all():
        return carried
    factor = draft.constant(f"{name}_factor", draft.per_element(carried, factors), node)
    result = draft.tensor(name, draft.shape(carried.name), "INT32")
    draft.node("Mul", [carried.name, factor], [result], node)
    return replace(carried, name=result)


def _add(draft: Draft, node: ir.Node) -> None:
    constant = next((i for i in (1, 0) if node.inputs[i] in draft.graph.constants), None)
    shifts = [_factors(draft, node, [name]) for name in node.inputs]
    if constant is None:
        both = [_operand(draft, node, index, shifts[index]) for index in (0, 1)]
        if both[0].layout != both[1].layout:
            axes = both[0].layout if both[1].axes is None else both[1].layout
            both = [draft.in_layout(one, axes, node) for one in both]
        first, second = (
            _scaled(draft, node, one, shift.values, f"{node.output}_operand{index}")
            for index, (one, shift) in enumerate(zip(both, shifts, strict=True))
        )
        _check_alike(first, second, node)
        added = second.name
    else:
        row = _constant_row(draft, node.inputs[constant], node).times(shifts[constant], node)
        other = 1 - constant
        first = _operand(draft, node, other, row, shifts[other])
        first = _scaled(draft, node, first, shifts[other].values, f"{node.output}_operand{other}")
        added = draft.constant(f"{node.name}_bias", draft.per_element(first, row.values), node)
    output = draft.result(node, first)
    draft.node("Add", [first.name, added], [output], node)
    draft.carry(node.output, output, order=first.order, axes=first.axes)


def _mul(draft: Draft, node: ir.Node) -> None:
    constant = next((i for i in (1, 0) if node.inputs[i] in draft.graph.constants), None)
    _check_read(draft, node)
    if constant is not None:
        row = _constant_row(draft, node.inputs[constant], node)
        _multiplied(draft, node, _operand(draft, node, 1 - constant, row), row.values)
        return
    first, second = (draft.plain(node, index, any_layout=True) for index in (0, 1))
    _check_alike(first, second, node)
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
    factor = draft.constant(f"{node.name}_multiplier", draft.per_element(x, factors), node)
    output = draft.result(node, x)
    draft.node("Mul", [x.name, factor], [output], node)
    draft.carry(node.output, output, order=x.order, axes=x.axes)


def _affine(draft: Draft, node: ir.Node) -> None:
    _check_read(draft, node)
    factors = _of_channels(draft, node.inputs[1]).times(_factors(draft, node, node.inputs[:2]), node)
    if len(node.inputs) == 2:
        _multiplied(draft, node, _operand(draft, node, 0, factors), factors.values)
        return
    offsets = _of_channels(draft, node.inputs[2]).times(_factors(draft, node, node.inputs[2:]), node)
    x = _operand(draft, node, 0, factors, offsets)
    scaled = _scaled(draft, node, x, factors.values, f"{node.output}_product")
    bias = draft.constant(f"{node.name}_offset", draft.per_element(x, offsets.values), node)
    output = draft.result(node, x)
    draft.node("Add", [scaled.name, bias], [output], node)
    draft.carry(node.output, output, order=x.order, axes=x.axes)


def _requant(draft: Draft, node: ir.Node) -> None:
    """An exact change of exponent alone; what rounds or clips has become thresholds."""
    assert isinstance(node, ir.Requant)
    kind = draft.graph.tensors[node.output]
    shifts = _shifts(draft, node, node.inputs[:1])
    low, high = draft.ranges[node.inputs[0]].bounds
    shift = max(int(most) for most in shifts.values)
    least, most = requant_bounds(node, kind)
    fits = low << max(shift, 0) >= least and high << max(shift, 0) <= most
    if any(step < 0 for step in shifts.values) or not fits:
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
    factors = _factors(draft, node, node.inputs[:1])
    x = _operand(draft, node, 0, factors)
    if (factors.values == 1).all():
        draft.carry(node.output, x.name, order=x.order, axes=x.axes)
    else:
        _multiplied(draft, node, x, factors.values)


EMITTERS: Mapping[str, Callable[[Draft, Any], None]] = {
    "Add": _add,
    "Affine": _affine,
    "Mul": _mul,
    "Requant": _requant,
}
