"""The units that multiply and add up, by the formats of both operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from qhw.errors import InputError
from qhw.flows.rtl.circuit import Element, Wire, instance
from qhw.flows.rtl.emission.arithmetic import mantissas, multiplier
from qhw.flows.rtl.emission.draft import Draft, refuse
from qhw.flows.rtl.emission.lanes import Lanes, holding
from qhw.formats import KHot, Minifloat
from qhw.formats.base import Format
from qhw.formats.modes import IntArray
from qhw.formats.shifts import shift_codes, shift_width
from qhw.formats.table import TableFormat
from qhw.graph.ir import Node
from qhw.rtl import UNITS
from qhw.rtl.shared.structure import levels

_MOST_EXPONENT_BITS, _MOST_MANTISSA_BITS = 5, 8
"""Of the minifloats that every unit takes."""


@dataclass(frozen=True)
class DotProducts:
    """Sums of products, one for each output at a time.

    Args:
        weights: the weights' codes as they are stored, in the shape of their mantissas.
        weight_bits: bits of one.
        total: the bits of a sum.
        latency: clock edges from the operands to their sum.
        lines: Verilog of one, by its number and its operands and sum as Verilog.
    """

    weights: IntArray
    weight_bits: int
    total: Element
    latency: int
    lines: Callable[[int, str, str, str], list[str]]


def is_taken_apart(format: Format) -> bool:
    """Whether units take a format's codes as sign, exponent and mantissa; else as integers."""
    return (
        isinstance(format, Minifloat)
        and format.subnormals
        and format.width == 1 + format.exponent_bits + format.mantissa_bits
        and format.exponent_bits <= _MOST_EXPONENT_BITS
        and format.mantissa_bits <= _MOST_MANTISSA_BITS
    )


def as_integers(draft: Draft, node: Node, wire: Wire, format: Format) -> Wire:
    """The stream of codes as one of integers, where units do not take the codes themselves."""
    return wire if is_taken_apart(format) else whole_integers(draft, node, wire, format)


def whole_integers(draft: Draft, node: Node, wire: Wire, format: Format) -> Wire:
    """The stream of codes as one of integers, whatever the format."""
    if not isinstance(format, TableFormat):
        return wire
    lanes = Lanes(draft, draft.label(node, "integers"), (wire,), wire.order)
    return lanes.finish(mantissas(lanes, format), wire.tensor, node.name)


def dot_products(
    draft: Draft, node: Node, wire: Wire, x: Format, w: Format, weights: IntArray, bits: int
) -> DotProducts:
    """The dot products of a stream's words with weights.

    Args:
        x, w: formats of the stream's elements and of the weights.
        weights: mantissas, shape (..., lanes).
        bits: bits that a sum needs at least.
    """
    if is_taken_apart(w):
        element = Element(w.width, False)
        stored = np.asarray(w.code_of(weights))
    elif isinstance(w, KHot):
        element = Element(shift_width(w), False)
        stored = shift_codes(w, weights)
    else:
        element = holding(w.mantissa_low, w.mantissa_high) if isinstance(w, TableFormat) else Element.of(w)
        stored = weights
    maker = _Maker(draft, node, wire.element, element, x, w, weights.shape[-1], bits)
    try:
        total, latency, lines = maker.made()
    except InputError as error:
        refuse(node, error.message, allowed=error.allowed)
    return DotProducts(stored, element.width, total, latency, lines)


Made = tuple[Element, int, Callable[[int, str, str, str], list[str]]]


