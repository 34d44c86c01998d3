"""Numbers of a stream as integers in lanes, and back: what several operations share."""

from __future__ import annotations

import numpy as np

from qhw.flows.rtl.circuit import Element, Setting
from qhw.flows.rtl.emission.draft import Draft, refuse
from qhw.flows.rtl.emission.lanes import Lanes, Loads, Net, holding, of_integers
from qhw.flows.rtl.unrolling import additions_of, is_unrolled
from qhw.formats import Minifloat
from qhw.formats.base import Format
from qhw.formats.modes import IntArray, Overflow
from qhw.formats.operand import MultiplierOperand
from qhw.formats.requantise import saturating
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.infer import requant_bounds
from qhw.graph.ir import Node, TensorType
from qhw.graph.ops.shared.exponents import exponents
from qhw.rtl import UNITS
from qhw.rtl.shared.integers import DSP_OPERANDS
from qhw.rtl.shared.memories import LUT_MEMORY
from qhw.rtl.shared.rounding import ROUNDINGS

MOST_THRESHOLDS = 255
"""Thresholds of the ``threshold`` unit."""

_MOST_EXPONENT_BITS, _MOST_MANTISSA_BITS = 5, 10
"""Of the minifloats that ``fixed_to_minifloat`` rounds to."""

_LONGEST_FACTOR = 32
"""Bits of an operand of ``integer_dot``."""


def spread(numbers: IntArray, shape: tuple[int, ...]) -> IntArray:
    """One number per channel (C,), or one, as a flat row-major array for every element."""
    flat = np.asarray(numbers, dtype=object).reshape(-1)
    placed = flat.reshape(-1, *[1] * (len(shape) - 1)) if shape else flat.reshape(())
    return np.broadcast_to(placed, shape).reshape(-1)


def broadcast(numbers: IntArray, shape: tuple[int, ...]) -> IntArray:
    """Numbers that broadcast over a tensor, as a flat row-major array."""
    return np.broadcast_to(np.asarray(numbers, dtype=object), shape).reshape(-1)


def mantissas(lanes: Lanes, format: Format, index: int = 0) -> Net:
    """The integers that an input's codes stand for."""
    net = lanes.given(index)
    if not isinstance(format, TableFormat):
        return net
    return table(lanes, net, numbers_by_code(format).astype(object), f"integers_of_{'ab'[index]}")


def numbers_by_code(format: TableFormat) -> IntArray:
    """The mantissa of every code; 0 of those that no tensor holds."""
    found = np.zeros(1 << format.width, dtype=np.asarray(format.numbers).dtype)
    found[format.code_of(format.numbers)] = format.numbers
    return found


def table(lanes: Lanes, net: Net, integers: IntArray, what: str) -> Net:
    """An integer for each code of a number, by a memory in every lane."""
    element = of_integers(integers)
    file = lanes.draft.memory(f"{lanes.name}_{what}", integers[:, None], element.width)
    deep = net.element.width > 8
    settings: dict[str, Setting] = {
        "D": 1 << net.element.width,
        "W": element.width,
        "STYLE": LUT_MEMORY + deep,
        "FILE": file,
    }
    return lanes.unit("lookup", settings, {"x": net}, element, "y")


def multiplier(draft: Draft, a: Element, b: Element) -> int:
    """The MULTIPLIER of an integer product: as it is priced, where a slice takes it whole."""
    hardware = draft.design.costing.hardware
    wide = sorted((a.width + (not a.signed), b.width + (not b.signed)), reverse=True)
    limits = DSP_OPERANDS[hardware.fabric.multiplier]
    if wide[0] > limits[0] or wide[1] > limits[1]:
        return 0
    operands = (MultiplierOperand("integer", e.width, e.signed, significant=e.width) for e in (a, b))
    return hardware.multiplier(*operands)


