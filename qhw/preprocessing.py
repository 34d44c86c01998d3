"""What a user's training did to samples before the network saw them: part of what is handed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.errors import InputError, closest

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Preprocess:
    """``(x * scale - mean) / std``, as ``torchvision.transforms.Normalize`` has it behind ``ToTensor``.

    It becomes the first layer of the network, so that the board takes samples as they are stored: one
    multiplication and one addition per channel, by numbers of 16 bits.

    Args:
        scale: 1/255 for pixels that were divided by 255.
        mean, std: one number, or one per channel.

    Raises:
        InputError: a number is not finite, or a deviation is 0.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        numbers = np.array([self.scale, *self.mean, *self.std], dtype=np.float64)
        if not np.isfinite(numbers).all() or self.scale == 0 or 0 in self.std:
            raise InputError(f"{self} is no preprocessing", allowed="finite numbers, no scale or std of 0")
        if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise InputError(f"{self} has {len(self.mean)} means and {len(self.std)} deviations")

    @property
    def is_none(self) -> bool:
        """Whether it changes nothing."""
        return self == Preprocess()

    @property
    def channels(self) -> int:
        """The number of channels that it needs; 1 for any."""
        return max(len(self.mean), len(self.std))

    @classmethod
    def of(cls, given: Preprocess | str | Mapping[str, Any] | None) -> Preprocess:
        """From a text (``scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225``) or a mapping.

        Raises:
            InputError: a name is unknown, or a value is no number.
        """
        if given is None or isinstance(given, Preprocess):
            return given or cls()
        if isinstance(given, str):
            given = {name: value for name, _, value in (part.partition("=") for part in given.split())}
        if unknown := [name for name in given if name not in asdict(cls())]:
            raise InputError(f"unknown preprocessing {unknown[0]!r}", allowed="scale=…, mean=…, std=…")
        values = {name: _numbers(name, value) for name, value in given.items()}
        scale, *more = values.get("scale", (1.0,))
        if more:
            raise InputError("the scale of the preprocessing is several numbers", allowed="one")
        return cls(scale, values.get("mean", (0.0,)), values.get("std", (1.0,)))

    def before(self, model: nn.Module, shape: Sequence[int]) -> nn.Module:
        """The network with this layer in front, under the names that its own layers have.

        Args:
            shape: of a batch of samples; channels are axis 1.

        Raises:
            InputError: the samples have another number of channels.
        """
        from qhw.layers.preprocessed import INPUT, Preprocessed

        return model if self.is_none else Preprocessed(model, {INPUT: self.constants(shape)})

    def constants(self, shape: Sequence[int], of: str = "") -> tuple[NDArray[Any], NDArray[Any]]:
        """What samples are multiplied by, and what is added then; both broadcast over a batch.

        Args:
            shape: of a batch of samples; channels are axis 1.
            of: the input, in a message's words; "" where there is one.

        Raises:
            InputError: the samples have another number of channels.
        """
        if self.channels not in (1, shape[1]):
            raise InputError(
                f"the preprocessing{of} has {self.channels} channels, the samples have {shape[1]}",
                allowed="one number, or one per channel",
            )
        std, mean = np.asarray(self.std), np.asarray(self.mean)
        axes = (1, -1, *[1] * (len(shape) - 2))
        return (self.scale / std).reshape(axes), (-mean / std).reshape(axes)


Preprocessing = Mapping[str, Preprocess]
"""Of several inputs, by the names of forward()'s arguments; "" of the only one."""


def preprocessing_of(given: Preprocess | str | Mapping[str, Any] | None) -> Preprocessing:
    """From what :meth:`Preprocess.of` takes, for one input; for several, the same by name.

    A text then names the input in front of each setting (``image.scale=1/255 depth.mean=0.4``); a mapping
    has a mapping, a text or a :class:`Preprocess` for each.

    Raises:
        InputError: a setting is unknown, or a value is no number.
    """
    if isinstance(given, str) and any("." in part.partition("=")[0] for part in given.split()):
        named: dict[str, list[str]] = {}
        for part in given.split():
            name, dot, setting = part.partition(".") if "." in part.partition("=")[0] else ("", "", part)
            if not dot:
                raise InputError(
                    f"{part!r} of the preprocessing names no input, others do",
                    allowed="NAME.scale=… for each",
                )
            named.setdefault(name, []).append(setting)
        given = {name: " ".join(settings) for name, settings in named.items()}
    elif not isinstance(given, Mapping) or not given or set(given) & set(asdict(Preprocess())):
        return {"": Preprocess.of(given)}
    return {str(name): Preprocess.of(_settings(name, part)) for name, part in given.items()}


def _settings(name: Any, given: Any) -> Any:
    if not isinstance(given, Preprocess | str | Mapping):
        if name not in asdict(Preprocess()):
            raise InputError(f"unknown preprocessing {name!r}", allowed="scale=…, mean=…, std=…")
        raise InputError(
            f"the preprocessing of input {name!r} is {given!r}",
            allowed="'scale=… mean=… std=…', or a mapping",
        )
    return given


def preprocessed(
    model: nn.Module, given: Preprocessing, shapes: Sequence[Sequence[int]], arguments: Sequence[str]
) -> nn.Module:
    """A network with its preprocessing in front, under the names that its own layers have.

    Args:
        shapes: of a batch of each input; channels are axis 1.
        arguments: the names of the inputs; () where they cannot be known.

    Raises:
        InputError: it is for another input, does not say for which, or has another number of channels.
    """
    chosen = {name: part for name, part in given.items() if not part.is_none}
    if len(shapes) == 1 and set(chosen) <= {"", *arguments}:
        return next(iter(chosen.values()), Preprocess()).before(model, shapes[0])
    for name in chosen:
        if name not in arguments:
            raise InputError(
                f"the preprocessing is for input {name!r}"
                if name
                else "the preprocessing does not say for which input it is",
                allowed=f"the network's inputs: {', '.join(arguments)}",
                hint=closest(name, arguments)
                if name
                else f"name it in front of each setting: {next(iter(arguments), 'NAME')}.scale=1/255",
            )
    from qhw.layers.preprocessed import Preprocessed

    constants = {
        name: chosen[name].constants(shape, f" of input {name!r}")
        for name, shape in zip(arguments, shapes, strict=True)
        if name in chosen
    }
    return Preprocessed(model, constants, arguments) if constants else model


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    parts = (
        value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    )
    try:
        return tuple(float(Fraction(part) if isinstance(part, str) else part) for part in parts)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise InputError(
            f"the {name} of the preprocessing is {value!r}",
            allowed="numbers, as in 0.5, 1/255 or 0.1,0.2,0.3",
        ) from None
