"""Exact integer products by matrix libraries, where a bound proves that floating point rounds nothing.

A sum of integer products whose magnitudes add up to less than 2^24 (2^53) is exact in float32 (float64) in
any order of summation, as long as the library really multiplies and adds in that precision: no TF32, no
bfloat16, and no Winograd transform. PyTorch's oneDNN convolution asks for the direct algorithm, never for
Winograd or "auto"; NNPACK, which is a Winograd, is switched off while a graph runs, and reduced precision
too. On a CUDA device cuDNN is switched off, so that a convolution is a cuBLAS product of patches, in which
TF32 is off. A probe at start-up checks the arithmetic that is left against integers.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from qhw.errors import InputError, ToolMissingError, closest
from qhw.formats.modes import IntArray
from qhw.sim.chain import Array, Interval
from qhw.sim.elementwise import in_layout
from qhw.torch_device import chosen_device

logger = logging.getLogger(__name__)

ConvFunction = Callable[[Array], Array]
"""Products of a batch (N, C, H, W) as floats that hold exact integers (N, M, H', W')."""


@dataclass(frozen=True)
class Geometry:
    """A two-dimensional convolution; ``pads`` are top, left, bottom, right."""

    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    groups: int

    @property
    def symmetric(self) -> bool:
        """Whether both ends of each axis are padded alike."""
        return self.pads[:2] == self.pads[2:]

    def unpadded(self) -> Geometry:
        """The same without padding, for a batch that has been padded."""
        return dataclasses.replace(self, pads=(0, 0, 0, 0))

    def padded(self, x: Array, value: int = 0) -> Array:
        """The batch (N, C, H, W) with this padding written out, channel fastest."""
        top, left, bottom, right = self.pads
        widths = ((0, 0), (top, bottom), (left, right), (0, 0))
        return np.moveaxis(np.pad(np.moveaxis(x, 1, -1), widths, constant_values=value), -1, 1)

    def span(self, kernel: Sequence[int]) -> tuple[int, ...]:
        """How many elements a window of that kernel reaches over, per axis."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilations, kernel, strict=True))


def exact_float(bound: int) -> np.dtype[np.floating[Any]] | None:
    """The floating-point type in which integer sums of magnitude below ``bound`` are exact."""
    if bound < 1 << 24:
        return np.dtype(np.float32)
    return np.dtype(np.float64) if bound < 1 << 53 else None


def product_bound(weight: IntArray, x: Interval) -> int:
    """The largest sum of magnitudes of products, over output channels (axis 0 of ``weight``)."""
    sums = np.abs(weight.astype(object)).reshape(len(weight), -1).sum(axis=1)
    return max(1, int(max(sums, default=0))) * max(1, abs(x[0]), abs(x[1]))


_MOST_PARTS = 8


def split_weight(weight: IntArray, x: Interval) -> list[IntArray] | None:
    """A weight as a sum of weights whose products with ``x`` are each exact in float32, and in sum in int32.

    Every part keeps every n-th number and has zeros elsewhere; None where eight parts do not suffice.
    """
    span = (x[0], x[1]) if x[0] >= 0 else (min(x[0], -255), max(x[1], 255))
    if product_bound(weight, span) >= 1 << 31:
        return None
    index = np.arange(weight[:1].size).reshape(weight[:1].shape)
    for count in range(1, _MOST_PARTS + 1):
        parts = [np.where(index % count == i, weight, 0) for i in range(count)]
        if all(product_bound(part, span) < 1 << 24 for part in parts):
            return parts
    return None


class Backend(ABC):
    """A matrix library that multiplies exact integers."""

    name: str

    @abstractmethod
    def prepare_conv(
        self, weight: IntArray, geometry: Geometry, x: Interval
    ) -> tuple[ConvFunction, np.dtype[Any]] | None:
        """The convolution with a constant weight (M, C/groups, H, W) of inputs within ``x``, and the type
        it reads fastest; None where no floating-point type is proven exact."""

    @abstractmethod
    def matmul(self, a: Array, b: Array, kind: np.dtype[Any]) -> Array:
        """``a @ b`` in a type proven exact."""

    @contextmanager
    def exact_arithmetic(self) -> Iterator[None]:
        """While it is entered, the library uses the plain arithmetic that the proofs speak about."""
        yield


class NumpyBackend(Backend):
    """NumPy's BLAS; convolutions as products with patches."""

    name = "numpy"

    def prepare_conv(
        self, weight: IntArray, geometry: Geometry, x: Interval
    ) -> tuple[ConvFunction, np.dtype[Any]] | None:
        kind = exact_float(product_bound(weight, x))
        return None if kind is None else (patch_convolution(weight, geometry, kind), kind)

    def matmul(self, a: Array, b: Array, kind: np.dtype[Any]) -> Array:
        return np.asarray(np.matmul(a.astype(kind, copy=False), b.astype(kind, copy=False)))


