"""Batch norms' statistics are found again behind quantised layers."""

from __future__ import annotations

import torch

from qhw.layers import QuantBatchNorm
from qhw.ptq.methods.base import Method, Subject, restart_constants


class Reestimation(Method):
    """Running mean and variance become those of the quantised network (arXiv 2203.11086).

    In one pass, in which each batch norm already normalises by what it has found. Our own: Brevitas's
    ``norm_correction_mode`` looks for torch's batch norms, and ours is fixed point.
    """

    title = "batch norms' statistics are found again (arXiv 2203.11086)"
    order = 70

    def adjust(self, subject: Subject) -> int:
        norms = [layer for layer in subject.quantised.modules() if isinstance(layer, QuantBatchNorm)]
        kept = [norm.momentum for norm in norms]
        with torch.no_grad():
            for norm in norms:
                norm.train()
                norm.momentum = None
                norm.num_batches_tracked.zero_()
            subject.quantised(subject.samples)
            for norm, momentum in zip(norms, kept, strict=True):
                norm.momentum = momentum
                norm.eval()
                restart_constants(norm)
        return len(norms)


METHOD = Reestimation()