@dataclass(frozen=True)
class _Maker:
    """The choice of a unit."""

    draft: Draft
    node: Node
    a: Element
    b: Element
    x: Format
    w: Format
    lanes: int
    bits: int

    def made(self) -> Made:
        """Bits of the sum, latency, and Verilog; raises InputError for what the unit is not made for."""
        minifloats = is_taken_apart(self.x), is_taken_apart(self.w)
        if isinstance(self.w, KHot):
            return self._shifted(minifloats[0])
        if all(minifloats):
            fields = _fields("A", self.x) | _fields("B", self.w)
            operands = self.x.operand().width + self.w.operand().width - 1
            return self._whole("minifloat_dot", fields, operands)
        if any(minifloats):
            return self._mixed(minifloats[0])
        a, b = self.a, self.b
        values = {"WA": a.width, "WB": b.width, "SA": int(a.signed), "SB": int(b.signed)}
        return self._whole(
            "integer_dot", values | {"MULTIPLIER": multiplier(self.draft, a, b)}, a.width + b.width
        )

    def _whole(self, unit: str, values: Mapping[str, int], product: int) -> Made:
        """A unit for all lanes."""
        total = Element(max(self.bits, product + levels(self.lanes)), True)
        checked = UNITS[unit].checked({**values, "L": self.lanes, "A": total.width})

        def lines(number: int, a: str, b: str, result: str) -> list[str]:
            pins = {"clk": "clk", "enable": "enable", "first": "first_1", "a": a, "b": b, "sum": result}
            return [instance(unit, f"dot{number}", checked, pins)]

        return total, UNITS[unit].latency(checked), lines

    def _mixed(self, x_is_minifloat: bool) -> Made:
        """A minifloat and an integer, which is operand a of the unit."""
        integer, minifloat = (self.b, self.x) if x_is_minifloat else (self.a, self.w)
        assert isinstance(minifloat, Minifloat)
        values = {"WA": integer.width, "SA": int(integer.signed), **_fields("B", minifloat)}
        product = integer.width + minifloat.operand().width + 1
        return self._each("mixed_mac", values, product, swapped=x_is_minifloat)

    def _shifted(self, x_is_minifloat: bool) -> Made:
        """A k-hot weight, by its shifts."""
        assert isinstance(self.w, KHot)
        weight = {"WB": self.w.width, "K": self.w.k, "CSD": int(self.w.csd)}
        if x_is_minifloat:
            product = self.x.operand().width + self.w.width + 1
            return self._each("khot_minifloat_mac", {**_fields("A", self.x), **weight}, product)
        values = {"WA": self.a.width, "SA": int(self.a.signed), **weight}
        return self._each("khot_mac", values, self.a.width + self.w.width)

    def _each(self, unit: str, values: Mapping[str, int], product: int, *, swapped: bool = False) -> Made:
        """A unit for each lane, and a tree behind their sums."""
        total = Element(max(self.bits, product), True)
        checked = UNITS[unit].checked({**values, "A": total.width})
        tree = {"N": self.lanes, "W": total.width, "S": 1}
        latency = UNITS[unit].latency(checked)
        if self.lanes > 1:
            latency += UNITS["adder_tree"].latency(UNITS["adder_tree"].checked(tree))

        def lines(number: int, a: str, b: str, result: str) -> list[str]:
            width, made = total.width, []
            parts = f"parts{number}"
            made.append(f"    wire [{self.lanes * width - 1}:0] {parts};")
            made.append(f"    wire [{self.lanes * self.a.width - 1}:0] a{number} = {a};")
            made.append(f"    wire [{self.lanes * self.b.width - 1}:0] b{number} = {b};")
            for lane in range(self.lanes):
                given = [
                    f"{name}{number}[{lane * element.width}+:{element.width}]"
                    for name, element in (("a", self.a), ("b", self.b))
                ]
                first, second = given[::-1] if swapped else given
                pins = {"clk": "clk", "enable": "enable", "first": "first_1", "a": first, "b": second}
                pins["sum"] = f"{parts}[{lane * width}+:{width}]"
                made.append(instance(unit, f"mac{number}_{lane}", checked, pins))
            if self.lanes == 1:
                return [*made, f"    assign {result} = {parts};"]
            wide = width + levels(self.lanes)
            made.append(f"    wire [{wide - 1}:0] tree{number};")
            pins = {"clk": "clk", "enable": "enable", "x": parts, "y": f"tree{number}"}
            made.append(instance("adder_tree", f"adder{number}", tree, pins))
            return [*made, f"    assign {result} = tree{number}[{width - 1}:0];"]

        return total, latency, lines


def _fields(which: str, format: Format) -> dict[str, int]:
    assert isinstance(format, Minifloat)
    return {f"E{which}": format.exponent_bits, f"M{which}": format.mantissa_bits}
