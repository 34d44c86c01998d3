"""AdaRound."""

from __future__ import annotations

import torch
from torch import Tensor

from qhw.ptq.reconstruction import LearnedRounding, Rounding

STEPS, RATE = 300, 0.02

STRETCH = (-0.1, 1.1)
"""gamma and zeta of the rectified sigmoid (eq. 23)."""

WARM_UP = 0.2
"""Share of the steps without the regulariser."""

SHARPNESS = (20.0, 2.0)
"""beta of the regulariser, from the first step to the last (eq. 24)."""


class AdaRound(LearnedRounding):
    """Each weight is rounded up or down, as is best for the layer's result (arXiv 2004.10568, eq. 21 to 25).

    Our own, for any grid: up and down are the neighbours in the weight's format. An output for which rounding
    to nearest is better on the samples keeps that. :mod:`qhw.ptq.reconstruction` says why not Brevitas's.
    """

    title = "AdaRound: weights rounded up or down by what it does to the result (arXiv 2004.10568)"

    def solve(self, problem: Rounding) -> Tensor:
        low, high = problem.neighbours()
        step = high - low
        nearest = problem.nearest(problem.weight)
        share = torch.where(step > 0, (problem.weight - low) / step.clamp_min(1e-30), 0.0).clamp(0.01, 0.99)
        gamma, zeta = STRETCH
        choice = torch.logit((share - gamma) / (zeta - gamma)).requires_grad_()
        optimizer = torch.optim.Adam([choice], RATE)
        strength = float(problem.errors(nearest).sum())
        for index in range(STEPS):
            optimizer.zero_grad()
            up = (torch.sigmoid(choice) * (zeta - gamma) + gamma).clamp(0, 1)
            loss = problem.errors(low + up * step).sum()
            progress = (index / STEPS - WARM_UP) / (1 - WARM_UP)
            if progress > 0:
                beta = SHARPNESS[0] + (SHARPNESS[1] - SHARPNESS[0]) * progress
                loss = loss + strength * (1 - (2 * up - 1).abs().pow(beta)).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            return problem.better(nearest, torch.where(choice > 0, high, low))


METHOD = AdaRound()
