"""How the numbers of a network lie on the grids of their formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.formats.integer import Integer
from qhw.formats.table import TableFormat

if TYPE_CHECKING:
    from qhw.formats.modes import IntArray
    from qhw.graph.ir import ExactGraph, TensorType

MOST_BARS = 64
"""Bars at most: of formats with more numbers, neighbours share one."""

MOST_TICKS = 64
"""Numbers of a format that each have a tick below their axis."""

_WIDEST = 16
"""Bits of a format that is shown: a wider one is an accumulator's, whose grid is nobody's choice."""


@dataclass(frozen=True)
class Distribution:
    """The numbers of one tensor.

    Args:
        name: the tensor.
        role: "weights" or "results".
        format: as texts say it.
        bars: ``low`` and ``high``, between which numbers are counted, their ``share`` and ``value``.
        grid: the format's numbers; none where there are too many to draw.
        used: how many different numbers occur, of ``numbers`` that the format has.
        at_ends: the share at the lowest and the highest number.
    """

    name: str
    role: str
    format: str
    bars: tuple[Mapping[str, Any], ...]
    grid: tuple[float, ...]
    used: int
    numbers: int
    at_ends: float


def distributions(graph: ExactGraph, trace: Mapping[str, IntArray]) -> list[Distribution]:
    """The weights of every product, and every rounded result that a trace holds, in the network's order.

    Args:
        trace: mantissas (N, *shape) by tensor.
    """
    found = []
    for name, role in _shown(graph):
        mantissas = graph.constants[name] if role == "weights" else trace.get(name)
        if mantissas is not None and mantissas.size:
            found.append(distribution(name, role, graph.tensors[name], mantissas))
    return found


def _shown(graph: ExactGraph) -> Iterator[tuple[str, str]]:
    """Tensors worth showing: those whose format somebody chose."""
    for name in graph.inputs:
        yield name, "results"
    for node in graph.nodes:
        if node.op in ("Conv", "MatMul") and node.inputs[1] in graph.constants:
            yield node.inputs[1], "weights"
        if (
            node.op in ("Requant", "Threshold", "Table")
            and graph.tensors[node.output].format.width <= _WIDEST
        ):
            yield node.output, "results"


def distribution(name: str, role: str, kind: TensorType, mantissas: IntArray) -> Distribution:
    """Count the numbers of one tensor; with an exponent per channel in units of each channel."""
    unit = 2.0 ** kind.exponent.values[0] if kind.exponent.is_scalar else 1.0
    values, counts = np.unique(np.asarray(mantissas, dtype=np.int64), return_counts=True)
    shares = counts / counts.sum()
    grid = _numbers(kind)
    ends = (values == grid[0]) | (values == grid[-1])
    return Distribution(
        name,
        role,
        format_text(kind),
        tuple(
            {"low": low * unit, "high": high * unit, "share": round(share, 6), "value": value}
            for low, high, share, value in (
                (low, high, share, _told(of, unit)) for low, high, share, of in _bars(values, shares, grid)
            )
        ),
        tuple(float(number) * unit for number in grid) if len(grid) <= MOST_TICKS else (),
        len(values),
        len(grid),
        float(shares[ends].sum()) if len(grid) > 2 else 0.0,
    )


def _told(mantissas: tuple[int, ...], unit: float) -> str:
    return " … ".join(f"{mantissa * unit:.6g}" for mantissa in mantissas)


def _numbers(kind: TensorType) -> NDArray[np.int64]:
    """The mantissas of a format, in order."""
    if isinstance(kind.format, TableFormat):
        return np.asarray(kind.format.numbers, dtype=np.int64)
    return np.arange(kind.format.mantissa_low, kind.format.mantissa_high + 1, dtype=np.int64)


def _bars(
    values: NDArray[np.int64], shares: NDArray[np.float64], grid: NDArray[np.int64]
) -> Iterator[tuple[float, float, float, tuple[int, ...]]]:
    """A bar per number that occurs, or per group of neighbours, as wide as what is rounded to them."""
    between = (grid[1:] + grid[:-1]) / 2
    first, last = (between[0] - grid[0], grid[-1] - between[-1]) if len(grid) > 1 else (0.5, 0.5)
    edges = np.concatenate([[grid[0] - first], between, [grid[-1] + last]])
    places = np.searchsorted(grid, values)
    size = -(-int(places[-1] - places[0] + 1) // MOST_BARS)
    groups = (places - places[0]) // size
    for group in np.unique(groups):
        low = int(places[0] + group * size)
        high = min(low + size, len(grid)) - 1
        ends = (int(grid[low]),) if size == 1 else (int(grid[low]), int(grid[high]))
        yield float(edges[low]), float(edges[high + 1]), float(shares[groups == group].sum()), ends


def format_text(kind: TensorType) -> str:
    """A tensor's numbers as a user writes them: ``fixed<8,3>`` of 8-bit mantissas with exponent -5."""
    scalar = kind.exponent.is_scalar
    if isinstance(kind.format, Integer):
        sign, width = "" if kind.format.signed else "u", kind.format.width
        if scalar:
            return f"{sign}fixed<{width},{width + kind.exponent.values[0]}>"
        return f"{sign}fixed<{width}> per channel"
    if not scalar:
        return f"{kind.format} per channel"
    shift = kind.exponent.values[0] - kind.format.exponent
    return f"{kind.format}" if not shift else f"{kind.format} · 2^{shift}"
