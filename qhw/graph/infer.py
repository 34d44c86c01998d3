"""The inference rules of the operations, used twice: to build a graph and to check one."""

from __future__ import annotations

from collections.abc import Sequence

from qhw.errors import InputError
from qhw.graph.ops.base import Node, Operand, Range, Result, constant_range
from qhw.graph.ops.requant import requant_bounds
from qhw.graph.tensors import TensorType

__all__ = ["Operand", "Range", "Result", "constant_range", "infer", "requant_bounds"]


def infer(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    """Shape, exponent and range of a node's output.

    ``declared`` gives what an operation leaves open (the format of a Requant, the shape of a Reshape).
    Raises InputError, naming the node, where the operands do not fit the operation.
    """
    try:
        return node.infer(operands, declared)
    except InputError as error:
        message = f"{node.op} '{node.name}': {error.message}"
        raise InputError(message, allowed=error.allowed, hint=error.hint) from error
    except (ValueError, IndexError) as error:
        raise InputError(f"{node.op} '{node.name}': {error}") from error
