"""Samples of a class out of nothing but a trained network, for networks whose data cannot be had."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

STEPS, RATE, BATCH = 80, 0.1, 64

WEIGHT = 0.1
"""Of the class against the statistics."""


def distilled(
    network: nn.Module,
    shape: tuple[int, ...],
    count: int,
    classes: int,
    seed: int,
    around: tuple[float, float] = (0.0, 1.0),
) -> NDArray[np.float32]:
    """Samples (count, *shape) that the network takes for its training data, as many of each class.

    They start as noise and are trained until the mean and deviation of what each batch norm reads are its
    running ones, and the network answers with the class that each was drawn for (DeepInversion, arXiv
    1912.08795, equations 1 and 4, without its image priors).

    Args:
        network: in eval mode; it stays as it is.
        classes: of its logits; 0 where they are none, which leaves the statistics alone.
        around: mean and deviation of the noise, in the units of the samples.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(seed)
    made = [
        _batch(network, norms, torch.randn(BATCH, *shape, generator=generator), classes, generator, around)
        for _ in range(0, count, BATCH)
    ]
    return torch.cat(made)[:count].numpy()


def _batch(
    network: nn.Module,
    norms: list[nn.Module],
    noise: Tensor,
    classes: int,
    generator: torch.Generator,
    around: tuple[float, float],
) -> Tensor:
    drawn = torch.randint(classes, (len(noise),), generator=generator) if classes else None
    noise = noise.requires_grad_()
    middle, spread = around
    losses: list[Tensor] = []

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        channels = inputs[0].transpose(0, 1).flatten(1)
        deviation = (norm.running_var + norm.eps).sqrt()
        mean, ratio = (channels.mean(1) - norm.running_mean) / deviation, channels.std(1) / deviation - 1
        losses.append(mean.square().mean() + ratio.square().mean())

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    optimizer = torch.optim.Adam([noise], RATE)
    for _ in range(STEPS):
        losses.clear()
        logits = network(middle + spread * noise)
        loss = torch.stack(losses).sum()
        if drawn is not None:
            loss = loss + WEIGHT * nn.functional.cross_entropy(logits, drawn)
        (noise.grad,) = torch.autograd.grad(loss, noise)
        optimizer.step()
    for hook in hooks:
        hook.remove()
    return (middle + spread * noise).detach()
