"""Trained weights from a file that ``torch.save(net.state_dict(), path)`` wrote; nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhw.errors import InputError
from qhw.outside.weights import read_weights

if TYPE_CHECKING:
    from torch import nn

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training loops store a state dict among other things (Lightning: ``state_dict``)."""

LARGEST_STATE = 1 << 32
"""Bytes of a file of weights at most."""

SAVED = "what torch.save(net.state_dict(), path) writes"


def load_state(module: nn.Module, path: Path) -> None:
    """Put the weights of a file into a network.

    Raises:
        InputError: the file is no such file, or its weights are those of another network.
    """
    state = _read(path)
    try:
        module.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise InputError(
            f"{path} holds the weights of another network: {' '.join(lines)[:400]}",
            hint="give the function that makes the network that was trained",
        ) from None


def _read(path: Path) -> dict[str, Any]:
    import torch

    state = read_weights(path, "state", LARGEST_STATE, hint=f"give {SAVED}")
    for name in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} is not a state dict", allowed=SAVED)
    return {name.removeprefix("module."): value for name, value in state.items()}
