"""The formats that are compared: by kind and by bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qhw.formats import parse_format
from qhw.quant_config import QuantConfig

BITS = (3, 4, 5, 6, 7, 8)

INTEGERS = {bits: (f"fixed<{bits}>",) for bits in BITS}

MINIFLOATS = {
    3: ("e2m0",),
    4: ("e2m1", "e3m0"),
    5: ("e2m2", "e3m1"),
    6: ("e2m3", "e3m2", "e4m1"),
    7: ("e2m4", "e3m3", "e4m2"),
    8: ("e2m5", "e3m4", "e4m3", "e5m2"),
}
"""Of two bits of exponent and more: with one, a minifloat that has subnormal numbers is a signed integer."""

KHOTS = {
    3: ("khot<3,1>",),
    4: ("khot<4,1>", "khot<4,2>"),
    5: ("khot<5,2>",),
    6: ("khot<6,2>",),
    7: ("khot<7,2>",),
    8: ("khot<8,2>", "khot<8,3>"),
}
"""Of weights; results are integers of as many bits."""

KINDS = {"integer": INTEGERS, "minifloat": MINIFLOATS, "k-hot": KHOTS}


SCALES: dict[str, dict[str, Any]] = {
    "power of two": {},
    "power of two per channel": {"per_channel": True},
    "free per channel": {"per_channel": True, "scaling": "free"},
}
"""What scales may be; per channel are those of weights."""


@dataclass(frozen=True)
class Formats:
    """The formats of all weights and of all results; everything else is the same in all points.

    Args:
        scales: a key of ``SCALES``.
    """

    weights: str
    activations: str
    scales: str = "power of two"

    @property
    def key(self) -> str:
        """Text that differs for others."""
        return f"{self.weights} {self.activations}" + (f" {self.scales}" if self.is_other else "")

    @property
    def is_other(self) -> bool:
        """Whether its scales are not the usual ones."""
        return bool(SCALES[self.scales])

    @property
    def config(self) -> QuantConfig:
        """The settings of a conversion."""
        return QuantConfig(weights=self.weights, activations=self.activations, **SCALES[self.scales])

    @property
    def bits(self) -> tuple[int, int]:
        """Bits of weights and of results."""
        return parse_format(self.weights).width, parse_format(self.activations).width


def same(kind: str, bits: int, scales: str = "power of two") -> list[Formats]:
    """The formats of a kind with as many bits for weights as for results: each split of the bits."""
    if kind == "k-hot":
        return [Formats(text, f"fixed<{bits}>", scales) for text in KHOTS[bits]]
    return [Formats(text, text, scales) for text in KINDS[kind][bits]]


def every(scales: str = "power of two", bits: tuple[int, ...] = BITS) -> list[Formats]:
    """The formats of all kinds and bits."""
    return [formats for width in bits for kind in KINDS for formats in same(kind, width, scales)]


METHOD_FORMATS = tuple(
    Formats(weights, activations)
    for weights, activations in (
        *((f"fixed<{bits}>", f"fixed<{bits}>") for bits in (3, 4, 6, 8)),
        *((text, text) for text in ("e2m1", "e2m3", "e3m4")),
        *((f"khot<{bits},2>", f"fixed<{bits}>") for bits in (4, 6, 8)),
    )
)
"""Those that all methods are tried with."""


WEIGHTS = tuple(dict.fromkeys(formats.weights for formats in every()))
ACTIVATIONS = tuple(dict.fromkeys(formats.activations for formats in every()))
