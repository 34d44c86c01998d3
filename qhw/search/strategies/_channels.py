"""Channels of a network that can be left out: which ones go together, and how they are silenced.

A channel that a layer's weights make is read by other layers, channel by channel, up to the next weights.
Results that meet in an addition share their channels. Where the batch norm behind each of these layers (or,
without one, the layer itself) gives 0 in a channel, so does all that lies between: the exact graph's pass
(:mod:`qhw.graph.passes.constant_channels`) then leaves the channel out of the design.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from qhw.formats import parse_format
from qhw.layers import QuantBatchNorm
from qhw.search.network import Variants


@dataclass(frozen=True)
class ChannelGroup:
    """Layers that share their channels.

    Args:
        channels: how many.
        gates: paths of the layers whose results are silenced.
    """

    channels: int
    gates: tuple[str, ...]


def channel_groups(variants: Variants) -> list[ChannelGroup]:
    """The groups whose channels can be left out: those of no input, no output and no concatenation."""
    network, owner = variants.base, dict[fx.Node, int]()
    groups: list[_Group] = []

    def joined(numbers: Sequence[int]) -> int:
        first, *others = dict.fromkeys(numbers)
        for other in others:
            groups[first].take(groups[other])
            for node, number in owner.items():
                owner[node] = first if number == other else number
        return first

    for node in variants.nodes:
        if node.op == "placeholder":
            groups.append(_Group(fixed=True))
            owner[node] = len(groups) - 1
            continue
        sources = [owner[source] for source in node.all_input_nodes if source in owner]
        layer = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        weight = getattr(layer, "weight", None)
        if layer is not None and getattr(layer, "weight_quant", None) is not None:
            assert isinstance(weight, Tensor)
            groups.append(_Group(channels=len(weight)))
            owner[node] = len(groups) - 1
            if getattr(layer, "groups", 1) > 1:  # depthwise: channel by channel
                owner[node] = joined([sources[0], owner[node]])
            group = groups[owner[node]]
            group.fixed |= group.channels != len(weight)
            gate = _gate(network, node)
            group.gates.append(gate)
            group.fixed |= gate == node.target and not _all_have_zero(variants, node)
        elif sources:
            owner[node] = joined(sources)
        if node.op == "output" and sources:
            groups[owner[node]].fixed = True
    found = (groups[number] for number in dict.fromkeys(owner.values()))
    return [
        ChannelGroup(g.channels, tuple(sorted(set(g.gates)))) for g in found if not g.fixed and g.channels > 1
    ]


@dataclass
class _Group:
    channels: int = 0
    fixed: bool = False

    def __post_init__(self) -> None:
        self.gates: list[str] = []

    def take(self, other: _Group) -> None:
        """Both are one."""
        self.fixed |= other.fixed or self.channels != other.channels
        self.gates += other.gates


def _gate(network: fx.GraphModule, node: fx.Node) -> str:
    """The batch norm that alone reads a layer with weights; else that layer."""
    users = list(node.users)
    if len(users) == 1 and users[0].op == "call_module":
        path = str(users[0].target)
        if isinstance(network.get_submodule(path), QuantBatchNorm):
            return path
    return str(node.target)


def _all_have_zero(variants: Variants, node: fx.Node) -> bool:
    """Whether 0 is among the numbers of all formats that a layer's weights may have."""
    names = [option for v in variants.variables(node) for option in variants.space.variables[v].options]
    formats = [parse_format(name) for name in names]
    return all(0 in format.mantissa_of(format.codes()) for format in formats)


@contextmanager
def gated(network: nn.Module, groups: Sequence[ChannelGroup], masks: Sequence[Tensor]) -> Iterator[None]:
    """While it is entered, the results of the groups' layers are multiplied by masks (channels,) each."""
    handles = []
    for group, mask in zip(groups, masks, strict=True):
        for path in group.gates:
            handles.append(network.get_submodule(path).register_forward_hook(_Gate(mask)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Gate:
    """A forward hook: the channels of a result times a mask."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * self.mask.to(output).reshape(1, -1, *[1] * (output.dim() - 2))


@contextmanager
def silenced(network: nn.Module, groups: Sequence[ChannelGroup], masks: Sequence[Tensor]) -> Iterator[None]:
    """While it is entered, the parameters that make the masked channels are 0."""
    before: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for group, mask in zip(groups, masks, strict=True):
            for path in group.gates:
                layer = network.get_submodule(path)
                for parameter in (layer.weight, layer.bias):
                    if isinstance(parameter, Tensor):
                        before.append((parameter, parameter.clone()))
                        parameter[mask == 0] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in before:
                parameter.copy_(values)
