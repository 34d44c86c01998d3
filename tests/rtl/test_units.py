"""What every unit has: Verilog, a space, closed forms, measured rows, a proof; what is missing where."""

from __future__ import annotations

import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest

import qhw.rtl
from qhw.cost.calibration import catalogue, measured, model_file
from qhw.cost.calibration.accuracy import FF_SHARE, FF_SLACK
from qhw.cost.calibration.calibrate import calibrate
from qhw.cost.calibration.measured import Row
from qhw.cost.pricing.calibrated import CostModel
from qhw.devices import fabrics
from qhw.rtl import UNITS, closed_forms
from qhw.rtl.base import Axis, ClosedForms, MeasuredUnit, Parameter, Port, Ports, Space
from qhw.rtl.simulation.proof import Case, check, prove
from qhw.rtl.simulation.verilator import Simulator

FAMILIES = tuple(fabrics())
PROOFS = Path(__file__).parents[2] / "benchmarks" / "results" / "rtl_proofs.md"

MISSING: Mapping[str, set[str]] = {
    # What these add up is known only for given constants.
    "energy": {"khot_constant_dot", "constant_matrix"}
    # A layer's energy counts its numbers, not its counters.
    | {"layer_control", "window_buffer"},
    # Its slice has 18 x 18 bits, which no two products share.
    "ecp5: space": {"packed_mac"},
}
"""Units that a place does not have."""


def has_verilog(unit: MeasuredUnit) -> bool:
    """A file of its own name with the module, or what emits it; and the files that they need."""
    if not all(file.exists() for file in unit.files):
        return False
    if unit.emit is not None:
        return True
    own = [file for file in unit.files if file.stem == unit.name]
    return len(own) == 1 and f"module {unit.top}" in own[0].read_text()


def has_space(unit: MeasuredUnit, family: str) -> bool:
    """Designs of every parameter, each within its range."""
    if {axis.name for axis in unit.space.axes} != set(unit.parameters):
        return False
    points = catalogue.points(family, [unit.name])
    return bool(points) and all(unit.checked(dict(point.parameters)) for point in points)


@cache
def rows_of(family: str) -> Mapping[str, list[Row]]:
    """The measured rows of a family, by unit."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in measured.read(measured.path_of(family)):
        rows[row.unit].append(row)
    return dict(rows)


def is_measured(unit: MeasuredUnit, family: str) -> bool:
    """Every design of its space has a row, in order, and there is no other."""
    sampled = [point.design for point in catalogue.points(family, [unit.name])]
    return [row.design for row in rows_of(family).get(unit.name, [])] == sampled


def has_closed_forms(unit: MeasuredUnit, family: str) -> bool:
    """Counts of structure for every measured design, and its flip-flops but for a few."""
    forms, rows = closed_forms(unit.name, family), rows_of(family).get(unit.name, [])
    return all(
        forms.features(row.values)
        and abs(forms.flip_flops(row.values) - row.counts.ff) <= max(FF_SLACK, FF_SHARE * row.counts.ff)
        for row in rows
    )


def is_fitted(unit: MeasuredUnit, family: str) -> bool:
    """Weights of exactly the features that its designs have, where it was measured."""
    rows = rows_of(family).get(unit.name, [])
    features = {name for row in rows for name in closed_forms(unit.name, family).features(row.values)}
    fitted = model_file.read(model_file.path_of(family)).units.get(unit.name)
    return features == set(fitted.weights if fitted else ())


def is_proven(unit: MeasuredUnit) -> bool:
    """A line in the committed table of simulated designs, without a difference."""
    lines = [line.strip("| ").split(" | ") for line in PROOFS.read_text().splitlines()]
    return [(line[1], line[-1]) for line in lines if line[0] == unit.name] == [(unit.summary, "0")]


PLACES: Mapping[str, Callable[[MeasuredUnit], bool]] = {
    "Verilog": has_verilog,
    "proof": is_proven,
    "energy": lambda unit: unit.energy_pj is not None,
}
PLACES_OF_A_FAMILY: Mapping[str, Callable[[MeasuredUnit, str], bool]] = {
    "space": has_space,
    "measured rows": is_measured,
    "closed forms": has_closed_forms,
    "fitted model": is_fitted,
}


@pytest.mark.parametrize("place", PLACES)
def test_every_unit_is_there_or_known_to_be_missing(place: str) -> None:
    missing = {name for name, unit in UNITS.items() if not PLACES[place](unit)}
    assert missing == MISSING.get(place, set())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", PLACES_OF_A_FAMILY)
def test_every_unit_is_in_every_family_or_known_to_be_missing(place: str, family: str) -> None:
    missing = {name for name, unit in UNITS.items() if not PLACES_OF_A_FAMILY[place](unit, family)}
    assert missing == MISSING.get(f"{family}: {place}", set())


def test_a_unit_is_one_file_of_its_name() -> None:
    modules = [m.name for m in pkgutil.iter_modules(qhw.rtl.__path__) if not m.ispkg and m.name != "base"]
    found = {name: importlib.import_module(f"qhw.rtl.{name}").UNIT for name in modules}
    assert {name: unit.name for name, unit in found.items()} == {name: name for name in modules}
    assert {unit.name: unit for unit in found.values()} == dict(UNITS)


def test_every_unit_has_a_place_of_its_own_in_the_measured_sets() -> None:
    assert [unit.space.place for unit in UNITS.values()] == list(range(1, len(UNITS) + 1))
    for family in FAMILIES:
        assert list(rows_of(family)) == [name for name in UNITS if name in rows_of(family)]


GATES = MeasuredUnit(
    name="gates",
    summary="y = a xor b, bit by bit",
    ranges=(Parameter("W", 1, 8, "bits"),),
    sources=(),
    ports=lambda values: Ports((Port("a", values["W"]), Port("b", values["W"])), (Port("y", values["W"]),)),
    latency=lambda values: 2,
    reference=lambda values, inputs: {"y": inputs["a"] ^ inputs["b"]},
    emit=lambda values: (
        f"""\
module gates (input clk, enable, input [{values["W"] - 1}:0] a, b, output reg [{values["W"] - 1}:0] y);
    reg [{values["W"] - 1}:0] a1, b1;
    always @(posedge clk) if (enable) begin
        a1 <= a;
        b1 <= b;
        y <= a1 ^ b1;
    end
endmodule
"""
    ),
    space=Space(place=len(UNITS) + 1, points=8, axes=(Axis("W", 1, 8),)),
    closed_forms=lambda family: ClosedForms(
        lambda values: {"bits": values["W"]}, lambda values: 3 * values["W"]
    ),
)


@pytest.mark.slow
def test_a_unit_needs_nothing_but_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulator: Simulator
) -> None:
    """Sampled, simulated, synthesised, fitted and priced."""
    pytest.importorskip("pyosys")
    monkeypatch.setitem(UNITS, "gates", GATES)
    points = catalogue.points("ecp5", ["gates"])
    check(prove([Case(GATES, dict(point.parameters)) for point in points], simulator))
    found = calibrate("ecp5", units=["gates"], path=tmp_path / "measured.csv", cache=tmp_path / "cache")
    assert (len(found.rows), found.left, found.refused) == (len(points), 0, {})
    weights = {name: unit.weights for name, unit in found.fitted.units.items()}
    cost = CostModel("ecp5", weights).usage("gates", W=8)
    assert (cost.lut, cost.ff) == (8, 24)
