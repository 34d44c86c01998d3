"""Fitted models: what is fitted and what never is, files that reproduce, and what a damaged one says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qhw.cost.calibration import measured, model_file
from qhw.cost.calibration.accuracy import UnitErrors
from qhw.cost.calibration.fit import Spread, fit, predicted_lut
from qhw.cost.calibration.measured import Row, Split
from qhw.cost.oracle.netlist import Counts
from qhw.cost.oracle.synth import SynthesisResult
from qhw.cost.pricing.calibrated import CostModel, unit_cost
from qhw.errors import InputError
from qhw.rtl.base import ClosedForms, Values

FAMILY = "ultrascale-plus"
MODEL = ClosedForms(lambda v: {"bits": v["W"], "lanes": v["L"]}, lambda v: v["W"] * v["L"])


def row(values: Values, lut: int, split: Split = "fit", ff: int | None = None, failure: str = "") -> Row:
    counts = Counts(lut, lut, lut, 0, values["W"] * values["L"] if ff is None else ff, 0, 0, 0, 1)
    result = SynthesisResult("k", "yosys", "1", "area", None if failure else counts, failure)
    return Row("toy", tuple(values.items()), split, result)


def rows() -> list[Row]:
    return [row({"W": w, "L": n}, 3 * w + 7 * n) for w in (20, 40, 80) for n in (5, 10)]


def test_weights_of_a_known_circuit_are_found() -> None:
    assert fit(MODEL, rows()) == {"bits": 3.0, "lanes": 7.0}


def test_held_out_and_failed_rows_are_not_fitted() -> None:
    wrong = [
        row({"W": 30, "L": 4}, 10**6, "held-out"),
        row({"W": 31, "L": 4}, 10**6, "held-out format"),
        row({"W": 32, "L": 4}, 10**6, failure="time"),
    ]
    assert fit(MODEL, rows() + wrong) == fit(MODEL, rows())


def test_no_weight_is_negative() -> None:
    falling = [row({"W": w, "L": 10}, 500 - 3 * w) for w in (20, 40, 80)]
    assert all(weight >= 0 for weight in fit(MODEL, falling).values())


def test_errors_are_told_by_their_definition() -> None:
    off = [
        row({"W": 20, "L": 5}, 100),
        row({"W": 40, "L": 5}, 155, ff=203),
        row({"W": 80, "L": 5}, 220, ff=400),
    ]
    found = UnitErrors.of(MODEL, {"bits": 3.0, "lanes": 7.0}, off, FAMILY)
    assert found.designs == 3
    percent = [5.0, 0.0, 25.0]  # 95, 155 and 275 are predicted
    assert found.lut_percent == Spread(5.0, float(np.percentile(percent, 95)), 3)
    assert found.lut.median == 5
    assert (found.ff_exact, found.ff_beyond) == (2 / 3, 0)
    assert UnitErrors.of(MODEL, {}, [row({"W": 2, "L": 5}, 1, ff=20)], FAMILY).ff_beyond == 1


def real_rows() -> list[Row]:
    every = measured.read(measured.path_of(FAMILY))
    return [row for row in every if row.unit in ("integer_mac", "adder_tree")]


def test_a_refit_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in files:
        model_file.write(path, model_file.fit_family(FAMILY, real_rows()))
    assert files[0].read_bytes() == files[1].read_bytes()
    read = model_file.read(files[0])
    model_file.write(files[1], read)
    assert files[0].read_bytes() == files[1].read_bytes()


def changed(path: Path, edit: object) -> None:
    content = json.loads(path.read_text())
    edit(content)  # type: ignore[operator]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: c["units"]["integer_mac"]["weights"].update(gates=0.5), "field 'check'"),
        (lambda c: c["units"]["integer_mac"]["held_out"]["lut"].update(median=0.0), "field 'check'"),
        (
            lambda c: c["units"]["integer_mac"]["weights"].update(gates=-1),
            "integer_mac.weights.gates: -1 is less than",
        ),
        (
            lambda c: c["units"]["integer_mac"].pop("weights"),
            "integer_mac: 'weights' is a required",
        ),
        (lambda c: c.update(schema_version=99), "field 'schema_version'"),
    ],
)
def test_a_model_changed_by_hand_is_refused(tmp_path: Path, edit: object, said: str) -> None:
    path = tmp_path / "model.json"
    model_file.write(path, model_file.fit_family(FAMILY, real_rows()))
    changed(path, edit)
    with pytest.raises(InputError, match=said):
        model_file.read(path)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "schema")]
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "model.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=said):
        model_file.read(path)


def test_arrays_are_evaluated_as_single_designs_are() -> None:
    fitted = model_file.fit_family(FAMILY, real_rows())
    model = CostModel(FAMILY, {name: unit.weights for name, unit in fitted.units.items()})
    widths = np.array([[3, 4], [8, 3]])
    every = model.usage("integer_mac", WA=widths, WB=5, SA=1, SB=0, A=20, MULTIPLIER=0)
    for place in np.ndindex(widths.shape):
        one = model.usage("integer_mac", WA=int(widths[place]), WB=5, SA=1, SB=0, A=20, MULTIPLIER=0)
        assert (every.lut[place], every.ff[place]) == (one.lut, one.ff)  # type: ignore[index]
    with pytest.raises(InputError, match="'integer_dot' was not measured"):
        model.usage("integer_dot", WA=4, WB=4, SA=1, SB=1, L=4, A=20, MULTIPLIER=0)


def test_a_unit_is_told_with_its_latency_and_energy() -> None:
    cost = unit_cost(FAMILY, "integer_mac", {"WA": 8, "WB": 8, "SA": 1, "SB": 1, "A": 24})
    assert (cost.ff, cost.dsp, cost.latency_cycles, cost.initiation_interval) == (58, 0, 3, 1)
    assert cost.energy_pj == pytest.approx(0.002995 * 64 + 0.00104 * 8 + 0.003125 * 24)
    in_slice = unit_cost(
        FAMILY, "integer_mac", {"WA": 8, "WB": 8, "SA": 1, "SB": 1, "A": 24, "MULTIPLIER": 1}
    )
    assert (in_slice.dsp, in_slice.ff) == (1, 1)
    with pytest.raises(InputError, match="WA of integer_mac"):
        unit_cost(FAMILY, "integer_mac", {"WA": 99, "WB": 8, "SA": 1, "SB": 1, "A": 24})


def test_predictions_follow_the_weights() -> None:
    assert predicted_lut(MODEL, {"bits": 2.0}, {"W": 10, "L": 4}) == 20
