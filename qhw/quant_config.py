"""Which format every weight, bias and activation gets: the settings of a conversion. Needs no torch."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from qhw.errors import InputError, closest
from qhw.formats import Fixed, Overflow, parse_fixed

FormatLike = Fixed | str


@dataclass(frozen=True)
class LayerFormats:
    """Formats of one layer; a learned binary point (``fixed<8>``) is found by statistics, then trained.

    Args:
        weights: of convolutions and linear layers.
        biases: of convolutions, linear layers and batch norm.
        scales: the multiplier of a batch norm, and the constant of an average pool.
        activations: the layer's result. Where that is never negative (behind a ReLU), ``fixed<8>`` becomes
            ``ufixed<8>``: the sign bit would be wasted. A format with its binary point stated stays as it is.
        per_channel: whether every output channel has its own binary point for its weights.
    """

    weights: Fixed
    biases: Fixed
    scales: Fixed
    activations: Fixed
    per_channel: bool


FORMAT_NAMES = ("weights", "biases", "scales", "activations", "inputs", "outputs")
OVERRIDE_NAMES = tuple(item.name for item in dataclasses.fields(LayerFormats))


@dataclass(frozen=True)
class QuantConfig:
    """Formats for a whole network, given as :class:`qhw.formats.Fixed` or as text (``"fixed<8>"``).

    Args:
        weights, biases, scales, activations, per_channel: see :class:`LayerFormats`.
        inputs: of the network's input. None: 8 bits; where whole pixels of 0..255 come in (a ``Normalize``
            layer or the example input says so), unsigned and exact.
        outputs: of the network's result.
        overrides: other settings for some layers, by a pattern of their path (``"block1.*"``, ``"*.conv?"``),
            as in ``{"classify": {"weights": "fixed<4>"}}``. Of several that match, later ones win.

    Raises:
        InputError: a format or a setting is not understood.
    """

    weights: FormatLike = "fixed<8>"
    biases: FormatLike = "fixed<16>"
    scales: FormatLike = "fixed<8>"
    activations: FormatLike = "fixed<8>"
    inputs: FormatLike | None = None
    outputs: FormatLike = "fixed<16>"
    per_channel: bool = False
    overrides: Mapping[str, Mapping[str, FormatLike | bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in FORMAT_NAMES:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _format(name, value))
        overrides = {pattern: _override(pattern, given) for pattern, given in self.overrides.items()}
        object.__setattr__(self, "overrides", overrides)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> QuantConfig:
        """From a table of a configuration file.

        Raises:
            InputError: a setting is unknown or not understood.
        """
        known = [item.name for item in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise InputError(f"unknown quantisation setting {name!r}", hint=closest(name, known))
        return cls(**settings)

    def to_mapping(self) -> dict[str, Any]:
        """The settings as plain values, which :meth:`from_mapping` takes back."""
        formats = {
            name: None if (value := getattr(self, name)) is None else str(value) for name in FORMAT_NAMES
        }
        overrides = {
            pattern: {key: value if isinstance(value, bool) else str(value) for key, value in given.items()}
            for pattern, given in self.overrides.items()
        }
        return {**formats, "per_channel": self.per_channel, "overrides": overrides}

    def layer(self, *paths: str) -> LayerFormats:
        """The formats of the layer with that path, or of several layers that are fused into one."""
        settings: dict[str, Any] = {name: getattr(self, name) for name in OVERRIDE_NAMES}
        for override in self._matching(paths):
            settings |= override
        return LayerFormats(**settings)

    def result(self, *paths: str, last: bool = False) -> Fixed:
        """The format of a layer's result; ``last``: of the whole network's, unless an override states it."""
        stated = any("activations" in override for override in self._matching(paths))
        return _format("outputs", self.outputs) if last and not stated else self.layer(*paths).activations

    def _matching(self, paths: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
        for pattern, override in self.overrides.items():
            if any(fnmatch.fnmatchcase(path, pattern) for path in paths):
                yield override

    def check_patterns(self, paths: Iterable[str]) -> None:
        """Refuse an override that matches none of the layers' paths.

        Raises:
            InputError: naming the pattern, and the closest layers.
        """
        paths = list(paths)
        for pattern in self.overrides:
            if not fnmatch.filter(paths, pattern):
                raise InputError(
                    f"override {pattern!r} matches no layer",
                    allowed=", ".join(paths),
                    hint=closest(pattern, paths),
                )

    def __repr__(self) -> str:
        """The settings as text, modes and all: equal text means equal results."""
        return f"QuantConfig({', '.join(f'{name}={value}' for name, value in self.to_mapping().items())})"


def unsigned_if_learned(fixed: Fixed) -> Fixed:
    """The format for numbers that are never negative: unsigned, unless its binary point is stated."""
    if fixed.is_learned or fixed.overflow is Overflow.WRAP_SM:
        return fixed
    return dataclasses.replace(fixed, signed=False)


def _format(name: str, value: object) -> Fixed:
    if isinstance(value, Fixed):
        return value
    if not isinstance(value, str):
        raise InputError(
            f"{name} is {value!r}", allowed='a fixed-point format, as in "fixed<8>" or "fixed<8,3>"'
        )
    try:
        return parse_fixed(value)
    except InputError as error:
        raise InputError(f"{name}: {error.message}", allowed=error.allowed, hint=error.hint) from error


def _override(pattern: str, settings: object) -> dict[str, Fixed | bool]:
    if not isinstance(settings, Mapping):
        raise InputError(
            f"override {pattern!r} is {settings!r}", allowed='a table, as in {"weights": "fixed<4>"}'
        )
    result: dict[str, Fixed | bool] = {}
    for name, value in settings.items():
        if name not in OVERRIDE_NAMES:
            raise InputError(
                f"override {pattern!r}: unknown setting {name!r}", hint=closest(str(name), OVERRIDE_NAMES)
            )
        if name == "per_channel":
            result[name] = bool(value)
        else:
            result[name] = _format(f"override {pattern!r}, {name}", value)
    return result
