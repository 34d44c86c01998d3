"""FlexRound."""

from __future__ import annotations

import torch
from torch import Tensor

from qhw.ptq.reconstruction import LearnedRounding, Rounding

STEPS, RATE = 300, 0.003


class FlexRound(LearnedRounding):
    """Each weight is divided by a factor that is learned, then rounded to nearest (arXiv 2306.00317, eq. 2).

    ``W~ = s1 round(W / (s1 S2 s3))``, with a factor per weight (``S2``) and per output (``s3``); ``s1`` is
    the scale that the format has, and stays. Our own, for any grid; each output keeps the best that was seen.
    :mod:`qhw.ptq.reconstruction` says why not Brevitas's.
    """

    title = "FlexRound: weights divided by learned factors, then rounded (arXiv 2306.00317)"

    def solve(self, problem: Rounding) -> Tensor:
        per_weight = torch.zeros_like(problem.weight, requires_grad=True)
        per_output = torch.zeros_like(problem.weight[:, :1], requires_grad=True)
        optimizer = torch.optim.Adam([per_weight, per_output], RATE)
        best = problem.nearest(problem.weight)
        for _ in range(STEPS):
            optimizer.zero_grad()
            divided = problem.weight * torch.exp(-per_weight - per_output)
            rounded = problem.nearest(divided.detach())
            problem.errors(divided + (rounded - divided).detach()).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                best = problem.better(best, rounded)
        return best


METHOD = FlexRound()
