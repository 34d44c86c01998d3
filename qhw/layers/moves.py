"""Layers that change no number: their result is in the format of their input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Reshape(nn.Module):
    """Another shape for every sample; the batch axis stays."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)

    def extra_repr(self) -> str:
        return str(self.shape)


class Permute(nn.Module):
    """Axes in another order, the batch axis in front: ``order`` is that of ``torch.permute``."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = tuple(order)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)

    def extra_repr(self) -> str:
        return str(self.order)


class Slice(nn.Module):
    """Every ``step``-th index from ``start`` to before ``stop`` along an axis (the batch is axis 0)."""

    def __init__(self, axis: int, start: int, stop: int, step: int = 1) -> None:
        super().__init__()
        self.axis, self.start, self.stop, self.step = axis, start, stop, step

    def forward(self, x: Tensor) -> Tensor:
        whole = [slice(None)] * self.axis
        return x[(*whole, slice(self.start, self.stop, self.step))]

    def extra_repr(self) -> str:
        return f"axis={self.axis}, {self.start}:{self.stop}:{self.step}"


class Concat(nn.Module):
    """Tensors joined along an axis (the batch is axis 0)."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class Pad(nn.Module):
    """A number around each sample: how many before and behind, for every axis but the batch."""

    def __init__(self, before: Sequence[int], behind: Sequence[int], value: float = 0.0) -> None:
        super().__init__()
        self.before, self.behind, self.value = tuple(before), tuple(behind), value

    def forward(self, x: Tensor) -> Tensor:
        return self.padded(x, self.value)

    def padded(self, x: Tensor, value: float) -> Tensor:
        """``x`` with that number around it."""
        sides = zip(reversed(self.before), reversed(self.behind), strict=True)
        return functional.pad(x, [count for pair in sides for count in pair], value=value)

    def extra_repr(self) -> str:
        return f"before={self.before}, behind={self.behind}, value={self.value}"


class Repeat(nn.Module):
    """Every number so many times along each spatial axis: nearest-neighbour upsampling."""

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.factors = tuple(factors)

    def forward(self, x: Tensor) -> Tensor:
        for axis, factor in enumerate(self.factors, 2):
            x = x.repeat_interleave(factor, axis)
        return x

    def extra_repr(self) -> str:
        return str(self.factors)


class Largest(nn.Module):
    """The maximum over axes (the batch is axis 0), which stay with length 1."""

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(self.axes, keepdim=True)

    def extra_repr(self) -> str:
        return f"axes={self.axes}"
