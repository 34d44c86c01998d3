"""Reuse factors, and which of them hls4ml's layers take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import isqrt

from qhw.cost.pricing.architecture import Fold
from qhw.errors import ToolMissingError


@dataclass(frozen=True)
class ReuseFactor(Fold):
    """How many products one multiplier does after the other; a node that nobody folded has one each."""

    title = "reuse factor"
    reuse_factor: int = 1


@cache
def dense_factors(n_in: int, n_out: int) -> tuple[int, ...]:
    """The legal reuse factors of ``n_in * n_out`` products, as hls4ml's backend says, rising."""
    try:
        from hls4ml.backends import get_backend
    except ImportError as error:
        raise ToolMissingError("hls4ml is not installed", hint="pip install 'qhw[hls4ml]'") from error
    # The backend's own list tries every number up to the product, which takes minutes for a large layer; what
    # it finds are divisors.
    backend = get_backend("Vitis")
    return tuple(f for f in divisors(n_in * n_out) if backend._validate_reuse_factor(n_in, n_out, f))


@cache
def divisors(products: int) -> tuple[int, ...]:
    """The factors of the project's own layers, rising: whatever divides their products."""
    small = [factor for factor in range(1, isqrt(products) + 1) if products % factor == 0]
    return tuple(sorted({*small, *(products // factor for factor in small)}))


@cache
def depthwise_factors(n_in: int, n_out: int) -> tuple[int, ...]:
    """Those of a depthwise layer: its loops step over ``n_in`` products, so they must divide those too."""
    return tuple(factor for factor in dense_factors(n_in, n_out) if n_in % factor == 0)


def window_factors(n_in: int, n_out: int, io_type: str) -> tuple[int, ...]:
    """Those of a convolution: unrolled, it reads beyond its ``n_in`` numbers where they are larger."""
    factors = dense_factors(n_in, n_out)
    return factors if io_type == "io_stream" else tuple(factor for factor in factors if factor <= n_in)
