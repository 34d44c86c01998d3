"""Models of the units: counts of structure for their LUTs, and closed forms for everything else.

The LUTs of a unit are a weighted sum of its structure's bit counts. Where a bit is known to take one LUT the
weight comes out at 1; the weights are fitted to measured circuits by :mod:`qhw.cost.calibration.fit` and kept
in ``cost_models/<family>/model.json``. Flip-flops, DSP slices and memories follow from the circuit and have
no fitted weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Values: TypeAlias = "Mapping[str, int]"
Features: TypeAlias = "dict[str, float]"


def _none(values: Values) -> int:
    return 0


def _no_memory(values: Values, family: str) -> int:
    return 0


@dataclass(frozen=True)
class UnitModel:
    """The closed forms of one unit.

    Args:
        features: counts of structure that its LUTs are fitted to.
        flip_flops: its flip-flops.
        dsp: its DSP slices.
        bram18: block RAMs of 18 Kb (ECP5: DP16KD) in a family of devices.
        uram: UltraRAMs.
    """

    features: Callable[[Values], Features]
    flip_flops: Callable[[Values], int]
    dsp: Callable[[Values], int] = _none
    bram18: Callable[[Values, str], int] = _no_memory
    uram: Callable[[Values, str], int] = _no_memory
