"""The quantizer kernels compiled from ``fixed.cpp``; bit for bit what ``eager`` gives."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qhw.formats.modes import Overflow, Rounding
from qhw.native import Library
from qhw.quantizers.kernels.problem import FloatGrid, ListGrid, Operands, Rule, Unit, layout_of

# The order of the enumerations in fixed.cpp. SAT_SYM is SAT with other bounds.
_ROUNDING = {mode: index for index, mode in enumerate(Rounding)}
_OVERFLOW = {
    Overflow.SAT: 0,
    Overflow.SAT_SYM: 0,
    Overflow.SAT_ZERO: 1,
    Overflow.WRAP: 2,
    Overflow.WRAP_SM: 3,
}

_GRIDS: dict[type, int] = {type(None): 0, FloatGrid: 1, ListGrid: 2}

_THREADED_SIZE = 32768
"""Elements from which on a second thread is worth waking."""


class _Call(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "other", "gain", "offset", "inverse_scale", "scale")),
        *((name, ctypes.c_int64) for name in ("outer", "channels", "inner")),
        *((name, ctypes.c_double) for name in ("slope", "cap", "low", "high", "modulus", "bottom")),
        *((name, ctypes.c_double) for name in ("normal", "gap")),
        ("table", ctypes.c_void_p),
        ("table_low", ctypes.c_double),
        *(
            (name, ctypes.c_int32)
            for name in ("rounding", "overflow", "passes", "threads", "grid", "divides")
        ),
    )


class Compiled:
    """The kernels of a compiled library; each method as in ``eager``."""

    def __init__(self, library: Library) -> None:
        self.library = library
        loaded = library.load()
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        arguments = {
            "forward": [pointer] * 2,
            "backward": [pointer] * 4,
            "affine_sums": [pointer] * 3,
            "affine_backward": [pointer] * 5,
            "moments": [pointer, size, size, size, ctypes.c_int32, pointer],
        }
        self._functions: dict[tuple[str, torch.dtype], Any] = {}
        for name, types in arguments.items():
            for dtype in (torch.float32, torch.float64):
                function = getattr(loaded, f"qhw_{name}_{str(dtype).removeprefix('torch.')}")
                function.argtypes, function.restype = types, None
                self._functions[name, dtype] = function

    def forward(self, operands: Operands, unit: Unit, rule: Rule) -> Tensor:
        call = _Prepared(operands, unit, rule)
        y = torch.empty_like(operands.x)
        self._run("forward", operands.x, call.address, y.data_ptr())
        return y

    def backward(self, operands: Operands, grad: Tensor, unit: Unit, rule: Rule) -> tuple[Tensor, Tensor]:
        call = _Prepared(operands, unit, rule)
        passed = torch.empty_like(operands.x)
        sums = torch.empty(call.channels, dtype=torch.float64)
        self._run("backward", operands.x, call.address, grad.data_ptr(), passed.data_ptr(), sums.data_ptr())
        return passed, sums

    def affine_sums(self, operands: Operands, grad: Tensor, unit: Unit, rule: Rule) -> Tensor:
        call = _Prepared(operands, unit, rule)
        sums = torch.empty((3, call.channels), dtype=torch.float64)
        self._run("affine_sums", operands.x, call.address, grad.data_ptr(), sums.data_ptr())
        return sums

    def affine_backward(
        self,
        operands: Operands,
        grad: Tensor,
        unit: Unit,
        rule: Rule,
        constant: Tensor,
        slope: Tensor,
    ) -> Tensor:
        call = _Prepared(operands, unit, rule)
        dx = torch.empty_like(operands.x)
        self._run(
            "affine_backward",
            operands.x,
            call.address,
            grad.data_ptr(),
            constant.data_ptr(),
            slope.data_ptr(),
            dx.data_ptr(),
        )
        return dx

    def moments(self, x: Tensor, axis: int) -> Tensor:
        layout = layout_of(x, axis)
        sums = torch.empty((2, layout.channels), dtype=torch.float64)
        shape = (layout.outer, layout.channels, layout.inner)
        self._run("moments", x, x.data_ptr(), *shape, _threads(x), sums.data_ptr())
        return sums

    def _run(self, name: str, x: Tensor, *arguments: int) -> None:
        self._functions[name, x.dtype](*arguments)


class _Prepared:
    """A call's arguments, and the arrays that they point at."""

    def __init__(self, operands: Operands, unit: Unit, rule: Rule) -> None:
        layout, x = operands.layout, operands.x
        self.channels = layout.channels
        units = np.broadcast_to(np.asarray(unit), (layout.channels,))
        self.scales = np.stack([1.0 / units, units])
        low, high = rule.bounds(x.dtype)
        modulus = float(2**rule.width)
        scales = self.scales.ctypes.data
        self.call = _Call(
            x.data_ptr(),
            _address(operands.other),
            _address(operands.gain),
            _address(operands.offset),
            scales,
            scales + self.scales.itemsize * layout.channels,
            layout.outer,
            layout.channels,
            layout.inner,
            rule.activation.slope,
            rule.activation.cap,
            low,
            high,
            modulus,
            -modulus / 2 if rule.signed else 0.0,
            *_grid_fields(rule.grid),
            _ROUNDING[rule.rounding],
            _OVERFLOW[rule.overflow],
            int(rule.passes),
            _threads(x),
            _GRIDS[type(rule.grid)],
            int(rule.free),
        )
        self.address = ctypes.addressof(self.call)


def _grid_fields(grid: FloatGrid | ListGrid | None) -> tuple[float, float, int | None, float]:
    """Smallest normal number, gap below it; table and where it starts."""
    match grid:
        case FloatGrid():
            return 2.0**grid.mantissa_bits, grid.gap, None, 0.0
        case ListGrid():
            return 1.0, 1.0, grid.table.ctypes.data, float(grid.low)
    return 1.0, 1.0, None, 0.0


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _threads(x: Tensor) -> int:
    return torch.get_num_threads() if x.numel() >= _THREADED_SIZE else 1