def patch_convolution(weight: IntArray, geometry: Geometry, kind: np.dtype[Any]) -> ConvFunction:
    """A convolution as the product of patches and weights, in NumPy."""
    filters, depth, *kernel = weight.shape
    per_group = filters // geometry.groups
    # (groups, kernel * depth, filters per group): patches are ordered kernel first, channel last.
    matrix = weight.reshape(geometry.groups, per_group, depth, -1).transpose(0, 3, 2, 1)
    matrix = np.ascontiguousarray(matrix.reshape(geometry.groups, -1, per_group), dtype=kind)
    return functools.partial(_numpy_conv, matrix, tuple(kernel), geometry, kind)


_PATCH_ELEMENTS = 1 << 22


def _numpy_conv(
    matrix: NDArray[np.floating[Any]],
    kernel: tuple[int, ...],
    geometry: Geometry,
    kind: np.dtype[Any],
    x: Array,
) -> Array:
    """Patches times matrix, a few images at a time so that the patches stay small."""
    image = np.moveaxis(geometry.padded(x.astype(kind, copy=False)), 1, -1)
    (sh, sw), (dh, dw) = geometry.strides, geometry.dilations
    windows = sliding_window_view(image, geometry.span(kernel), axis=(1, 2))[:, ::sh, ::sw, :, ::dh, ::dw]
    n, height, width, channels = windows.shape[:4]
    groups, inner, per_group = matrix.shape
    out = np.empty((n, height, width, groups * per_group), dtype=kind)
    step = max(1, _PATCH_ELEMENTS // max(1, height * width * inner * groups))
    for start in range(0, n, step):
        part = windows[start : start + step].transpose(0, 1, 2, 4, 5, 3)
        part = part.reshape(-1, inner // (channels // groups), groups, channels // groups)
        part = part.transpose(2, 0, 1, 3).reshape(groups, -1, inner)
        products = np.matmul(part, matrix)
        out[start : start + step] = products.transpose(1, 0, 2).reshape(-1, height, width, groups * per_group)
    return np.moveaxis(out, -1, 1)


class TorchBackend(Backend):
    """PyTorch: on the CPU oneDNN's 8-bit convolution where the processor adds it exactly, else floats.

    Args:
        use_int8: off leaves floats alone, as a processor without 8-bit dot products does.
        device: where products are computed, as in :func:`qhw.torch_device.chosen_device`. On a CUDA device in
            floats; batches go there and sums come back, and everything between two products stays on the CPU.

    Raises:
        InputError: that device is not there.
    """

    name = "torch"

    def __init__(self, use_int8: bool = True, device: str = "cpu") -> None:
        import torch

        self._torch: Any = torch
        self._device: Any = chosen_device(device)
        with self.exact_arithmetic():
            self._float32_exact = _probe_float32(torch, self._device)
            self._int8_exact = use_int8 and self._device.type == "cpu" and _probe_int8(torch)
        if not self._float32_exact:
            logger.warning("this PyTorch does not multiply in full float32: float64 is used, slower")

    def prepare_conv(
        self, weight: IntArray, geometry: Geometry, x: Interval
    ) -> tuple[ConvFunction, np.dtype[Any]] | None:
        parts = split_weight(weight, x)
        if parts is None or not self._float32_exact:
            kind = exact_float(product_bound(weight, x))
            return None if kind is None else self._prepare_float(weight, geometry, x, np.dtype(np.float64))
        # Several filters per group came out wrong in oneDNN 3.12 with strides: those run in floats.
        plain = self._int8_exact and geometry.groups in (1, len(weight))
        if plain and all(_fits_int8(part, x) for part in parts):
            prepared = [self._prepare_int8(part, geometry, x) for part in parts]
        else:
            prepared = [self._prepare_float(part, geometry, x, np.dtype(np.float32)) for part in parts]
        convolutions, kinds = zip(*prepared, strict=True)
        return self._sum(convolutions), kinds[0]

    def _sum(self, convolutions: Sequence[ConvFunction]) -> ConvFunction:
        """The sum of several exact float32 convolutions, in 32-bit integers."""
        if len(convolutions) == 1:
            return convolutions[0]
        torch = self._torch

        def conv(x: Array) -> Array:
            total = torch.from_numpy(convolutions[0](x)).int()
            for other in convolutions[1:]:
                total += torch.from_numpy(other(x)).int()
            return np.asarray(total.numpy())

        return conv

    def _prepare_float(
        self, weight: IntArray, geometry: Geometry, x: Interval, kind: np.dtype[Any]
    ) -> tuple[ConvFunction, np.dtype[Any]]:
        exact = patch_convolution(weight, geometry, kind)
        return CheckedConvolution(self._conv_float(weight, geometry, kind), exact, x), kind

    def _prepare_int8(
        self, weight: IntArray, geometry: Geometry, x: Interval
    ) -> tuple[ConvFunction, np.dtype[Any]]:
        signed = x[0] < 0
        exact = patch_convolution(weight, geometry, np.dtype(np.float32))
        fast = self._conv_int8(weight, geometry, signed)
        return CheckedConvolution(fast, exact, x), np.dtype(np.int8 if signed else np.uint8)

    def _conv_float(self, weight: IntArray, geometry: Geometry, kind: np.dtype[Any]) -> ConvFunction:
        torch = self._torch
        held = torch.from_numpy(weight.astype(kind)).contiguous(memory_format=torch.channels_last)
        held = held.to(self._device)
        inside = geometry if geometry.symmetric else geometry.unpadded()
        window = (list(inside.strides), list(inside.pads[:2]), list(inside.dilations), inside.groups)

        def conv(x: Array) -> Array:
            x = x if inside is geometry else geometry.padded(x)
            batch = _channels_last_tensor(torch, x.astype(kind, copy=False)).to(self._device)
            return np.asarray(torch.conv2d(batch, held, None, *window).cpu().numpy())

        return conv

    def _conv_int8(self, weight: IntArray, geometry: Geometry, signed: bool) -> ConvFunction:
        """oneDNN reads unsigned bytes: signed ones are moved up by 128 (its own zero point is avoided:
        with strides it was seen to give wrong sums in oneDNN 3.12)."""
        moved = 128 if signed else 0
        narrow = all(
            p < span for p, span in zip(geometry.pads, geometry.span(weight.shape[2:]), strict=False)
        )
        inside = geometry if not signed and geometry.symmetric and narrow else geometry.unpadded()
        run = _int8_convolution(self._torch, weight, inside, moved)

        def conv(x: Array) -> Array:
            codes = (
                x.astype(np.int8).view(np.uint8) ^ np.uint8(128) if signed else x.astype(np.uint8, copy=False)
            )
            return run(codes if inside is geometry else geometry.padded(codes, moved))

        return conv

    def matmul(self, a: Array, b: Array, kind: np.dtype[Any]) -> Array:
        kind = kind if self._float32_exact else np.dtype(np.float64)
        left, right = (_tensor(self._torch, m.astype(kind, copy=False)).to(self._device) for m in (a, b))
        return np.asarray(self._torch.matmul(left, right).cpu().numpy())

    @contextmanager
    def exact_arithmetic(self) -> Iterator[None]:
        torch = self._torch
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.backends.nnpack.flags(enabled=False))
            stack.callback(setattr, torch.backends.cudnn, "enabled", torch.backends.cudnn.enabled)
            torch.backends.cudnn.enabled = False
            mkldnn = torch.backends.mkldnn
            for operation in (mkldnn.conv, mkldnn.matmul, torch.backends.cuda.matmul):
                stack.callback(setattr, operation, "fp32_precision", operation.fp32_precision)
                operation.fp32_precision = "ieee"
            yield


def _tensor(torch: Any, x: Array) -> Any:
    return torch.from_numpy(x if x.flags.writeable else x.copy(order="K"))


class CheckedConvolution:
    """A library's convolution that is checked against patches at the first batch of every shape.

    Which code oneDNN generates depends on the shape, and some of it is wrong (a float32 channels-last one of
    one channel with a single output column, for one; its issue 5080 is another). So for each new shape,
    random inputs from the whole range go through it once; one wrong sum among the images that are looked at,
    and NumPy takes over for good.
    """

    def __init__(self, fast: ConvFunction, exact: ConvFunction, x: Interval):
        self._fast, self._exact, self._range = fast, exact, x
        self._seen: set[tuple[int, ...]] = set()

    def __call__(self, x: Array) -> Array:
        if x.shape not in self._seen:
            self._seen.add(x.shape)
            if self._fast is not self._exact and not self._agrees(x):
                logger.warning("this PyTorch convolves a batch of shape %s wrongly: NumPy is used", x.shape)
                self._fast = self._exact
        return self._fast(x)

    def _agrees(self, like: Array) -> bool:
        """Whether both give the same sums for a few images of a random batch."""
        low, high = self._range
        random = np.random.default_rng(0).integers(low, high, like.shape, endpoint=True).astype(like.dtype)
        batch = np.moveaxis(np.ascontiguousarray(np.moveaxis(random, 1, -1)), -1, 1)
        picked = np.unique(np.linspace(0, max(len(like) - 1, 0), min(len(like), _CHECKED_IMAGES)).astype(int))
        return bool((self._fast(batch)[picked] == self._exact(batch[picked])).all())


_CHECKED_IMAGES = 8


def _channels_last_tensor(torch: Any, x: Array) -> Any:
    """A batch as PyTorch sees channels-last, a single channel (whose strides say nothing) too."""
    _, channels, height, width = x.shape
    strides = (height * width * channels, 1, width * channels, channels)
    return _tensor(torch, in_layout(x, True)).as_strided(x.shape, strides)


def _fits_int8(weight: IntArray, x: Interval) -> bool:
    """Whether bytes hold inputs (moved up by 128 where signed) and weights."""
    if x[0] < -128 or x[1] > (255 if x[0] >= 0 else 127) or not weight.size:
        return False
    return int(weight.min()) >= -128 and int(weight.max()) <= 127


def _int8_convolution(torch: Any, weight: IntArray, geometry: Geometry, moved: int) -> ConvFunction:
    """oneDNN's convolution of bytes, from which ``moved`` is to be taken, with signed bytes.

    It sums in 32 bits; the sums are written as float32.
    """
    filters = len(weight)
    ones, zeros = torch.ones(filters), torch.zeros(filters, dtype=torch.int64)
    bias = torch.from_numpy(-moved * weight.reshape(filters, -1).sum(axis=1)).float() if moved else None
    window = (list(geometry.strides), list(geometry.pads[:2]), list(geometry.dilations), geometry.groups)
    held = torch.from_numpy(weight.astype(np.int8))
    packed = torch.ops.onednn.qconv_prepack(held, ones, 1.0, 0, *window, None)

    def conv(x: Array) -> Array:
        batch = _channels_last_tensor(torch, x)
        out = torch.ops.onednn.qconv2d_pointwise(
            batch, 1.0, 0, packed, ones, zeros, bias, *window, 1.0, 0, torch.float32, "none", [], ""
        )
        return np.asarray(out.numpy())

    return conv


_PROBE = Geometry((1, 1), (1, 1, 1, 1), (1, 1), 1)


def _probe_float32(torch: Any, device: Any) -> bool:
    """Whether a 3x3 convolution and a product, with sums close to 2^24, come out as integers say."""
    generator = np.random.default_rng(0)
    weight = generator.integers(-127, 128, (64, 64, 3, 3))
    x = generator.integers(0, 225, (2, 64, 8, 8))
    expected = torch.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), padding=1)
    with torch.inference_mode():
        batch, filters = (torch.from_numpy(array).float().to(device) for array in (x, weight))
        conv = torch.conv2d(batch, filters, padding=1).cpu()
    a, b = generator.integers(-4095, 4096, (8, 64)) | 1, generator.integers(-31, 32, (64, 8)) | 1
    left, right = (torch.from_numpy(array).float().to(device) for array in (a, b))
    product = torch.matmul(left, right).cpu().numpy()
    return bool((conv.double() == expected).all() and (product == a @ b).all())


