"""A traced float network as Brevitas's equalization reads it."""

from __future__ import annotations

import copy
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from brevitas.graph.equalize import GraphActivationEqualization
from torch import Tensor, fx, nn

from qhw.convert import NORMS
from qhw.layers.arithmetic import Add
from qhw.layers.moves import Reshape
from qhw.ptq.methods.base import layer_at

_KERNELS: dict[int, Callable[..., Any]] = {2: nn.Conv1d, 3: nn.Conv2d}
"""The convolution over a whole sample of so many axes."""


@contextmanager
def equalizable(network: fx.GraphModule) -> Iterator[fx.GraphModule]:
    """A network of the same layers and the same function that Brevitas's equalization can go through.

    Brevitas follows additions that are functions, and stops where channels become features: an ``Add`` is
    shown to it as ``operator.add``, and a linear layer behind a flattening as the convolution over the whole
    sample that it is. Hidden from it are a layer that is called twice, of which it would scale both calls for
    one, and a batch norm without a gain, for which it fails. What it does to weights is put back into the
    network when the context ends.
    """
    trained = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    view = fx.GraphModule(network, copy.deepcopy(network.graph))
    calls = Counter(str(node.target) for node in view.graph.nodes if node.op == "call_module")
    windows: list[tuple[nn.Linear, Any]] = []
    for node in list(view.graph.nodes):
        layer = layer_at(view, node)
        if isinstance(layer, Add) and _same_channels(node):
            node.op, node.target = "call_function", operator.add
        elif isinstance(layer, nn.Flatten | Reshape):
            windows += _as_windows(view, node, calls)
        elif _is_hidden(layer, calls[str(node.target)]):
            view.add_submodule(f"{node.name}_hidden", nn.Sequential(layer_at(view, node)))
            node.target = f"{node.name}_hidden"
    view.graph.lint()
    view.recompile()
    with torch.no_grad():
        yield view.eval()
        for linear, window in windows:
            linear.weight = nn.Parameter(window.weight.reshape(linear.weight.shape))
            if linear.bias is not None:
                linear.bias = nn.Parameter(window.bias)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trained[name])


class ActivationRanges(GraphActivationEqualization):  # type: ignore[misc]
    """Brevitas's activation equalization on the largest magnitude of each channel.

    Its own wants the samples of all layers that read a region to have one shape, which a pool between them
    changes; their channels are the same.
    """

    float_act_map: dict[str, Tensor | None]

    def apply(self, alpha: float) -> tuple[list[Tensor], list[object]]:
        self.remove_hooks()
        axes = {name: region.act_axis for region in self.regions for name in region.sinks_names}
        self.float_act_map = {
            name: _per_channel(ranges, axes[name]) for name, ranges in self.float_act_map.items()
        }
        factors, rewriters = self.scaled(alpha)
        return [factor for factor in factors if factor.numel() > 1], rewriters

    def scaled(self, alpha: float) -> tuple[list[Tensor], list[object]]:
        """Scale every region; returns the factors, and what Brevitas did."""
        result: tuple[list[Tensor], list[object]] = super().apply(alpha)
        return result


def _per_channel(ranges: Tensor | None, axis: int | None) -> Tensor | None:
    """One sample's ranges by channel; None where its channels are not known."""
    if ranges is None or axis is None:
        return None
    return ranges.movedim(axis, 0).reshape(ranges.shape[axis], -1).amax(1)


def _is_hidden(layer: Any, calls: int) -> bool:
    is_bare = isinstance(layer, NORMS) and layer.weight is None
    return is_bare or (calls > 1 and next(layer.parameters(), None) is not None)


def _same_channels(node: fx.Node) -> bool:
    return len({source.meta["shape"][:1] for source in node.all_input_nodes}) == 1


def _as_windows(view: fx.GraphModule, node: fx.Node, calls: Counter[str]) -> Iterator[tuple[nn.Linear, Any]]:
    """Linear layers that read a flattened sample, as convolutions in front of the flattening."""
    source = node.all_input_nodes[0]
    shape, readers = source.meta["shape"], [layer_at(view, user) for user in node.users]
    whole = node.meta["shape"] == (math.prod(shape),) and len(shape) in _KERNELS
    if not whole or not all(isinstance(x, nn.Linear) for x in readers):
        return
    if any(calls[str(user.target)] > 1 for user in node.users):
        return
    for user, linear in zip(list(node.users), readers, strict=True):
        path = f"{user.name}_window"
        kernel = shape[1:] if len(shape) > 2 else shape[1]
        window = _KERNELS[len(shape)](shape[0], linear.out_features, kernel, bias=linear.bias is not None)
        window.weight = nn.Parameter(linear.weight.detach().reshape(-1, *shape))
        if linear.bias is not None:
            window.bias = nn.Parameter(linear.bias.detach())
        view.add_submodule(path, window)
        with view.graph.inserting_before(user):
            placed = view.graph.call_module(path, (source,))
        placed.meta = {"path": path, "shape": (linear.out_features, *[1] * (len(shape) - 1))}
        view.add_submodule(f"{path}_flat", nn.Flatten())
        user.target, user.args = f"{path}_flat", (placed,)
        yield linear, window
    view.graph.erase_node(node)
