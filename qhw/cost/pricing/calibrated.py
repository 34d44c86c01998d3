"""A unit's resources on a device family, by its calibrated model: for one set of parameters, or arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qhw.cost.calibration import model_file
from qhw.cost.calibration.fit import predicted_lut
from qhw.cost.pricing.usage import Usage
from qhw.devices import fabric_of
from qhw.errors import InputError
from qhw.rtl import closed_forms, unit_named

Key: TypeAlias = "tuple[str, tuple[str, ...], tuple[int, ...]]"


@dataclass(frozen=True)
class CostModel:
    """The units of one family.

    Args:
        family: device family, e.g. "ecp5".
        weights: LUT of each feature, by unit.
    """

    family: str
    weights: Mapping[str, Mapping[str, float]]
    _known: dict[Key, tuple[float, ...]] = field(default_factory=dict, repr=False, compare=False)

    def usage(self, unit: str, **parameters: Any) -> Usage:
        """The resources of one unit; parameters may be arrays, of shapes that go together.

        Evaluated once for each set of parameters that differs. LUT are not rounded.

        Raises:
            UnsupportedError: the unit has no closed forms.
            InputError: the unit was not calibrated for this family.
        """
        names = tuple(parameters)
        arrays = np.broadcast_arrays(*(np.asarray(value) for value in parameters.values()))
        if not arrays or not arrays[0].shape:
            return Usage(*self._one(unit, names, tuple(int(value) for value in arrays)))
        rows = np.stack([array.ravel() for array in arrays], axis=1).astype(np.int64)
        different, place = np.unique(rows, axis=0, return_inverse=True)
        each = np.array([self._one(unit, names, tuple(row.tolist())) for row in different])
        columns: NDArray[np.float64] = each[place.ravel()].reshape(*arrays[0].shape, -1)
        return Usage(*np.moveaxis(columns, -1, 0))

    def _one(self, unit: str, names: tuple[str, ...], values: tuple[int, ...]) -> tuple[float, ...]:
        key = unit, names, values
        if key not in self._known:
            self._known[key] = self._evaluated(unit, dict(zip(names, values, strict=True)))
        return self._known[key]

    def _evaluated(self, unit: str, values: Mapping[str, int]) -> tuple[float, ...]:
        model = closed_forms(unit, self.family)
        if unit not in self.weights:
            raise InputError(
                f"The unit {unit!r} was not measured on {self.family}",
                allowed=", ".join(self.weights),
                hint=f"qhw calibrate --family {self.family} --units {unit}",
            )
        return (
            predicted_lut(model, self.weights[unit], values),
            model.flip_flops(values),
            model.dsp(values),
            model.bram18(values, self.family),
            model.uram(values, self.family),
        )


@dataclass(frozen=True)
class UnitCost:
    """The cost of one unit with its parameters, by its model.

    Args:
        lut: LUTs, not rounded.
        bram18: blocks of 18 Kb.
        latency_cycles: cycles from an input to the output it first shows in.
        initiation_interval: cycles between two inputs.
        energy_pj: energy of one cycle, relative (:mod:`qhw.rtl.shared.energy`); None where there is no
            figure.
    """

    lut: float
    ff: int
    dsp: int
    bram18: int
    uram: int
    latency_cycles: int
    initiation_interval: int
    energy_pj: float | None


def unit_cost(family: str, unit: str, parameters: Mapping[str, int]) -> UnitCost:
    """Resources, timing and energy of one unit on a family of devices.

    Raises:
        InputError: an unknown family or unit, or a parameter out of its range.
    """
    circuit = unit_named(unit)
    values = circuit.checked(parameters)
    used = cost_model(family).usage(unit, **values)
    return UnitCost(
        lut=float(used.lut),
        ff=int(used.ff),
        dsp=int(used.dsp),
        bram18=int(used.bram18),
        uram=int(used.uram),
        latency_cycles=circuit.latency(values),
        initiation_interval=1,
        energy_pj=None if circuit.energy_pj is None else circuit.energy_pj(values),
    )


@cache
def cost_model(family: str) -> CostModel:
    """The committed model of a family; the LUTs of one that was not measured are those of a like one.

    Raises:
        InputError: an unknown family, one without a model, or a damaged file.
    """
    fitted = model_file.read(model_file.path_of(fabric_of(family).priced_as or family))
    return CostModel(family, {name: unit.weights for name, unit in fitted.units.items()})