def times(lanes: Lanes, node: Node, net: Net, numbers: IntArray, what: str) -> Net:
    """The number times a constant for each element of the tensor."""
    shared = _power_of_two(numbers)
    factors = numbers >> shared
    if (factors == 1).all():
        element = Element(net.element.width + shared, net.element.signed)
        return lanes.moved(net, element, shared)
    element = of_integers(factors)
    _check_factors(node, net.element, element)
    return _shifted(lanes, dot(lanes, net, lanes.constants(factors, element, what)), shared)


def times_loaded(lanes: Lanes, node: Node, net: Net, numbers: IntArray, loads: Loads, shift: int) -> Net:
    """The number times a constant of each element that is loaded, and two to the power of ``shift``."""
    _check_factors(node, net.element, loads.element)
    constant = lanes.constants(numbers, loads.element, "multipliers", loads)
    return _shifted(lanes, dot(lanes, net, constant), shift)


def _check_factors(node: Node, a: Element, b: Element) -> None:
    if max(a.width, b.width) > _LONGEST_FACTOR:
        refuse(node, f"a product of {a.width} and {b.width} bits", allowed="up to 32 bits each")


def _shifted(lanes: Lanes, net: Net, shift: int) -> Net:
    return lanes.moved(net, Element(net.element.width + shift, net.element.signed), shift)


def dot(lanes: Lanes, a: Net, b: Net) -> Net:
    """The product of two numbers, in all its bits."""
    out = Element(a.element.width + b.element.width, a.element.signed or b.element.signed)
    values = {
        "WA": a.element.width,
        "WB": b.element.width,
        "SA": int(a.element.signed),
        "SB": int(b.element.signed),
        "L": 1,
        "A": out.width,
        "MULTIPLIER": multiplier(lanes.draft, a.element, b.element),
    }
    pins: dict[str, Net | str] = {"a": a, "b": b, "first": "1'b1"}
    return lanes.measured("integer_dot", values, pins, out, "sum")


def _power_of_two(numbers: IntArray) -> int:
    """The largest power of two that divides all numbers, as its exponent."""
    odd = [int(v) for v in np.unique(numbers) if v]
    return min(((v & -v).bit_length() - 1 for v in odd), default=0)


def plus(lanes: Lanes, a: Net, b: Net, element: Element) -> Net:
    """The sum of two numbers, in the bits that hold it."""
    pair = lanes.together(lanes.moved(a, element), lanes.moved(b, element))
    values = {"N": 2, "W": element.width, "S": int(element.signed)}
    wide = Element(element.width + 1, element.signed)
    return lanes.moved(lanes.measured("adder_tree", values, {"x": pair}, wide, "y"), element)


def shifts(kind: TensorType, out: TensorType) -> IntArray:
    """How far an operand's mantissas are shifted to the output's exponents: flat, for each element of it."""
    rank = len(out.shape)
    return broadcast(exponents(kind, rank) - out.exponent.broadcast(rank), out.shape)


def powers(places: IntArray) -> IntArray:
    """Two to the power of each number, as Python integers."""
    return np.array([1 << int(p) for p in places], dtype=object)


