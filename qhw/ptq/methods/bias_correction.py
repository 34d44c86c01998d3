"""Bias correction."""

from __future__ import annotations

import warnings

import torch
from brevitas.graph.calibrate import bias_correction_mode
from torch import fx, nn

from qhw.convert import NORMS, WEIGHTED
from qhw.ptq.methods.base import Method, Subject, layer_at, norm_behind, restart_constants, sum_layers
from qhw.ptq.observation import batches


class BiasCorrection(Method):
    """The mean error of a layer's result goes into its bias (arXiv 1906.04721, section 4.2), by Brevitas.

    ``bias_correction_mode`` finds the errors and corrects layers that have a bias. Ours: in front of a batch
    norm there is none, and its running mean takes the correction; layers with neither get a bias of 0 first.
    Errors are those of weights alone, given float inputs: behind GPFQ, which has made up for errors of inputs
    too, it raises that of the result.
    """

    title = "bias correction (arXiv 1906.04721)"
    order = 60

    def restructure(self, network: fx.GraphModule) -> int:
        places = 0
        for node in network.graph.nodes:
            layer = layer_at(network, node)
            readers = [layer_at(network, user) for user in node.users]
            if not isinstance(layer, WEIGHTED) or layer.bias is not None:
                continue
            if not (len(readers) == 1 and isinstance(readers[0], NORMS)):
                weight = layer.weight
                channels = getattr(layer, "out_features", None) or layer.out_channels
                layer.bias = nn.Parameter(weight.detach().new_zeros(channels))
                places += 1
        return places

    def adjust(self, subject: Subject) -> int:
        network = subject.quantised
        mode = bias_correction_mode(network, skip_if_no_bias=True)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mode:
                for batch in batches(subject.samples):
                    network(batch)
            found = mode.bias_correction
            for node, layer in sum_layers(network):
                norm = norm_behind(network, node)
                name = str(node.target)
                if layer.bias is not None:
                    layer.bias_quant.quantizer.start(layer.bias)
                elif norm is not None and name in found.correction_map:
                    norm.running_mean -= found.correction_map[name] / found.iterations[name]
                    restart_constants(norm)
        return len(found.correction_map)


METHOD = BiasCorrection()
