"""Costs of a design on a board: units, layers, networks, and the folding that fits."""

from qhw.cost.design import Design
from qhw.cost.estimate import Estimate, estimate
from qhw.cost.folding import BUDGET, choose_folding
from qhw.cost.hardware import Multipliers

__all__ = ["BUDGET", "Design", "Estimate", "Multipliers", "choose_folding", "estimate"]
