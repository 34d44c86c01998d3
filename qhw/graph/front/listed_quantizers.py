"""Quantizer nodes of formats that list their codes: FloatQuant and FormatQuant.

What a node computes is ``format(x / scale) * scale``, saturating, the scales being powers of two here.
QONNX's FloatQuant is read as its specification says; where qonnx's own executor departs from that,
:mod:`qhw.onnx_ops.float_quant` tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qhw.formats import Overflow, Rounding, TableFormat
from qhw.formats.base import as_mantissas
from qhw.formats.modes import IntArray
from qhw.formats.requantise import bounds, requantise, saturating
from qhw.graph.front.dyadic import Dyadic
from qhw.graph.front.quantizers import exponents_of, parameter, scalar_of, tensor_exponent
from qhw.graph.front.state import NodeView, State, rule
from qhw.graph.front.values import Activation, Clamped, Lowered, RawInput
from qhw.graph.ir import Exponent, InputEncoding
from qhw.onnx_ops.float_quant import FloatFormat, float_format, format_of_attribute


@dataclass(frozen=True)
class TableGrid:
    """Where a quantizer puts its input: on numbers of ``format``, times a power of two.

    Args:
        exponent: a mantissa of 1 is ``2**exponent``, scale included; broadcasts like the scale.
        low, high: mantissas of ``format`` that bound the result.
    """

    format: TableFormat
    exponent: NDArray[np.int64]
    rounding: Rounding
    low: int
    high: int

    def number(self, value: Fraction, exponent: int) -> int:
        """The mantissa that a dyadic number becomes, bounds aside."""
        unit = value / Fraction(2) ** exponent
        bits = unit.denominator.bit_length() - 1
        return int(self.rounded(np.array(unit.numerator, dtype=object), bits))

    def rounded(self, mantissas: IntArray, bits: int) -> IntArray:
        """The mantissas that ``mantissas * 2**-bits`` become."""
        return requantise(mantissas, bits, self.format, self.rounding, Overflow.SAT, self.low, self.high)


@rule("FloatQuant")
def float_quant(state: State, node: NodeView) -> Lowered:
    """QONNX's FloatQuant."""
    parameters = [None if i >= len(node.proto.input) else _stored(state, node, i) for i in range(2, 6)]
    found = float_format(str(node), node.options, *parameters)
    return quantise(state, node, _grid(state, node, found))


@rule("FormatQuant")
def format_quant(state: State, node: NodeView) -> Lowered:
    """qhw's FormatQuant: any format that lists its codes."""
    format = format_of_attribute(str(node), node.options)
    return quantise(state, node, _grid(state, node, FloatFormat(format)))


def _stored(state: State, node: NodeView, index: int) -> NDArray[np.generic]:
    name = node.proto.input[index]
    value = state.stored(name)
    if value is None:
        raise node.refuse(
            f"its parameter '{name}' is computed in the graph",
            allowed="constant bit widths, bias and largest value",
            hint="export the model in evaluation mode, so that quantizers have fixed parameters",
        )
    return value


def _grid(state: State, node: NodeView, found: FloatFormat) -> TableGrid:
    exponents = exponents_of(node, parameter(state, node, 1))
    format = saturating(found.format, found.format.rounding)
    low, high = bounds(format, Overflow.SAT, None if found.high is None else -found.high, found.high)
    return TableGrid(format, exponents + format.exponent, format.rounding, low, high)


def quantise(state: State, node: NodeView, grid: TableGrid) -> Lowered:
    """Put a constant, an input or an activation onto a grid."""
    value = state.values[node.proto.input[0]]
    match value:
        case Dyadic():
            return constant(node, value, grid)
        case RawInput(integers=None):
            return _float_input(state, node, value, grid)
        case Clamped(scale=None):
            return _clamped(state, node, value, grid)
        case _:
            return _requantised(state, node, state.settle(node, value), grid)


def constant(node: NodeView, value: Dyadic, grid: TableGrid) -> Dyadic:
    """A constant on the grid."""
    shape = np.broadcast_shapes(value.shape, grid.exponent.shape)
    if shape != value.shape:
        raise node.refuse(f"its scale of shape {grid.exponent.shape} enlarges its input {value.shape}")
    exponents = grid.exponent.reshape((1,) * (value.ndim - grid.exponent.ndim) + grid.exponent.shape)
    shifts = np.broadcast_to(exponents - value.exponent, value.shape)
    mantissas = np.zeros(value.shape, dtype=object)
    for bits in np.unique(shifts):
        here = shifts == bits
        mantissas[here] = grid.rounded(value.mantissa[here], int(bits))
    return Dyadic(as_mantissas(mantissas), exponents, format=grid.format).packed()


def _float_input(state: State, node: NodeView, value: RawInput, grid: TableGrid) -> Lowered:
    """A float input is encoded straight into its first quantizer's format."""
    exponent = scalar_of(node, "scale", grid.exponent)
    scale = 2.0 ** (exponent - grid.format.exponent - value.exponent)
    encoding = InputEncoding(scale, 0.0, grid.low, grid.high, grid.rounding, format=grid.format)
    return Activation(state.moved(state.declare_float_input(node, value, encoding, exponent), value))


def _clamped(state: State, node: NodeView, value: Clamped, grid: TableGrid) -> Lowered:
    """Rounding is monotone, so bounds before it are rounded bounds after it."""
    given = (value.low, value.high)
    exponents = np.unique(grid.exponent)
    if exponents.size > 1 and any(given):
        return _requantised(state, node, state.settle(node, value), grid)
    low, high = (None if bound is None else grid.number(bound, int(exponents[0])) for bound in given)
    least = grid.low if low is None else low
    most = grid.high if high is None else high
    return _requantised(state, node, value.tensor, replace(grid, low=min(least, most), high=most))


def _requantised(state: State, node: NodeView, x: str, grid: TableGrid) -> Lowered:
    natural = bounds(grid.format, Overflow.SAT)
    exponent: Exponent = tensor_exponent(state, node, x, grid.exponent)
    return Activation(
        state.builder.requant(
            node.name,
            x,
            grid.format,
            exponent,
            rounding=grid.rounding,
            overflow=Overflow.SAT,
            low=grid.low if grid.low != natural[0] else None,
            high=grid.high if grid.high != natural[1] else None,
            source=node.name,
        )
    )
