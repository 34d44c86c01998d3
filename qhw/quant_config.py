"""Which format every weight, bias and activation gets: the settings of a conversion. Needs no torch."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from qhw.errors import InputError, closest
from qhw.formats import Fixed, Format, Integer, Overflow, parse_format

FormatLike = Format | str

Scaling = Literal["power_of_two", "free", "exponent_bias"]
"""The trained scale: a power of two, any number, or a minifloat's bias (a power of two elsewhere)."""


@dataclass(frozen=True)
class LayerFormats:
    """Formats of one layer; a learned binary point (``fixed<8>``) is found by statistics, then trained.

    Args:
        weights: the format of the weights of convolutions and linear layers.
        biases: the format of the biases of convolutions, linear layers and batch norm.
        scales: the multiplier of a batch norm, and the constant of an average pool.
        activations: the layer's result. Where that is never negative (behind a ReLU), ``fixed<8>`` becomes
            ``ufixed<8>``: the sign bit would be wasted. A format with its binary point stated stays as it is.
        per_channel: whether every output channel has its own binary point for its weights.
        scaling: how the open binary point or scale of weights and activations is trained. Results that
            meet in an addition get one free scale. Biases, scales and constants keep powers of two.
    """

    weights: Format
    biases: Format
    scales: Format
    activations: Format
    per_channel: bool
    scaling: Scaling


FORMAT_NAMES = ("weights", "biases", "scales", "activations", "inputs", "outputs")
OVERRIDE_NAMES = tuple(item.name for item in dataclasses.fields(LayerFormats))


