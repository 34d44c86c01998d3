"""From the nodes of a file to integer operations, with the tails between them: one rule per operator."""

from qhw.graph.front import arithmetic, listed_quantizers, matrix, movement, quantizers, resizing
from qhw.graph.front.state import RULES, InexactError, State

__all__ = [
    "RULES",
    "InexactError",
    "State",
    "arithmetic",
    "listed_quantizers",
    "matrix",
    "movement",
    "quantizers",
    "resizing",
]
