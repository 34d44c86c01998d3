"""Matrix products that hls4ml has no layer for: both operands computed, the left one constant, or stacked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhw.errors import UnsupportedError
from qhw.flows.hls4ml import coded
from qhw.flows.hls4ml.carry import Carried, Order, Stored, natural_order
from qhw.flows.hls4ml.folding import divisors
from qhw.flows.hls4ml.operands import stored_weights, weight_policy
from qhw.flows.hls4ml.plan import Kernel, Planner
from qhw.graph import ir
from qhw.graph.ir import ExactGraph


def is_general(graph: ExactGraph, node: ir.MatMul) -> bool:
    """Whether it is anything but vectors times a constant matrix."""
    constant = node.inputs[1] in graph.constants
    return not constant or len(graph.tensors[node.inputs[1]].shape) != 2


def general_factors(graph: ExactGraph, node: ir.MatMul) -> tuple[int, ...]:
    """The legal reuse factors: cycles for each row of the left operand."""
    n_in, n_out = graph.tensors[node.inputs[1]].shape[-2:]
    return divisors(n_in * n_out)


def matrix_product(planner: Planner, node: ir.MatMul) -> None:
    """Every row of every left matrix times the columns of its right one; both arrive whole."""
    graph = planner.graph
    left, right = (graph.tensors[tensor].shape for tensor in node.inputs[:2])
    shape = graph.tensors[node.output].shape
    lead, (n_in, n_out) = shape[:-2] if len(left) > 1 else (), right[-2:]
    if (len(left) > 1 and not len(left) == len(right) == len(shape)) or (len(left) == 1 and len(right) > 2):
        raise UnsupportedError(
            f"{planner.where(node)}: multiplies {left} by {right}",
            allowed="operands with as many axes, or a vector by a matrix",
            hint="reshape one of them in front of it",
        )
    rows = left[-2] if len(left) > 1 else 1
    a = np.broadcast_to(natural_order(left).reshape(left), (*lead, rows, n_in) if lead else left)
    b = np.broadcast_to(natural_order(right).reshape(right), (*lead, n_in, n_out))
    orders = a.reshape(-1), b.swapaxes(-1, -2).reshape(-1)
    constant = [tensor in graph.constants for tensor in node.inputs[:2]]
    read = [_in_order(planner, node, i, orders[i], n_in) for i in (0, 1) if not constant[i]]
    policies, stored = [], {}
    for i in (0, 1):
        format = graph.tensors[node.inputs[i]].format
        if constant[i]:
            policies.append(weight_policy(format))
            stored["weight"] = stored_weights(format, planner.constant(node, i).reshape(-1)[orders[i]])
        else:
            policies.append(coded.policy(planner.carried[node.inputs[i]]))
    sums, finish = coded.sums_by_output(planner, node, len(shape) - 1, n_out)
    n_param = max((array.mantissas.size for array in finish.arrays.values()), default=1)
    options = planner.reuse(node, n_in, n_out, general_factors(graph, node))
    name = "matmul_left" if constant[0] else "matmul_right" if constant[1] else "matmul"
    inputs = ", ".join(f"{{input{i}_t}}" for i in range(len(read))) if len(read) > 1 else "{input_t}"
    kernel = Kernel(
        f"qhw::{name}<{inputs}, {{output_t}}, {{config}}>",
        "qhw/matmul.h",
        {
            "n_batch": int(np.prod(lead, dtype=np.int64)),
            "n_row": rows,
            "n_in": n_in,
            "n_out": n_out,
            "reuse_factor": options["reuse_factor"],
            "product_shift": sums.shift,
            "n_param": n_param,
            **finish.constants,
        },
        {
            "x_format": policies[0],
            "w_format": policies[1],
            "accum_t": sums.accum,
            "finish": f"qhw::{finish.operation}_op",
            **finish.types,
        },
        {
            **stored,
            "bias": Stored.units(sums.bias),
            **{key: coded.repeated(array, n_param) for key, array in finish.arrays.items()},
        },
    )
    size = int(np.prod(shape))
    dims = (size // n_out, n_out) if len(shape) > 1 else (n_out,)
    out = Carried("", dims, natural_order(shape), finish.type, finish.format)
    planner.finish(finish.tensor, planner.kernel(node, read, kernel, out, **options))


def _in_order(planner: Planner, node: ir.MatMul, index: int, order: Order, n_in: int) -> Carried:
    """An operand, every row or column one behind the other; a layer gathers it where it travels otherwise."""
    x = planner.travelling(node, index)
    if np.array_equal(x.order, order):
        return x
    out = replace(x, layer="", dims=(order.size // n_in, n_in), order=natural_order((order.size,)))
    suffix = "_rows" if index == 0 else "_columns"
    return planner.gather(node, x, x.places()[order], out, suffix=suffix)
