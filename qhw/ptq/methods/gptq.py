"""GPTQ."""

from __future__ import annotations

import warnings

import torch
from brevitas.graph.gptq import gptq_mode

from qhw.ptq.methods.base import Method, Subject, sum_layers
from qhw.ptq.observation import batches


class Gptq(Method):
    """Weights are rounded column by column, and the error moved on by the inverse Hessian (arXiv 2210.17323).

    Equations 2 and 3 of the paper, by Brevitas's ``gptq_mode``, on inputs as the quantised layers before give
    them, columns of large inputs first. Transposed convolutions stay as they are.
    """

    title = "GPTQ (arXiv 2210.17323)"
    order = 50

    def adjust(self, subject: Subject) -> int:
        network = subject.quantised
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with gptq_mode(network, create_weight_orig=False, act_order=True) as mode:
                for _ in range(mode.num_layers):
                    for batch in batches(subject.samples):
                        mode.model(batch)
                    mode.update()
        network.recompile()  # Brevitas put a forward() of its own in place
        return len(list(sum_layers(network)))


METHOD = Gptq()
