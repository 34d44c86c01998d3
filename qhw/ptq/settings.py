"""What post-training quantisation is to do: its methods, its calibration, its samples. Needs no torch."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhw.errors import InputError, closest

QUANTISE = ("training", "ptq")
"""How a float network becomes a quantised one."""

DEFAULT_METHODS = ("gpfq",)
"""The recipe that did best in ``benchmarks/ptq_methods.py``."""

DEFAULT_CALIBRATION = "mse"

ROUNDINGS = ("gptq", "gpfq", "adaround", "flexround")
"""Methods that decide how each weight is rounded: one of them at most."""


def names_in(folder: str) -> tuple[str, ...]:
    """The names of what lies in a folder of this package, one file each: ``bn_fold.py`` is ``bn-fold``."""
    found = pkgutil.iter_modules([str(Path(__file__).parent / folder)])
    return tuple(sorted(module.name.replace("_", "-") for module in found if module.name != "base"))


@dataclass(frozen=True)
class PtqSettings:
    """How a network is quantised without training.

    Args:
        methods: names of :mod:`qhw.ptq.methods`, in any order: they are applied in the order that they need.
        calibration: a name of :mod:`qhw.ptq.calibrations`; ``percentile:99.99`` states which one.
        samples: how many samples of the training split are looked at.
        seed: which ones they are; also the seed of methods that draw numbers.

    Raises:
        InputError: a name is not known, methods exclude each other, or a number is out of range.
    """

    methods: Sequence[str] = DEFAULT_METHODS
    calibration: str = DEFAULT_CALIBRATION
    samples: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", _checked_methods(self.methods))
        name, _, parameter = str(self.calibration).partition(":")
        known = names_in("calibrations")
        if name not in known:
            raise InputError(
                f"the calibration is {name!r}", allowed=", ".join(known), hint=closest(name, known)
            )
        if parameter:
            _check_percentile(name, parameter)
        for setting, least in {"samples": 2, "seed": 0}.items():
            value: Any = getattr(self, setting)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{setting} is {value!r}", allowed=f"integers from {least}")


def _checked_methods(given: Any) -> tuple[str, ...]:
    """The methods once each, sorted; a text holds them with commas between."""
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
    names = [name for name in names if name not in ("", "none")]
    known = names_in("methods")
    for name in names:
        if name not in known:
            raise InputError(
                f"{name!r} is not a method of post-training quantisation",
                allowed=f"{', '.join(known)}, or none",
                hint=closest(str(name), known),
            )
    rounding = [name for name in ROUNDINGS if name in names]
    if len(rounding) > 1:
        raise InputError(
            f"{' and '.join(rounding)} each decide how every weight is rounded", hint="name one of them"
        )
    if {"bn-fold", "bn-reestimate"} <= set(names):
        raise InputError(
            "bn-fold leaves no batch norm whose statistics bn-reestimate could find again",
            hint="name one of them",
        )
    return tuple(sorted(set(names)))


def _check_percentile(name: str, parameter: str) -> None:
    try:
        share = float(parameter)
    except ValueError:
        share = -1.0
    if name != "percentile" or not 50 <= share <= 100:
        raise InputError(
            f"the calibration is '{name}:{parameter}'",
            allowed="percentile:50 to percentile:100, or a name alone",
        )
