"""GPFQ."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from brevitas.graph.calibrate import quantization_status_manager
from brevitas.graph.gpfq import gpfq_mode
from brevitas.graph.utils import remove_weight_orig
from brevitas.utils.torch_utils import StopFwdException

from qhw.ptq.methods.base import Method, Subject, sum_layers
from qhw.ptq.observation import batches, unquantised


class Gpfq(Method):
    """Weights are rounded one by one, so that sums follow the float network's (arXiv 2201.11113).

    By Brevitas's ``gpfq_mode``. Ours: its pass in float has to switch the quantizers of our element-wise
    layers off too, which Brevitas does not know.
    """

    title = "GPFQ (arXiv 2201.11113)"
    order = 50

    def adjust(self, subject: Subject) -> int:
        network = subject.quantised
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _Mode(network, act_order=True) as mode:
                for _ in range(mode.num_layers):
                    for batch in batches(subject.samples):
                        mode.model(batch)
                    mode.update()
        network.recompile()  # Brevitas put a forward() of its own in place
        remove_weight_orig(network)
        return len(list(sum_layers(network)))


class _Mode(gpfq_mode):  # type: ignore[misc]
    def catch_stopfwd(self, *args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(StopFwdException):
            self.orig_forward(*args, **kwargs)
        off = quantization_status_manager(
            self.model,
            disable_act_quant=True,
            disable_weight_quant=True,
            disable_bias_quant=True,
            is_training=False,
        )
        with off, unquantised(self.model, parameters=False), contextlib.suppress(StopFwdException):
            self.orig_forward(*args, **kwargs)


METHOD = Gpfq()
