"""A network behind the preprocessing that it was trained with."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qhw.layers.arithmetic import Affine

LAYER = "preprocess"
"""The name of the layer in front."""

BITS = 16
"""Of its two constants per channel, so that they cost no accuracy."""


class Preprocessed(nn.Module):
    """``network(x * gain + offset)``; the network's layers and parameters keep their names.

    So settings by layer, state dicts and messages name what the user wrote.

    Args:
        network: the network as it was trained; its layers are shared, not copied.
        gain, offset: arrays that broadcast over a batch.
    """

    def __init__(self, network: nn.Module, gain: NDArray[Any], offset: NDArray[Any]) -> None:
        super().__init__()
        for name, child in network.named_children():
            self.add_module(name, child)
        for name, parameter in network.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in network.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.add_module(LAYER, Affine(torch.from_numpy(gain).float(), torch.from_numpy(offset).float()))
        self.__dict__["network"] = network  # not a layer of its own: that would give every name a prefix

    def forward(self, x: Tensor) -> Tensor:
        # Not called as a module: its layers are this module's own, which is what tracing looks them up in.
        result: Tensor = self.__dict__["network"].forward(self.get_submodule(LAYER)(x))
        return result

    def train(self, mode: bool = True) -> Preprocessed:
        self.__dict__["network"].train(mode)
        return super().train(mode)
