"""A network behind the preprocessing that it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qhw.layers.arithmetic import Affine

LAYER = "preprocess"
"""The name of the layer in front; of several inputs, of each one's followed by ``_`` and the argument."""

BITS = 16
"""Of its two constants per channel, so that they cost no accuracy."""

_OWN = "(preprocessed)"
"""Where the network is kept; no layer can be called so."""

INPUT = "x"
"""What the only input is called."""


class Preprocessed(nn.Module):
    """``network(x * gain + offset)``; the network's layers and parameters keep their names.

    So settings by layer, state dicts and messages name what the user wrote.

    Args:
        network: the network as it was trained; its layers are shared, not copied.
        constants: gain and offset, arrays that broadcast over a batch, of each input that has any.
        arguments: the names of all inputs, in the order in which the network takes them.
    """

    def __init__(
        self,
        network: nn.Module,
        constants: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
        arguments: Sequence[str] = (INPUT,),
    ) -> None:
        super().__init__()
        for name, child in network.named_children():
            self.add_module(name, child)
        for name, parameter in network.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in network.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        layers = {name: LAYER if len(arguments) == 1 else f"{LAYER}_{name}" for name in constants}
        for name, (gain, offset) in constants.items():
            self.add_module(
                layers[name], Affine(torch.from_numpy(gain).float(), torch.from_numpy(offset).float())
            )
        # Not a layer of its own: that would give every name a prefix.
        self.__dict__[_OWN] = (network, layers, tuple(arguments))

    @property
    def preprocessed_network(self) -> nn.Module:
        """The network itself."""
        network: nn.Module = self.__dict__[_OWN][0]
        return network

    @property
    def preprocess_layers(self) -> dict[str, str]:
        """The names of the layers in front, by the inputs that they are for."""
        layers: dict[str, str] = self.__dict__[_OWN][1]
        return layers

    @property
    def preprocess_arguments(self) -> tuple[str, ...]:
        """The names of all inputs, in order."""
        arguments: tuple[str, ...] = self.__dict__[_OWN][2]
        return arguments

    def forward(self, *inputs: Tensor) -> Tensor:
        layers = self.preprocess_layers
        prepared = [
            self.get_submodule(layers[name])(x) if name in layers else x
            for name, x in zip(self.preprocess_arguments, inputs, strict=True)
        ]
        # Not called as a module: its layers are this module's own, which is what tracing looks them up in.
        result: Tensor = self.preprocessed_network.forward(*prepared)
        return result

    def train(self, mode: bool = True) -> Preprocessed:
        self.preprocessed_network.train(mode)
        return super().train(mode)
