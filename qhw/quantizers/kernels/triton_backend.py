"""The third backend of the quantizers, for CUDA tensors: launches the kernels of ``triton_kernels``.

Imported when the first CUDA tensor comes, so that qhw never needs Triton elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from qhw.formats.modes import Overflow
from qhw.quantizers.kernels import triton_kernels as kernels
from qhw.quantizers.kernels.problem import (
    LARGEST_FRACTION,
    FloatGrid,
    Layout,
    ListGrid,
    Operands,
    Rule,
    Unit,
    layout_of,
    units_on,
)

TILE = 4096
"""Elements that one program works on."""

CHANNEL_TILE = 64
"""Channels of a tile where neighbours in memory belong to different ones."""

UNITS = 128
"""Scales that one program computes."""

OPTIONS: dict[str, Any] = {"num_warps": 8, "enable_fp_fusion": False}
"""How kernels are compiled: a product and a sum are rounded one after the other, as in ``eager``."""

# SAT_SYM is SAT with other bounds.
_OVERFLOW = {
    Overflow.SAT: kernels.SAT,
    Overflow.SAT_SYM: kernels.SAT,
    Overflow.SAT_ZERO: kernels.SAT_ZERO,
    Overflow.WRAP: kernels.WRAP,
    Overflow.WRAP_SM: kernels.WRAP_SM,
}

_GRIDS: dict[type, int] = {
    type(None): kernels.INTEGERS,
    FloatGrid: kernels.FLOATS,
    ListGrid: kernels.LISTED,
}


@dataclass(frozen=True)
class _Tiling:
    """How a tensor's memory is cut into the tiles of programs."""

    layout: Layout
    rows: int
    columns: int

    @classmethod
    def of(cls, layout: Layout) -> _Tiling:
        width, widest = (layout.channels, CHANNEL_TILE) if layout.interleaved else (layout.inner, TILE)
        columns = min(triton.next_power_of_2(max(width, 1)), widest)
        return cls(layout, min(triton.next_power_of_2(max(layout.outer, 1)), TILE // columns), columns)

    @property
    def tiles(self) -> int:
        """Tiles of each channel."""
        columns = 1 if self.layout.interleaved else triton.cdiv(self.layout.inner, self.columns)
        return int(triton.cdiv(self.layout.outer, self.rows) * columns)

    @property
    def programs(self) -> int:
        channels = self.layout.channels
        return self.tiles * int(triton.cdiv(channels, self.columns) if self.layout.interleaved else channels)

    @property
    def arguments(self) -> dict[str, Any]:
        layout = self.layout
        shape = {"outer": layout.outer, "channels": layout.channels, "inner": layout.inner}
        return {**shape, "ROWS": self.rows, "COLUMNS": self.columns, "INTERLEAVED": layout.interleaved}


@lru_cache(maxsize=1024)
def _numbers(rule: Rule, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A rule's numbers where kernels read them (as arguments, Triton would take them for float32)."""
    grid, modulus = rule.grid, float(2**rule.width)
    normal, gap, start = 1.0, 1.0, 0.0
    if isinstance(grid, FloatGrid):
        normal, gap = 2.0**grid.mantissa_bits, grid.gap
    elif isinstance(grid, ListGrid):
        start = 2.0 * grid.low
    activation = rule.activation
    values = [*rule.bounds(dtype), activation.slope, activation.cap]
    values += [modulus, 1.0 / modulus, -modulus / 2 if rule.signed else 0.0, normal, 1.0 / normal, gap, start]
    return torch.tensor(values, dtype=dtype, device=device)


@lru_cache(maxsize=1024)
def _table(rule: Rule, device: torch.device) -> Tensor | None:
    return torch.from_numpy(rule.grid.table).to(device) if isinstance(rule.grid, ListGrid) else None


def _arguments(operands: Operands, unit: Tensor, rule: Rule) -> dict[str, Any]:
    """What the kernels of a rule have in common."""
    x, slope = operands.x, rule.activation.slope
    operand = kernels.PLAIN if operands.gain is None else kernels.AFFINE
    return {
        "x_in": x,
        "other": operands.other,
        "gain": operands.gain,
        "offset": operands.offset,
        "unit_in": unit,
        "numbers": _numbers(rule, x.dtype, x.device),
        "table": _table(rule, x.device),
        "OPERAND": operand if operands.other is None else kernels.SUM,
        "AFFINE_CHANNELS": operands.gain is not None and operands.gain.numel() > 1,
        "UNIT_CHANNELS": operands.axis is not None and unit.numel() > 1,
        "ROUNDING": kernels.ROUNDING[rule.rounding],
        "OVERFLOW": _OVERFLOW[rule.overflow],
        "GRID": _GRIDS[type(rule.grid)],
        "SLOPE": {0.0: kernels.RELU, 1.0: kernels.NO_SLOPE}.get(slope, kernels.LEAKY),
        "HAS_CAP": rule.activation.cap != float("inf"),
        "PASSES": rule.passes,
        "FREE": rule.free,
        **_Tiling.of(operands.layout).arguments,
    }


def _launch(kernel: Any, like: Tensor, *programs: int, **arguments: Any) -> None:
    """Run so many programs of a kernel on the device of a tensor, be it the current one or not."""
    with torch.cuda.device_of(like):  # type: ignore[no-untyped-call]
        kernel[programs](**arguments, **OPTIONS)


def _finished(partial: Tensor) -> Tensor:
    """``partial`` (kinds, tiles, channels) summed over the tiles, in their order."""
    kinds, tiles, channels = partial.shape
    sums = partial.new_zeros((kinds, channels))
    if partial.numel():
        width = min(int(triton.next_power_of_2(channels)), 16)
        shape = {"tiles": tiles, "channels": channels, "TILES": 1024 // width, "CHANNELS": width}
        programs = (triton.cdiv(channels, width), kinds)
        _launch(kernels.finish_kernel, partial, *programs, partial=partial, sums=sums, **shape)
    return sums


class Triton:
    """The kernels for tensors of one kind of device; each method as in ``eager``."""

    def units(self, theta: Tensor, rule: Rule) -> Tensor:
        """What ``problem.units_on`` gives where scales are powers of two, in one launch."""
        if rule.free:
            return units_on(theta, rule)
        theta = theta.detach().reshape(-1).contiguous()
        unit = torch.empty(theta.shape, dtype=torch.float64, device=theta.device)
        shape = {"channels": theta.numel(), "LARGEST": float(LARGEST_FRACTION), "CHANNELS": UNITS}
        programs = triton.cdiv(theta.numel(), UNITS)
        _launch(kernels.unit_kernel, theta, programs, theta_in=theta, unit_out=unit, **shape)
        return unit

    def forward(self, operands: Operands, unit: Unit, rule: Rule) -> Tensor:
        y = torch.empty_like(operands.x)
        if y.numel():
            programs = _Tiling.of(operands.layout).programs
            _launch(kernels.forward_kernel, y, programs, **_arguments(operands, _on(unit, y), rule), y_out=y)
        return y

    def backward(self, operands: Operands, grad: Tensor, unit: Unit, rule: Rule) -> tuple[Tensor, Tensor]:
        dx = torch.empty_like(operands.x)
        return dx, self._backward(operands, grad, unit, rule, dx=dx, sums=1)[0]

    def affine_sums(self, operands: Operands, grad: Tensor, unit: Unit, rule: Rule) -> Tensor:
        return self._backward(operands, grad, unit, rule, sums=3)

    def affine_backward(
        self, operands: Operands, grad: Tensor, unit: Unit, rule: Rule, constant: Tensor, slope: Tensor
    ) -> Tensor:
        dx = torch.empty_like(operands.x)
        self._backward(operands, grad, unit, rule, dx=dx, statistics=(constant, slope))
        return dx

    def moments(self, x: Tensor, axis: int) -> Tensor:
        tiling = _Tiling.of(layout_of(x, axis))
        partial = _partial(2, tiling, x)
        if x.numel():
            rest = {"partial": partial, "tiles": tiling.tiles, **tiling.arguments}
            _launch(kernels.moments_kernel, x, tiling.programs, x_in=x, **rest)
        return _finished(partial)

    def _backward(
        self,
        operands: Operands,
        grad: Tensor,
        unit: Unit,
        rule: Rule,
        *,
        dx: Tensor | None = None,
        sums: int = 0,
        statistics: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """One pass over memory: the input gradient where there is a place for it, and so many sums."""
        tiling = _Tiling.of(operands.layout)
        partial = _partial(sums, tiling, grad)
        if grad.numel():
            constant, slope = statistics or (None, None)
            _launch(
                kernels.backward_kernel,
                grad,
                tiling.programs,
                **_arguments(operands, _on(unit, grad), rule),
                grad_in=grad,
                constant=constant,
                slope=slope,
                dx_out=dx,
                partial=partial,
                tiles=tiling.tiles,
                WITH_DX=dx is not None,
                SUMS=sums,
                WITH_STATISTICS=statistics is not None,
            )
        return _finished(partial) if sums else partial


def _on(unit: Unit, like: Tensor) -> Tensor:
    return torch.as_tensor(unit).to(like.device)


def _partial(kinds: int, tiling: _Tiling, like: Tensor) -> Tensor:
    shape = (kinds, tiling.tiles, tiling.layout.channels)
    return torch.empty(shape, dtype=torch.float64, device=like.device)
