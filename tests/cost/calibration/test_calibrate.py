"""Calibration goes on where it stopped, records what failed, and needs no measured row twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from qhw.cost.calibration import catalogue, measured, model_file
from qhw.cost.calibration.calibrate import calibrate, oracle_of
from qhw.cost.calibration.catalogue import HELD_OUT_FORMATS, points
from qhw.cost.oracle.netlist import Counts
from qhw.cost.oracle.synth import FAMILIES, Circuit, SynthesisResult
from qhw.errors import CheckFailedError, InputError
from qhw.rtl import UNITS


@dataclass
class Counting:
    """An oracle that counts bits, remembers what it was asked for, and fails where it is told to."""

    family: str = "ultrascale-plus"
    asked: list[str] = field(default_factory=list)
    out_of_time: str = "-"
    refused: str = "-"

    def key(self, design: Circuit) -> str:
        return f"{design}"

    def synthesise(self, design: Circuit) -> SynthesisResult:
        self.asked.append(str(design))
        if self.refused in str(design):
            raise CheckFailedError("no netlist", hint="a latch")
        bits = sum(value for _, value in design.parameters)
        counts = Counts(bits, bits, bits, 0, bits, 0, 0, 0, 1)
        failed = self.out_of_time in str(design)
        return SynthesisResult(
            self.key(design), "toy", "1", "area", None if failed else counts, "time" if failed else ""
        )


def run(tmp_path: Path, oracle: Counting, **options: object) -> object:
    return calibrate(
        oracle.family,
        units=["adder_tree", "max_pool"],
        path=tmp_path / "measured.csv",
        oracle=oracle,
        cache=tmp_path / "cache",
        jobs=2,
        **options,  # type: ignore[arg-type]
    )


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    part = run(tmp_path, first, limit=7)
    assert (part.measured, len(part.rows)) == (7, 7)  # type: ignore[attr-defined]
    whole = run(tmp_path, second)
    wanted = UNITS["adder_tree"].space.points + UNITS["max_pool"].space.points
    assert whole.left == 0  # type: ignore[attr-defined]
    assert len(measured.read(tmp_path / "measured.csv")) == wanted
    assert len(second.asked) == wanted - 7
    assert not set(first.asked) & set(second.asked)
    again = run(tmp_path, third := Counting())
    assert (again.measured, third.asked) == (0, [])  # type: ignore[attr-defined]


def test_the_same_set_gives_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        run(tmp_path / name, Counting())
        folder = tmp_path / name
        files.append([(folder / file).read_bytes() for file in ("measured.csv", "model.json")])
    assert files[0] == files[1]
    assert set(model_file.read(tmp_path / "one" / "model.json").units) == {"adder_tree", "max_pool"}


def test_what_fails_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    names = [str(point.circuit) for point in points("ultrascale-plus", ["adder_tree"])]
    result = run(tmp_path, Counting(out_of_time=names[2], refused=names[4]))
    rows = {f"{row.unit} {dict(row.parameters)}": row for row in measured.read(tmp_path / "measured.csv")}
    assert [row.result.failure for row in rows.values() if row.result.failure] == ["time"]
    assert list(result.refused.items()) == [(names[4], "a latch")]  # type: ignore[attr-defined]
    assert result.units["adder_tree"].failed == 1  # type: ignore[attr-defined]
    # What failed is tried again.
    run(tmp_path, again := Counting())
    assert sorted(again.asked) == sorted([names[2], names[4]])


def test_an_edited_row_stops_the_run_and_names_itself(tmp_path: Path) -> None:
    run(tmp_path, Counting(), limit=3)
    path = tmp_path / "measured.csv"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace(",ok,", ",ok,1", 1)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"row 3, field 'check'"):
        run(tmp_path, Counting())


def test_unknown_names_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'adder_trees' is not a unit"):
        calibrate("ecp5", units=["adder_trees"], path=tmp_path / "m.csv", oracle=Counting("ecp5"))
    with pytest.raises(InputError, match="'quartus' does not synthesise"):
        oracle_of("quartus", "ecp5")
    with pytest.raises(InputError, match="'virtex' is not a device family"):
        oracle_of("yosys", "virtex")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sample_is_large_spread_and_legal(family: str) -> None:
    every = points(family, catalogue.units())
    assert len(every) >= {"ultrascale-plus": 1500}.get(family, 500)
    assert len({point.design for point in every}) == len(every)
    for point in every:
        UNITS[point.unit].checked(dict(point.parameters))
    out = sum(point.split != "fit" for point in every) / len(every)
    assert 0.18 < out < 0.35
    formats = [dict(p.parameters) for p in every if p.split == "fit" and p.unit.startswith("minifloat")]
    assert formats
    assert not {(v["EA"], v["MA"]) for v in formats} & HELD_OUT_FORMATS
    assert not {(v["EB"], v["MB"]) for v in formats} & HELD_OUT_FORMATS
