"""LLM-FP4's pre-shifted exponent bias: powers of two per channel of activations, which weights take up."""

from __future__ import annotations

from itertools import chain

import torch
from brevitas.graph.base import ModuleInstanceTransformTensor
from torch import Tensor, fx

from qhw.ptq.equalization import ActivationRanges, equalizable
from qhw.ptq.methods.base import Method
from qhw.ptq.observation import batches

LARGEST_SHIFT = 3
"""Bits by which a channel is shifted at most: weights behind it lose as many."""


class PreShift(Method):
    """Each channel of activations has its own exponent bias, folded into the weights (LLM-FP4).

    arXiv 2310.16836, pre-shifted exponent bias: a channel's bias differs from the tensor's by a whole number
    of exponents, and multiplying the weights that read it by that power of two leaves the tensor one bias.
    The shift brings the channel's largest magnitude next to the tensor's. Brevitas finds the regions and
    rescales the layers; ours are the factors, which are powers of two, and so exact.
    """

    title = "a channel's exponent bias, folded into weights (LLM-FP4, arXiv 2310.16836)"
    order = 22

    def prepare(self, network: fx.GraphModule, samples: Tensor) -> int:
        with equalizable(network) as view, torch.no_grad():
            shifts = _Shifts(view)
            shifts.setup()
            for batch in batches(samples):
                view(batch)
            factors, _ = shifts.apply(0.0)
        return len(factors)


class _Shifts(ActivationRanges):
    """Powers of two as factors."""

    def scaled(self, alpha: float) -> tuple[list[Tensor], list[object]]:
        factors = []
        for region in self.regions:
            layers = list(chain(region.srcs.values(), region.sinks.values()))
            known = (self.float_act_map[name] for name in region.sinks_names)
            found = [ranges for ranges in known if ranges is not None]
            is_whole = len(found) == len(region.sinks_names) and all(
                x.weight_axis is not None for x in layers
            )
            if not is_whole or {len(ranges) for ranges in found} != {region.max_shape_srcs}:
                continue
            factors.append(_powers(torch.stack(found).amax(0)))
            for layer in layers:
                for rewriter in layer.instantiate_rewriters(ModuleInstanceTransformTensor, factors[-1]):
                    rewriter.apply(self.model)
        return factors, []


def _powers(ranges: Tensor) -> Tensor:
    """By what each channel is multiplied so that its range comes next to the widest; 1 where it is silent."""
    shifts = (ranges.max() / ranges).log2().floor().clamp(0, LARGEST_SHIFT)
    return torch.where(ranges > 0, torch.exp2(shifts), 1.0)


METHOD = PreShift()
