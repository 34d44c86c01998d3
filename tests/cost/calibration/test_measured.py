"""Measured sets: what is written is read again, byte for byte; what was changed by hand is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from qhw.cost.calibration import measured
from qhw.cost.calibration.measured import Row
from qhw.cost.oracle.netlist import Counts
from qhw.cost.oracle.synth import SynthesisResult
from qhw.errors import InputError

RESULT = SynthesisResult(
    "0123456789abcdef", "yosys", "0.70", "area", Counts(49, 67, 48, 0, 44, 0, 0, 0, 6), "", 171.64
)
ROWS = [
    Row("integer_mac", (("WA", 7), ("S", -2)), "fit", RESULT),
    Row("integer_mac", (("WA", 8), ("S", -2)), "held-out", replace(RESULT, fmax_mhz=None)),
    Row(
        "threshold",
        (("T", 3),),
        "held-out format",
        replace(RESULT, counts=None, failure="time", fmax_mhz=None),
    ),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "family" / "measured.csv"
    measured.write(file, ROWS)
    return file


def test_the_same_rows_come_back_and_give_the_same_bytes(path: Path) -> None:
    assert measured.read(path) == ROWS
    text = path.read_bytes()
    measured.write(path, measured.read(path))
    assert path.read_bytes() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",49,67,", ",48,67,", "row 2, field 'check'"),
        ("WA=8 S=-2", "WA=9 S=-2", "row 3, field 'check'"),
        ("WA=8 S=-2", "WA=eight S=-2", "row 3, field 'parameters'"),
        (",49,67,", ",-49,67,", "row 2, field 'lut'"),
        (",49,67,", ",49,,", "row 2, field 'lut_raw'"),
        ("171.64", "fast", "row 2, field 'fmax_mhz'"),
        ("held-out,", "spare,", "row 3, field 'split'"),
        ("area,time", "area,late", "row 4, field 'status'"),
        ("area,ok", "area,time", "row 2, field 'status'"),
        ("depth", "levels", "row 1"),
        (",44,0,0,0,6,171.64", ",44,0,0,0,6", "row 2: 18 fields"),
        ("unit,", '"unit,', "not a table"),
    ],
)
def test_a_damaged_row_is_refused_by_row_and_field(path: Path, old: str, new: str, said: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=re.escape(said)):
        measured.read(path)


def test_every_digit_of_a_row_is_guarded(path: Path) -> None:
    """No single digit can be changed unnoticed: in the counts, the key or the checksum itself."""
    text = path.read_text()
    for position, character in enumerate(text):
        if character.isdigit():
            path.write_text(text[:position] + str((int(character) + 1) % 10) + text[position + 1 :])
            with pytest.raises(InputError):
                measured.read(path)


def test_a_design_twice_and_a_file_that_is_not_there(path: Path, tmp_path: Path) -> None:
    measured.write(path, [ROWS[0], ROWS[1], replace(ROWS[0], split="held-out")])
    with pytest.raises(InputError, match="row 4, field 'parameters': the design of row 2"):
        measured.read(path)
    with pytest.raises(InputError, match="cannot be read"):
        measured.read(tmp_path / "none.csv")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no text"):
        measured.read(path)


def test_counts_of_a_failed_design_are_asked_for_by_name() -> None:
    assert ROWS[0].counts.lut == 49
    with pytest.raises(InputError, match="T=3 has no counts: time"):
        _ = ROWS[2].counts
