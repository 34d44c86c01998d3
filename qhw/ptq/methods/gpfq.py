"""GPFQ."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from brevitas.graph.gpfq import GPFQ
from brevitas.graph.utils import is_conv_transposed
from torch import Tensor

from qhw.ptq.methods.base import LayerMethod
from qhw.ptq.observation import batches

POSITIONS = 1 << 16
"""Sums of a layer over all samples, at most, that moments are taken from: else from fewer samples."""


class Gpfq(LayerMethod):
    """Weights are rounded one by one, so that sums follow the float network's (arXiv 2201.11113).

    By Brevitas's ``GPFQ``, columns of large inputs first. Ours: its moments are made of inputs that are there
    already, in place of two runs of the network for each layer. Transposed convolutions stay as they are.
    """

    title = "GPFQ (arXiv 2201.11113)"
    order = 50

    def adjust_layer(self, layer: Any, exact: Tensor, rounded: Tensor, seed: int) -> None:
        if is_conv_transposed(layer):
            return
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = GPFQ(layer, "", act_order=True, len_parallel_layers=1, create_weight_orig=True)
            positions = _columns(state, rounded[:1]).shape[-1] * len(rounded)
            every = math.ceil(positions / POSITIONS)
            for one, other in zip(batches(rounded[::every]), batches(exact[::every]), strict=True):
                x, float_x = (_columns(state, part) for part in (one, other))
                state.H += x.bmm(x.transpose(2, 1))
                state.G += x.bmm(float_x.transpose(2, 1))
            state.single_layer_update()
        del layer.weight_orig


def _columns(state: GPFQ, inputs: Tensor) -> Tensor:
    """What each sum reads, (groups, inputs, positions), so scaled that moments are means."""
    found: Tensor = state.process_input((inputs,))
    return found * math.sqrt(1 / found.shape[-1])


METHOD = Gpfq()
