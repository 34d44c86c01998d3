"""Samples out of nothing but a network: inputs whose statistics are those that its batch norms remember."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from qhw.convert import NORMS
from qhw.errors import InputError
from qhw.ptq.observation import BATCH

logger = logging.getLogger(__name__)

STEPS = 200
RATE = 0.1
"""Of Adam, in units of the samples' spread."""

LARGEST_PIXEL = 255.0


def distil(network: fx.GraphModule, shape: tuple[int, ...], count: int, *, pixels: bool, seed: int) -> Tensor:
    """Samples (count, *shape) that a network's batch norms take for the data it was trained on.

    They start as noise and are trained until the mean and the deviation of what each batch norm reads are its
    running ones (ZeroQ, arXiv 2001.00281, section 3.1); errors are relative to the running deviation, so that
    every layer counts alike.

    Args:
        network: a traced float network; it stays as it is.
        pixels: whether samples are whole numbers of 0..255; else they start as standard normal ones.

    Raises:
        InputError: the network has no batch norm with running statistics.
    """
    norms = [m for m in network.modules() if isinstance(m, NORMS) and m.running_mean is not None]
    if not norms:
        raise InputError(
            "the network has no batch norm, from whose statistics samples could be made without data",
            allowed="a network with batch norms, or data",
            hint="give --data",
        )
    generator = torch.Generator().manual_seed(seed)
    middle, spread = (LARGEST_PIXEL / 2, LARGEST_PIXEL / 4) if pixels else (0.0, 1.0)
    made = []
    for size in (min(BATCH, count - done) for done in range(0, count, BATCH)):
        start = middle + spread * torch.randn(max(size, 2), *shape, generator=generator)
        made.append(_matched(network, norms, start, spread, pixels)[:size])
    return torch.cat(made)


def _matched(
    network: fx.GraphModule, norms: Sequence[nn.Module], start: Tensor, spread: float, pixels: bool
) -> Tensor:
    samples = start.clamp(0, LARGEST_PIXEL) if pixels else start
    samples = samples.requires_grad_()
    optimizer = torch.optim.Adam([samples], RATE * spread)
    losses: list[Tensor] = []
    hooks = [norm.register_forward_pre_hook(_statistics(losses)) for norm in norms]
    try:
        for _ in range(STEPS):
            losses.clear()
            optimizer.zero_grad()
            network(samples)
            loss = torch.stack(losses).sum()
            (samples.grad,) = torch.autograd.grad(loss, samples)
            optimizer.step()
            if pixels:
                with torch.no_grad():
                    samples.clamp_(0, LARGEST_PIXEL)
    finally:
        for hook in hooks:
            hook.remove()
    logger.info("distilled %d samples: the statistics differ by %.3g", len(samples), loss.item())
    return samples.detach().round() if pixels else samples.detach()


def _statistics(losses: list[Tensor]) -> Callable[[Any, tuple[Tensor, ...]], None]:
    """A hook that notes how far a batch norm's input is from its running statistics."""

    def note(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        channels = inputs[0].transpose(0, 1).flatten(1)
        deviation = (norm.running_var + norm.eps).sqrt()
        mean = (channels.mean(1) - norm.running_mean) / deviation
        ratio = channels.std(1) / deviation - 1
        losses.append(mean.square().mean() + ratio.square().mean())

    return note
