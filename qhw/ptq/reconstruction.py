"""Learned rounding, layer by layer: what AdaRound and FlexRound have in common.

Both make ``||W x - W~ x~||^2`` small, where ``x`` is a layer's input in float and ``x~`` the one that the
quantised layers before it give (arXiv 2004.10568, eq. 25, without the activation). It is quadratic in ``W~``:
second moments of the inputs say all of it, and a step costs one matrix product, whatever the sample count.

Brevitas has this in ``brevitas_examples``, for the rounding function inside its own integer quantizers. Ours
have none: a weight is moved onto a number of its format, which the quantizer then leaves as it is.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import unfoldNd
from brevitas.graph.utils import is_conv_transposed
from torch import Tensor, nn

from qhw.ptq.methods.base import LayerMethod
from qhw.quantizers import Quantizer
from qhw.quantizers.kernels.problem import Rule

POSITIONS = 1 << 15
"""Columns of a layer's unfolded input that its second moments are taken from."""

WIDEST = 16
"""Bits of the widest weights whose rounding is learned."""


@dataclass(frozen=True)
class Rounding:
    """The rounding of one layer's weights, or of one group of them.

    Args:
        weight: the float weights ``W`` (outputs, inputs).
        unit: the value of a mantissa of 1, (1, 1) or (outputs, 1).
        rule: the format.
        rounded: the second moments of ``x~`` (inputs, inputs).
        crossed: those of ``x`` with ``x~``.
        energy: the mean of ``(W x)^2``, (outputs,).
    """

    weight: Tensor
    unit: Tensor
    rule: Rule
    rounded: Tensor
    crossed: Tensor
    energy: Tensor

    def errors(self, candidate: Tensor) -> Tensor:
        """The mean of ``(W x - W~ x~)^2`` per output (outputs,)."""
        own = ((candidate @ self.rounded) * candidate).sum(1)
        return own - 2 * ((self.weight @ self.crossed) * candidate).sum(1) + self.energy

    def neighbours(self) -> tuple[Tensor, Tensor]:
        """The numbers of the format next to each weight, below and above; both are the bound beyond it."""
        grid = grid_of(self.rule).to(self.weight)
        place = (self.weight / self.unit).contiguous()
        below = (torch.searchsorted(grid, place, right=True) - 1).clamp(0, len(grid) - 1)
        above = torch.where(place > grid[below], below + 1, below).clamp_max(len(grid) - 1)
        return grid[below] * self.unit, grid[above] * self.unit

    def nearest(self, numbers: Tensor) -> Tensor:
        """Numbers on the grid of the weights."""
        low, high = (bound.to(numbers) for bound in grid_of(self.rule)[[0, -1]])
        place = (numbers / self.unit).clamp(low, high)
        grid = grid_of(self.rule).to(numbers)
        above = torch.searchsorted(grid, place.contiguous()).clamp(1, max(len(grid) - 1, 1))
        nearer = (place - grid[above - 1]) <= (grid[above] - place)
        return torch.where(nearer, grid[above - 1], grid[above]) * self.unit

    def better(self, first: Tensor, second: Tensor) -> Tensor:
        """The candidate with the smaller error, for each output."""
        return torch.where((self.errors(second) < self.errors(first))[:, None], second, first)


def grid_of(rule: Rule) -> Tensor:
    """Every mantissa of a format once, rising, float64."""
    if rule.format is not None:
        return torch.from_numpy(rule.format.numbers).double()
    low, high = rule.mantissas
    return torch.arange(low, high + 1, dtype=torch.float64)


class LearnedRounding(LayerMethod):
    """A method that finds the rounding of a layer from second moments of its inputs."""

    order = 50

    @abstractmethod
    def solve(self, problem: Rounding) -> Tensor:
        """The rounded weights (outputs, inputs), numbers of the format."""

    def adjust_layer(self, layer: Any, exact: Tensor, rounded: Tensor, seed: int) -> None:
        quantizer = _learnable(layer)
        if quantizer is None:
            return
        generator = torch.Generator().manual_seed(seed)
        weight = layer.weight.detach()
        groups = getattr(layer, "groups", 1)
        parts = zip(
            weight.flatten(1).chunk(groups),
            _units(quantizer, weight).chunk(groups),
            _columns(layer, exact, groups),
            _columns(layer, rounded, groups),
            strict=True,
        )
        solved = [self._solve_group(quantizer.rule, generator, *part) for part in parts]
        layer.weight.copy_(torch.cat(solved).view_as(weight))

    def _solve_group(
        self,
        rule: Rule,
        random: torch.Generator,
        weight: Tensor,
        unit: Tensor,
        exact: Tensor,
        rounded: Tensor,
    ) -> Tensor:
        if exact.shape[1] > POSITIONS:
            chosen = torch.randint(exact.shape[1], (POSITIONS,), generator=random)
            exact, rounded = exact[:, chosen], rounded[:, chosen]
        count = exact.shape[1]
        moments = rounded @ rounded.T / count, exact @ rounded.T / count
        energy = (weight @ exact).square().mean(1)
        with torch.enable_grad():
            return self.solve(Rounding(weight, unit, rule, *moments, energy)).detach()


def _learnable(layer: Any) -> Quantizer | None:
    """The quantizer of a layer's weights, where their rounding can be learned."""
    if not hasattr(layer, "weight_quant") or is_conv_transposed(layer):
        return None
    quantizer: Quantizer = layer.weight_quant.quantizer
    return quantizer if quantizer.spec.width <= WIDEST else None


def _units(quantizer: Quantizer, weight: Tensor) -> Tensor:
    """One per output (outputs, 1)."""
    return torch.from_numpy(quantizer.unit).to(weight).expand(len(weight)).reshape(-1, 1)


def _columns(layer: Any, x: Tensor, groups: int) -> list[Tensor]:
    """What each output's sum reads, (inputs, positions), per group."""
    if isinstance(layer, nn.Linear):
        return [x.reshape(-1, x.shape[-1]).T]
    unfold = unfoldNd.UnfoldNd(
        layer.kernel_size, dilation=layer.dilation, padding=layer.padding, stride=layer.stride
    )
    return [unfold(part).transpose(0, 1).flatten(1) for part in x.chunk(groups, 1)]
