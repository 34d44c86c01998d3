"""Energy per image, relative: operations and memory accesses at published costs of a 45 nm process.

Source: M. Horowitz, "Computing's energy problem", ISSCC 2014, figure 1.1.9; integer additions and products
as fitted to it by QKeras's qtools: 0.003125 b pJ, and 0.002995 b^2 + 0.00104 b pJ. An FPGA takes several
times as much for the same operation: the figures compare designs, and promise no battery's life.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from qhw.cost.unit_models import Values
from qhw.errors import UnsupportedError
from qhw.formats.operand import MultiplierOperand, product_width
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node, TensorType

ADD_PJ_PER_BIT = 0.003125
MULTIPLY_PJ_PER_BIT2, MULTIPLY_PJ_PER_BIT = 0.002995, 0.00104
MEMORY_PJ_PER_BIT = 10 / 64
"""Energy of one bit of an 8 KB memory, the size nearest to a block RAM's."""

LABEL = "modelled, 45 nm (Horowitz 2014), relative"


def addition_pj(bits: float) -> float:
    """Energy of adding two integers."""
    return ADD_PJ_PER_BIT * bits


def product_pj(a: MultiplierOperand, b: MultiplierOperand) -> float:
    """Energy of one product: significands are multiplied, shifters and k-hot's terms count as additions.

    A number whose integer is looked up is read from its table; weights (``b``) are stored as integers.
    """
    bits = sorted((a.significant, b.significant))
    product = multiply_pj(*bits) if bits[0] > 1 else 0.0
    terms = a.terms * b.terms
    shifts = sum(operand.kind in ("minifloat", "khot") for operand in (a, b))
    product += MEMORY_PJ_PER_BIT * a.width * (a.lookup_bits > 0)
    return product + (terms - 1 + shifts * terms) * addition_pj(product_width(a, b))


def multiply_pj(a_bits: float, b_bits: float) -> float:
    """Energy of multiplying two integers; a single bit only gates the other."""
    if min(a_bits, b_bits) <= 1:
        return addition_pj(max(a_bits, b_bits))
    return MULTIPLY_PJ_PER_BIT2 * a_bits * b_bits + MULTIPLY_PJ_PER_BIT * (a_bits + b_bits) / 2


def unit_pj(unit: str, values: Values) -> float:
    """Energy of one cycle of a unit; comparisons and shifts count as additions of as many bits.

    Raises UnsupportedError for a unit that has no figure.
    """
    if unit not in _UNITS:
        raise UnsupportedError(f"The unit {unit!r} has no energy", allowed=", ".join(_UNITS))
    return _UNITS[unit](values)


def _tree_pj(count: int, bits: int) -> float:
    """Additions of a balanced tree."""
    total = 0.0
    while count > 1:
        total += (count // 2) * addition_pj(bits)
        count, bits = (count + 1) // 2, bits + 1
    return total


def _integers(v: Values) -> float:
    lanes = v.get("L", 1)
    return lanes * multiply_pj(v["WA"], v["WB"]) + _tree_pj(lanes, v["WA"] + v["WB"]) + addition_pj(v["A"])


def _minifloats(v: Values) -> float:
    lanes, product = v.get("L", 1), v["MA"] + v["MB"] + 2 + (1 << v["EA"]) + (1 << v["EB"]) - 4
    each = multiply_pj(v["MA"] + 1, v["MB"] + 1) + addition_pj(product)
    return lanes * each + _tree_pj(lanes, product) + addition_pj(v["A"])


def _mixed(v: Values) -> float:
    product = v["WA"] + v["MB"] + 1 + (1 << v["EB"]) - 2
    return multiply_pj(v["WA"], v["MB"] + 1) + addition_pj(product) + addition_pj(v["A"])


def _khot(v: Values) -> float:
    bits = v["WA"] if "WA" in v else v["MA"] + (1 << v["EA"]) - 1
    return (2 * v["K"] - 1) * addition_pj(bits + v["WB"]) + addition_pj(v["A"])


_UNITS: Mapping[str, Callable[[Values], float]] = {
    "integer_mac": _integers,
    "integer_dot": _integers,
    "packed_mac": lambda v: v["P"] * (multiply_pj(v["WA"], v["WB"]) + addition_pj(v["A"])),
    "minifloat_mac": _minifloats,
    "minifloat_dot": _minifloats,
    "mixed_mac": _mixed,
    "khot_mac": _khot,
    "khot_minifloat_mac": _khot,
    "fixed_to_minifloat": lambda v: 3 * addition_pj(v["A"]),
    "requantize": lambda v: addition_pj(v["WI"]) + addition_pj(v["WO"]),
    "threshold": lambda v: v["T"] * addition_pj(v["A"]),
    "adder_tree": lambda v: _tree_pj(v["N"], v["W"]),
    "xnor_popcount": lambda v: _tree_pj(v["L"], 1) + addition_pj(v["A"]),
    "max_pool": lambda v: (v["N"] - 1) * addition_pj(v["W"]),
    "fifo": lambda v: 2 * v["W"] * MEMORY_PJ_PER_BIT,
    "weight_memory": lambda v: v["W"] * MEMORY_PJ_PER_BIT,
    "line_buffer": lambda v: 2 * (v["K"] - 1) * v["W"] * MEMORY_PJ_PER_BIT,
}
"""Units of constants have no figure: what they add up is known only for given constants."""


def layer_energy(graph: ExactGraph, node: Node) -> float:
    """Picojoule of one image: its products and sums, and each code written once and read once."""
    output = graph.tensors[node.output]
    inputs = [graph.tensors[name] for name in node.inputs]
    moved = MEMORY_PJ_PER_BIT * (
        _bits(output) + sum(_bits(graph.tensors[x]) for x in graph.activations(node))
    )
    return moved + _arithmetic(node, inputs, output)


def _arithmetic(node: Node, inputs: list[TensorType], output: TensorType) -> float:
    sums = addition_pj(output.format.width)
    if isinstance(node, ir.Conv | ir.MatMul):
        x, w = (kind.format.operand() for kind in inputs[:2])
        each = product_pj(x, w) + sums + MEMORY_PJ_PER_BIT * w.stored_bits
        return _products(node, inputs, output) * each
    if isinstance(node, ir.Mul | ir.Affine):
        x, w = (kind.format.operand() for kind in inputs[:2])
        return output.size * (product_pj(x, w) + sums)
    if isinstance(node, ir.Add | ir.Requant | ir.Threshold):
        return output.size * sums
    if isinstance(node, ir.SumPool | ir.MaxPool):
        return output.size * math.prod(node.kernel) * sums
    if isinstance(node, ir.ReduceSum | ir.ReduceMax):
        return inputs[0].size * sums
    if isinstance(node, ir.Table):
        return output.size * MEMORY_PJ_PER_BIT * output.format.width
    return 0.0


def _products(node: Node, inputs: list[TensorType], output: TensorType) -> int:
    if isinstance(node, ir.Conv):
        return output.size * math.prod(inputs[1].shape[1:])
    return output.size * inputs[0].shape[-1]


def _bits(kind: TensorType) -> int:
    return kind.size * kind.format.width