def requantised(lanes: Lanes, node: ir.Requant, net: Net, x: TensorType, y: TensorType) -> Net:
    """The number rounded to the output's format: its codes."""
    dropped = -shifts(x, y)
    most = max(int(dropped.max()), 0)
    net = times(lanes, node, net, powers(most - dropped), "places")
    if isinstance(y.format, TableFormat):
        return _coded(lanes, node, net, y, most)
    wide = Element(max(net.element.width, most + 1), net.element.signed)
    net = lanes.moved(net, wide)
    out = Element.of(y.format)
    if node.overflow in (Overflow.SAT, Overflow.SAT_SYM):
        net = _rounded(lanes, node, net, most, out)
        low, high = requant_bounds(node, y)
        whole = (-(1 << out.width - 1), (1 << out.width - 1) - 1) if out.signed else (0, (1 << out.width) - 1)
        return net if (low, high) == whole else _clamped(lanes, net, low, high, (low, high))
    # Rounded in as many bits as it may have.
    all_of = Element(wide.width - most + 1, wide.signed)
    if node.overflow is Overflow.WRAP:
        return lanes.moved(_rounded(lanes, node, net, most, all_of), out)
    if node.overflow is Overflow.SAT_ZERO:
        low, high = requant_bounds(node, y)
        bound = holding(low, high)
        signed = all_of.signed or bound.signed
        extent = max(
            all_of.width + (signed and not all_of.signed), bound.width + (signed and not bound.signed)
        )
        rounded = lanes.moved(_rounded(lanes, node, net, most, all_of), Element(extent, signed))
        return lanes.moved(_clamped(lanes, rounded, low, high, (0, 0)), out)
    return refuse(node, f"overflow mode {node.overflow.value}", allowed="SAT, SAT_SYM, SAT_ZERO, WRAP")


def _rounded(lanes: Lanes, node: ir.Requant, net: Net, dropped: int, out: Element) -> Net:
    unit = UNITS["requantize"]
    values = {
        "WI": net.element.width,
        "WO": out.width,
        "S": dropped,
        "SI": int(net.element.signed),
        "SO": int(out.signed),
        "ROUNDING": ROUNDINGS.index(node.rounding),
    }
    for parameter in unit.ranges:
        if not parameter.low <= values[parameter.name] <= parameter.high:
            refuse(node, f"{parameter.meaning} would be {values[parameter.name]}", allowed=parameter.allowed)
    if _follows_unrolled(lanes.draft, node):
        return lanes.unit("rounded", values, {"x": net}, out, "y")
    return lanes.measured("requantize", values, {"x": net}, out, "y")


def _follows_unrolled(draft: Draft, node: Node) -> bool:
    """Whether a node reads an unrolled layer with several additions in a cycle: it then takes one, too."""
    graph, architecture = draft.design.graph, draft.design.architecture
    made_by = graph.producer(node.inputs[0])
    if made_by is None or not is_unrolled(architecture, graph, made_by, draft.fold(made_by)):
        return False
    return additions_of(architecture) > 1


def _clamped(lanes: Lanes, net: Net, low: int, high: int, beyond: tuple[int, int]) -> Net:
    """The number within bounds, else what stands for all below, or above."""
    element = net.element
    mask = (1 << element.width) - 1

    def code(value: int) -> str:
        return f"{element.width}'h{value & mask:x}"

    settings: dict[str, Setting] = {
        "W": element.width,
        "S": int(element.signed),
        "LOW": code(low),
        "HIGH": code(high),
    }
    settings |= {"BELOW": code(beyond[0]), "ABOVE": code(beyond[1])}
    return lanes.unit("clamp", settings, {"x": net}, element, "y")


def _coded(lanes: Lanes, node: ir.Requant, net: Net, y: TensorType, dropped: int) -> Net:
    """The code of the number of a format with a list of its own that is nearest."""
    assert isinstance(y.format, TableFormat)
    format = saturating(y.format, node.rounding)
    natural = format.mantissa_low, format.mantissa_high
    if isinstance(format, Minifloat) and requant_bounds(node, y) == natural and _is_plain(format):
        signed = Element(net.element.width + (not net.element.signed), True)
        # At least one bit of the number is at or above the smallest step.
        signed = Element(max(signed.width, dropped + 1, 2), True)
        values = {
            "A": signed.width,
            "E": format.exponent_bits,
            "M": format.mantissa_bits,
            "P": dropped,
            "ROUNDING": ROUNDINGS.index(format.rounding),
        }
        pins: dict[str, Net | str] = {"x": lanes.moved(net, signed)}
        return lanes.measured("fixed_to_minifloat", values, pins, Element.of(format), "y")
    low, high = requant_bounds(node, y)
    reached = np.array(format.mantissa_thresholds(format.exponent - dropped), dtype=object)
    numbers = np.asarray(format.numbers, dtype=object)
    codes = format.code_of(np.clip(numbers, low, high)).astype(object)
    return compared(
        lanes, node, net, reached[None, :], codes[None, :], Element.of(format), (net.element.width,)
    )


