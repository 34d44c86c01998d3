"""Batch norms become part of the convolutions in front of them."""

from __future__ import annotations

from typing import Any

import torch
from brevitas.graph.utils import get_output_channel_dim
from brevitas.nn.utils import merge_bn
from torch import fx, nn

from qhw.convert import NORMS, WEIGHTED
from qhw.ptq.methods.base import Method, layer_at


class Folding(Method):
    """``W' = W gamma / sigma``, ``b' = beta + (b - mu) gamma / sigma`` (arXiv 1712.05877, eq. 14).

    By Brevitas's ``merge_bn``.

    A folded network has no Affine operations left; its weights' ranges differ more from channel to channel,
    which per-channel scales or ``equalize`` answer. Ours: the search for the places. Brevitas's own
    ``MergeBatchNorm`` folds a layer twice that is called twice, and fails without gamma and beta.
    """

    title = "batch norms are folded into convolutions (arXiv 1712.05877)"
    order = 10

    def restructure(self, network: fx.GraphModule) -> int:
        called = [node.target for node in network.graph.nodes if node.op == "call_module"]
        places = 0
        for node in list(network.graph.nodes):
            norm = layer_at(network, node)
            if not isinstance(norm, NORMS) or norm.running_mean is None:
                continue
            source = node.all_input_nodes[0]
            layer = layer_at(network, source)
            is_own = len(source.users) == 1 and called.count(source.target) == 1
            if isinstance(layer, WEIGHTED) and is_own and _channels_of(layer) == norm.num_features:
                _fold(layer, norm)
                node.replace_all_uses_with(source)
                network.graph.erase_node(node)
                places += 1
        network.delete_all_unused_submodules()
        network.recompile()
        return places


def _channels_of(layer: Any) -> int:
    """Output channels along one axis of the weight: of a grouped transposed convolution, not all."""
    return int(layer.weight.shape[get_output_channel_dim(layer)])


def _fold(layer: Any, norm: Any) -> None:
    with torch.no_grad():
        if norm.weight is None:
            norm.weight = nn.Parameter(torch.ones_like(norm.running_mean))
        if norm.bias is None:
            norm.bias = nn.Parameter(torch.zeros_like(norm.running_mean))
        merge_bn(layer, norm, get_output_channel_dim(layer))


METHOD = Folding()
