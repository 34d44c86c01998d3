"""The published errors follow from the committed measurements, and from nothing else."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qhw.cost.calibration import measured, model_file
from qhw.cost.calibration.accuracy import UnitErrors
from qhw.cost.calibration.fit import Spread
from qhw.cost.oracle.synth import FAMILIES, Yosys
from qhw.errors import InputError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cost_models.py"
MEASURED = [family for family in FAMILIES if measured.path_of(family).exists()]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cost_models_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_page_is_what_the_committed_sets_give(script: ModuleType) -> None:
    assert script.text(script.families(), script.kept_syntheses()) == script.README.read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("family", MEASURED)
def test_a_refit_gives_the_same_bytes(family: str, tmp_path: Path) -> None:
    rows = measured.read(measured.path_of(family))
    model_file.write(tmp_path / "model.json", model_file.fit_family(family, rows))
    assert (tmp_path / "model.json").read_bytes() == model_file.path_of(family).read_bytes()


def test_every_plot_of_the_page_is_there_and_small(script: ModuleType) -> None:
    shown = [
        line.split("](")[1].rstrip(")") for line in script.README.read_text().splitlines() if "![" in line
    ]
    assert len(shown) == 2 * len(MEASURED)
    for name in shown:
        assert (script.FOLDER / name).read_bytes().startswith(b"\x89PNG")
        assert (script.FOLDER / name).stat().st_size < 200_000


def test_kept_syntheses_are_those_of_the_circuits_as_they_are(script: ModuleType) -> None:
    pytest.importorskip("pyosys")
    wanted = {label: oracle.key(design) for label, (oracle, design) in script.syntheses().items()}
    assert wanted == {label: result.key for label, result in script.kept_syntheses().items()}


def test_other_names_are_another_synthesis_of_the_same_circuit(script: ModuleType) -> None:
    pytest.importorskip("pyosys")
    element = script.element(1)
    plain, renamed = (Yosys(script.NOISE_FAMILY, scramble=seed) for seed in (None, 1))
    assert plain.key(element) == Yosys(script.NOISE_FAMILY).key(element) != renamed.key(element)
    assert any("-seed 1" in command for command in renamed.commands(element))
    counts = [oracle.synthesise(element).counts for oracle in (plain, renamed)]
    assert counts[0] is not None
    assert counts[1] is not None
    assert (counts[0].ff, counts[0].dsp, counts[0].bram18) == (counts[1].ff, counts[1].dsp, counts[1].bram18)
    assert counts[0].lut == pytest.approx(counts[1].lut, rel=0.1)
    with pytest.raises(InputError, match="1 or more"):
        Yosys("ecp5", scramble=0)


def errors(percent: tuple[float, float], lut: tuple[float, float], designs: int = 9) -> UnitErrors:
    return UnitErrors(designs, Spread(*percent, designs), Spread(*lut, designs), 1, 0, 1, 1)


def test_a_target_holds_up_to_its_bounds(script: ModuleType) -> None:
    relative, absolute = script.Target(2, 8), script.Target(1, 3, percent=False)
    assert relative.is_met(errors((2, 8), (50, 90)))
    assert not relative.is_met(errors((2.01, 8), (0, 0)))
    assert not relative.is_met(errors((2, 8.01), (0, 0)))
    assert absolute.is_met(errors((50, 90), (1, 3)))
    assert not absolute.is_met(errors((0, 0), (1, 3.1)))
    assert relative.is_met(errors((float("nan"), float("nan")), (0, 0), designs=0))


def test_a_share_is_never_rounded_up_to_the_whole(script: ModuleType) -> None:
    assert [script.share(part) for part in (1, 0.99999, 0.5, float("nan"))] == ["100 %", "99.9 %", "50 %", ""]


def test_formulas_of_others_on_a_design_worked_by_hand(script: ModuleType) -> None:
    dot = {"WA": 4, "WB": 4, "SA": 1, "SB": 1, "L": 8, "A": 16, "MULTIPLIER": 0}
    assert script.EBOPS["integer_dot"](dot) == 8 * 16
    assert script.FINN["integer_dot"](dot) == pytest.approx(1.1 * (8 * 3 * 8 + 8 * 15 + 16))
    assert script.EBOPS["minifloat_mac"]({"EA": 4, "MA": 3, "EB": 2, "MB": 1, "A": 30}) == 8 * 4
    assert script.FINN["threshold"]({"A": 10, "T": 3, "S": 1}) == pytest.approx(33)


def test_what_is_learned_sees_the_fitted_rows_alone(script: ModuleType) -> None:
    family = script.families(["ultrascale-plus"])[0]
    spoiled = [_doubled(row) if row.split != "fit" else row for row in family.rows]
    others = script.Family(family.name, tuple(spoiled))
    values = family.unseen("threshold")[0].values
    for name, estimator in script.estimators(family, "threshold").items():
        assert estimator(values) == script.estimators(others, "threshold")[name](values)


def _doubled(row: Any) -> Any:
    return replace(row, result=replace(row.result, counts=replace(row.counts, lut=2 * row.counts.lut)))