def _probe_int8(torch: Any) -> bool:
    """Whether byte convolutions are there and sum without saturating 16-bit pairs (VNNI, AMX, or alike)."""
    if not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return False
    weight = np.tile(np.array([127, -128], dtype=np.int64), (16, 16)).reshape(16, 32, 1, 1)
    weight = np.broadcast_to(weight, (16, 32, 3, 3)).copy()
    weight[8:] = 127
    x = np.full((1, 32, 6, 6), 255, dtype=np.int64)
    expected = torch.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), padding=1)
    try:
        unsigned = _int8_convolution(torch, weight, _PROBE, 0)(x.astype(np.uint8))
    except RuntimeError as error:
        logger.info("oneDNN's 8-bit convolution cannot be used here: %s", error)
        return False
    return bool((unsigned == expected.numpy()).all())


@functools.cache
def select_backend(name: str = "auto", device: str = "cpu") -> Backend:
    """A backend by name; ``auto`` is PyTorch where it imports, else NumPy, which knows the CPU alone.

    Raises InputError on an unknown name or a device that is not there, ToolMissingError where PyTorch is
    asked for and does not import.
    """
    if name not in ("auto", "torch", "numpy"):
        raise InputError(f"unknown backend '{name}'", hint=closest(name, ("auto", "torch", "numpy")))
    if name == "numpy" and device not in ("cpu", "auto"):
        raise InputError(f"the backend 'numpy' runs on the CPU, not on {device}", hint="use 'torch'")
    if name == "numpy":
        return NumpyBackend()
    try:
        return TorchBackend(device=device)
    except ImportError as error:
        if name == "torch" or device not in ("cpu", "auto"):
            raise ToolMissingError(
                "the backend 'torch' needs PyTorch, which does not import",
                hint="pip install 'qhw[train]', or use the backend 'numpy'",
            ) from error
        return NumpyBackend()
