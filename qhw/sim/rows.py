"""Comparisons as rows of a build's manifest."""

from __future__ import annotations

from typing import Any

from qhw.sim.compare import Comparison, describe

Row = dict[str, Any]


def row_of(comparison: Comparison, vectors: int) -> Row:
    """A comparison (left: the reference, right: the backend) as the manifest has it."""
    row = {
        "backend": comparison.right,
        "reference": comparison.left,
        "vectors": vectors,
        "codes_compared": comparison.codes,
        "mismatches": comparison.mismatches,
        "layers": len(comparison.layers),
        "distinct_codes": comparison.layers[-1].distinct,
    }
    if comparison.first is None:
        return row
    return row | {"first_difference": describe(comparison.first, comparison.left, comparison.right)}


def not_compared(backend: str, reference: str, reason: str) -> Row:
    """The row of a comparison that could not be made."""
    return {
        "backend": backend,
        "reference": reference,
        "vectors": 0,
        "codes_compared": 0,
        "mismatches": None,
        "not_compared": reason,
    }
