"""Energy per image, relative: operations and memory accesses at the costs of :mod:`qhw.rtl.shared.energy`."""

from __future__ import annotations

import math

from qhw.formats.operand import MultiplierOperand, product_width
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node, TensorType
from qhw.rtl.shared.energy import MEMORY_PJ_PER_BIT, addition_pj, multiply_pj

LABEL = "modelled, 45 nm (Horowitz 2014), relative"


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
