"""Calibrations, one file each: which range of a tensor of activations its format is to hold."""

from __future__ import annotations

import importlib

from qhw.ptq.calibrations.base import Calibration


def calibration_named(text: str) -> Calibration:
    """The calibration of a name that :class:`qhw.ptq.settings.PtqSettings` has checked.

    Args:
        text: the name, or ``percentile:99.99``.
    """
    name, _, parameter = text.partition(":")
    kind = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").CALIBRATION
    chosen: Calibration = kind(float(parameter)) if parameter else kind()
    return chosen
