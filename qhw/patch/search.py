"""Value-driven quantisation search (VDQS): bits of feature maps by entropy and bit operations, in a memory.

QuantMCU, arXiv 2401.13714. Its score of b bits for feature map i,

    S(i, b) = -λ Ω(i, b) + (1 - λ) Φ(i, b),

with Ω the change in entropy against 8 bits and Φ the drop in bit operations, is known here; how the two are
normalised, and how entropy is estimated, is not, and is a parameter (:class:`qhw.patch.quantmcu.Settings`).
The paper goes through the feature maps one by one. A sum of scores within a memory is an integer program of
one choice per map, so here all are chosen at once: HiGHS finds the best sum, and proves it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from qhw.errors import CheckFailedError
from qhw.formats.modes import IntArray
from qhw.graph.ir import ExactGraph, Node
from qhw.patch.plan import node_macs, packed_bytes


def entropy(counts: IntArray) -> float:
    """Shannon's entropy of codes that occur so often, in bits; 0 where nothing was counted."""
    total = counts.sum()
    if not total:
        return 0.0
    shares = counts[counts > 0] / total
    return float(-np.sum(shares * np.log2(shares)))


def node_bit_operations(graph: ExactGraph, node: Node) -> int:
    """Multiply-accumulates times the bits of both operands (BitOPs); 0 for what multiplies nothing."""
    macs = node_macs(graph, node)
    if not macs:
        return 0
    first, second = (graph.tensors[name].format.width for name in node.inputs[:2])
    return macs * first * second


def bit_operations(graph: ExactGraph) -> int:
    """Bit operations of one inference: the sum over all Conv and MatMul nodes.

    Of a graph with explicit patches, this counts what neighbouring patches compute twice.
    """
    return sum(node_bit_operations(graph, node) for node in graph.nodes)


@dataclass(frozen=True)
class Choice:
    """What a feature map may be, width by width.

    Args:
        bits: the widths.
        scores: S of each.
    """

    bits: tuple[int, ...]
    scores: tuple[float, ...]


K = TypeVar("K", bound=Hashable)

Piece: TypeAlias = tuple[K | None, int, int]
"""Of a tensor in memory: the feature map whose width it has (None: fixed), elements, and the fixed width."""


def best_bits(
    choices: Mapping[K, Choice], live: Sequence[Sequence[Piece[K]]], memory: int | None = None
) -> dict[K, int]:
    """The bits of every feature map: the greatest sum of scores such that no live set exceeds the memory.

    Args:
        choices: by feature map.
        live: what is in memory at a time; codes are packed, tensor by tensor.
        memory: in bytes; None for no limit.

    Raises:
        CheckFailedError: not even the narrowest feature maps fit; tells what they need.
    """
    if memory is None:
        return {name: choice.bits[int(np.argmax(choice.scores))] for name, choice in choices.items()}

    def fewest(key: K | None, width: int) -> int:
        return min(choices[key].bits) if key is not None and key in choices else width

    least = max(sum(packed_bytes(n, fewest(key, width)) for key, n, width in held) for held in live)
    if least > memory:
        raise CheckFailedError(
            f"with every feature map at its fewest bits, {least:,} bytes of SRAM are needed, "
            f"{least - memory:,} more than the {memory:,} that may be used",
            hint="cut the network elsewhere, take more patches, or allow fewer bits",
        )
    return _solved(choices, live, memory) if choices else {}


def _solved(choices: Mapping[K, Choice], live: Sequence[Sequence[Piece[K]]], memory: int) -> dict[K, int]:
    """The integer program: a variable per feature map and width, a row per live set."""
    options = [(name, place) for name, choice in choices.items() for place in range(len(choice.bits))]
    column = {option: index for index, option in enumerate(options)}
    scores = np.array([choices[name].scores[place] for name, place in options])
    names = {name: row for row, name in enumerate(choices)}
    once = sparse.coo_array(
        (np.ones(len(options)), ([names[name] for name, _ in options], range(len(options))))
    )
    used = np.zeros((len(live), len(options)))
    room = np.full(len(live), float(memory))
    for row, held in enumerate(live):
        for key, elements, width in held:
            if key is None or key not in choices:
                room[row] -= packed_bytes(elements, width)
                continue
            for place, bits in enumerate(choices[key].bits):
                used[row, column[key, place]] += packed_bytes(elements, bits)
    answer = milp(
        -scores,
        constraints=[LinearConstraint(once, 1, 1), LinearConstraint(used, -np.inf, room)],
        integrality=np.ones(len(options)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if answer.x is None:
        raise CheckFailedError(f"HiGHS gave no widths of feature maps: {answer.message}")
    chosen: NDArray[np.bool_] = np.round(answer.x).astype(bool)
    return {
        name: choices[name].bits[place] for (name, place), taken in zip(options, chosen, strict=True) if taken
    }
