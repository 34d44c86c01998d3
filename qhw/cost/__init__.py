"""Costs of a design on a board: units, layers, networks, and the folding that fits."""

from qhw.cost.pricing.design import Design
from qhw.cost.pricing.estimate import Estimate, estimate
from qhw.cost.pricing.folding import BUDGET, choose_folding
from qhw.cost.pricing.hardware import Multipliers

__all__ = ["BUDGET", "Design", "Estimate", "Multipliers", "choose_folding", "estimate"]