@dataclass(frozen=True)
class QuantConfig:
    """Formats for a whole network, as :class:`qhw.formats.Format` or as text (``"fixed<8>"``, ``"e4m3"``).

    The scale of a minifloat, of k-hot and the like is found by statistics, then trained: a power of two,
    unless ``scaling`` says otherwise.

    Args:
        weights, biases, scales, activations, per_channel, scaling: see :class:`LayerFormats`.
        inputs: the inputs' format, or formats by the names of forward()'s arguments. Of those without one: 8
            bits; where whole pixels of 0..255 come in (a ``Normalize`` layer or the example input says so),
            unsigned and exact.
        outputs: the format of the network's result.
        overrides: other settings for some layers, by a pattern of their path (``"block1.*"``, ``"*.conv?"``),
            e.g. ``{"classify": {"weights": "fixed<4>"}}``. Where several match, later ones win.

    Raises:
        InputError: a format or a setting is not understood.
    """

    weights: FormatLike = "fixed<8>"
    biases: FormatLike = "fixed<16>"
    scales: FormatLike = "fixed<8>"
    activations: FormatLike = "fixed<8>"
    inputs: FormatLike | Mapping[str, FormatLike] | None = None
    outputs: FormatLike = "fixed<16>"
    per_channel: bool = False
    scaling: Scaling = "power_of_two"
    overrides: Mapping[str, Mapping[str, FormatLike | bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_scaling("scaling", self.scaling)
        for name in FORMAT_NAMES:
            value = getattr(self, name)
            if name == "inputs" and isinstance(value, Mapping):
                by_name = {str(key): _format(f"input {str(key)!r}", given) for key, given in value.items()}
                object.__setattr__(self, name, by_name)
            elif value is not None:
                object.__setattr__(self, name, _format(name, value))
        if not isinstance(self.overrides, Mapping):
            raise InputError(f"overrides is {self.overrides!r}", allowed="a table of settings by pattern")
        if not isinstance(self.per_channel, bool):
            raise InputError(f"per_channel is {self.per_channel!r}", allowed="true or false")
        overrides = {pattern: _override(pattern, given) for pattern, given in self.overrides.items()}
        object.__setattr__(self, "overrides", overrides)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> QuantConfig:
        """The configuration in a table of a configuration file.

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
        formats: dict[str, Any] = {
            name: None if (value := getattr(self, name)) is None else str(value) for name in FORMAT_NAMES
        }
        if isinstance(self.inputs, Mapping):
            formats["inputs"] = {name: str(value) for name, value in self.inputs.items()}
        overrides = {
            pattern: {key: value if isinstance(value, bool) else str(value) for key, value in given.items()}
            for pattern, given in self.overrides.items()
        }
        rest = {"per_channel": self.per_channel, "scaling": self.scaling, "overrides": overrides}
        return {**formats, **rest}

    def layer(self, *paths: str) -> LayerFormats:
        """The formats of the layer with that path, or of several layers that are fused into one."""
        settings: dict[str, Any] = {name: getattr(self, name) for name in OVERRIDE_NAMES}
        for override in self._matching(paths):
            settings |= override
        return LayerFormats(**settings)

    def result(self, *paths: str, last: bool = False) -> Format:
        """The format of a layer's result; ``last``: that is ``outputs``, unless an override states it."""
        stated = any("activations" in override for override in self._matching(paths))
        return _format("outputs", self.outputs) if last and not stated else self.layer(*paths).activations

    def input(self, name: str) -> Format | None:
        """The format of an input, by the argument's name; None where none is stated."""
        given = self.inputs.get(name) if isinstance(self.inputs, Mapping) else self.inputs
        return None if given is None else _format("inputs", given)

    def formats(self) -> Iterator[tuple[str, Format]]:
        """Every format that is stated, with the setting that states it."""
        for name in FORMAT_NAMES:
            if isinstance(value := getattr(self, name), Format):
                yield name, value
        if isinstance(self.inputs, Mapping):
            yield from ((f"input {name!r}", _format(name, given)) for name, given in self.inputs.items())
        for pattern, settings in self.overrides.items():
            for name, given in settings.items():
                if isinstance(given, Format):
                    yield f"override {pattern!r}, {name}", given

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

    def check_inputs(self, names: Iterable[str]) -> None:
        """Refuse a format for an input that the network has not.

        Raises:
            InputError: naming it, and the closest inputs.
        """
        names = list(names)
        for name in self.inputs if isinstance(self.inputs, Mapping) else ():
            if name not in names:
                raise InputError(
                    f"inputs states a format for {name!r}, which is no input of the network",
                    allowed=", ".join(names),
                    hint=closest(name, names),
                )

    def __repr__(self) -> str:
        """The settings as text, modes and all: equal text means equal results."""
        return f"QuantConfig({', '.join(f'{name}={value}' for name, value in self.to_mapping().items())})"


def unsigned_if_learned(format: Format) -> Format:
    """The format for numbers that are never negative: unsigned fixed point, unless the point is stated."""
    if not isinstance(format, Fixed) or format.is_learned or format.overflow is Overflow.WRAP_SM:
        return format
    return dataclasses.replace(format, signed=False)


def formats_named(text: str) -> dict[str, str]:
    """The settings that one format for a network makes: weights and activations, or all factors.

    A format that saves the multiplier (k-hot, powers of two, binary, ternary) is one for weights and the
    constants of batch norm and pools; activations then keep their own.
    """
    format = _format("format", text)
    names = ("weights", "scales") if format.multiplier_free else ("weights", "activations")
    return dict.fromkeys(names, text)


def _format(name: str, value: object) -> Format:
    if isinstance(value, Integer):
        return Fixed(value.width, value.width, value.signed)
    if isinstance(value, Format):
        return value
    if not isinstance(value, str):
        raise InputError(f"{name} is {value!r}", allowed='a format, as in "fixed<8>", "e4m3" or "khot<8,2>"')
    try:
        return _format(name, parse_format(value))
    except InputError as error:
        raise InputError(f"{name}: {error.message}", allowed=error.allowed, hint=error.hint) from error


def _check_scaling(where: str, value: object) -> str:
    if value not in get_args(Scaling):
        raise InputError(f"{where} is {value!r}", allowed=", ".join(get_args(Scaling)))
    return str(value)


def _override(pattern: str, settings: object) -> dict[str, Format | bool | str]:
    if not isinstance(settings, Mapping):
        raise InputError(
            f"override {pattern!r} is {settings!r}", allowed='a table, as in {"weights": "fixed<4>"}'
        )
    result: dict[str, Format | bool | str] = {}
    for name, value in settings.items():
        if name not in OVERRIDE_NAMES:
            raise InputError(
                f"override {pattern!r}: unknown setting {name!r}", hint=closest(str(name), OVERRIDE_NAMES)
            )
        if name == "per_channel":
            if not isinstance(value, bool):
                raise InputError(f"override {pattern!r}, per_channel is {value!r}", allowed="true or false")
            result[name] = value
        elif name == "scaling":
            result[name] = _check_scaling(f"override {pattern!r}, scaling", value)
        else:
            result[name] = _format(f"override {pattern!r}, {name}", value)
    return result
