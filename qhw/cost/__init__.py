"""What a design costs on a board: units, layers, networks, and the folding that fits."""

from qhw.cost.estimate import Estimate, LayerCost, estimate
from qhw.cost.folding import choose_folding

__all__ = ["Estimate", "LayerCost", "choose_folding", "estimate"]