def _is_plain(format: Minifloat) -> bool:
    """Whether the unit rounds to it: all codes finite, with a sign and subnormals."""
    if format.exponent_bits > _MOST_EXPONENT_BITS or format.mantissa_bits > _MOST_MANTISSA_BITS:
        return False
    return format == Minifloat(format.exponent_bits, format.mantissa_bits, rounding=format.rounding)


def compared(
    lanes: Lanes,
    node: Node,
    net: Net,
    thresholds: IntArray,
    levels: IntArray,
    out: Element,
    shape: tuple[int, ...],
) -> Net:
    """The level of how many thresholds the number has reached.

    Args:
        thresholds: shape (channels or 1, T), rising.
        levels: codes, shape (channels or 1, T + 1).
        shape: the tensor's.
    """
    count = thresholds.shape[1]
    if not 1 <= count <= MOST_THRESHOLDS:
        refuse(node, f"{count} thresholds", allowed=f"1 to {MOST_THRESHOLDS}")
    bound = of_integers(thresholds)
    signed = bound.signed or net.element.signed
    width = max(
        bound.width + (signed and not bound.signed), net.element.width + (signed and not net.element.signed)
    )
    if width > UNITS["threshold"].ranges[0].high:
        refuse(node, f"thresholds of {width} bits", allowed=UNITS["threshold"].ranges[0].allowed)
    element = Element(width, signed)
    net = lanes.moved(net, element)
    if net.edges:
        net = lanes.delayed(net, net.edges)
    place = holding(0, count)
    values = {"A": width, "T": count, "S": int(signed)}
    pins: dict[str, Net | str]
    if len(thresholds) == 1:
        word = "".join(f"{int(v) & (1 << width) - 1:0{width}b}" for v in reversed(thresholds[0]))
        pins = {"x": net, "thresholds": f"{count * width}'b{word}"}
    else:
        # They are compared one edge behind the number: as they are there, one edge behind their word.
        assert net.edges == 0
        rows = np.stack([spread(column, shape) for column in thresholds.T], axis=1)
        word = lanes.wide_constants(rows, element, "steps")
        pins = {"x": net, "thresholds": f"{word}[{{lane}}*{count * width}+:{count * width}]"}
    reached = lanes.measured("threshold", values, pins, place, "y")
    return _levelled(lanes, reached, levels, out, shape)


def _levelled(lanes: Lanes, reached: Net, levels: IntArray, out: Element, shape: tuple[int, ...]) -> Net:
    mask = (1 << out.width) - 1
    if len(levels) == 1:
        if np.array_equal(levels[0], np.arange(levels.shape[1])):
            return lanes.moved(reached, out)
        padded = np.zeros(1 << reached.element.width, dtype=object)
        padded[: levels.shape[1]] = levels[0] & mask
        file = lanes.draft.memory(f"{lanes.name}_levels", padded[:, None], out.width)
        settings: dict[str, Setting] = {"D": len(padded), "W": out.width, "STYLE": LUT_MEMORY, "FILE": file}
        return lanes.unit("lookup", settings, {"x": reached}, out, "y")
    count = 1 << reached.element.width
    rows = np.zeros((int(np.prod(shape)), count), dtype=object)
    for place, column in enumerate(levels.T):
        rows[:, place] = spread(column & mask, shape)
    all_of = lanes.constants_of(rows, out, "levels")
    choice: dict[str, Setting] = {"N": count, "W": out.width}
    return lanes.unit("choice", choice, {"place": reached, "x": all_of}, out, "y")
