"""Measuring with Vivado, against a stand-in that answers and reports in its layout."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from qhw.cost.oracle.netlist import Counts
from qhw.cost.oracle.synth import Circuit
from qhw.cost.oracle.vivado import Vivado
from qhw.errors import CheckFailedError, InputError, ToolMissingError

REPORT = """\
1. CLB Logic
+----------------------------+------+-------+-----------+-------+
|          Site Type         | Used | Fixed | Available | Util% |
+----------------------------+------+-------+-----------+-------+
| CLB LUTs*                  |  200 |     0 |     70560 |  0.28 |
|   LUT as Logic             |  184 |     0 |     70560 |  0.26 |
|   LUT as Memory            |   16 |     0 |     28800 |  0.06 |
| CLB Registers              |  221 |     0 |    141120 |  0.16 |
|   Register as Flip Flop    |  220 |     0 |    141120 |  0.16 |
| Block RAM Tile             |  1.5 |     0 |       216 |  0.69 |
|   RAMB36/FIFO*             |    1 |     0 |       216 |  0.46 |
|   RAMB18                   |    1 |     0 |       432 |  0.23 |
| DSPs                       |    3 |     0 |       360 |  0.83 |
"""


@pytest.fixture
def vivado(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's folder, on the PATH; it keeps the script that it was given."""
    program = tmp_path / "bin" / "vivado"
    program.parent.mkdir()
    (tmp_path / "report").write_text(REPORT)
    program.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -version ]; then echo "Vivado v2020.1 (64-bit)"; exit; fi\n'
        f"cp run.tcl {tmp_path}; cp {tmp_path}/report utilization.txt; echo 6 > levels.txt\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return tmp_path


@pytest.fixture
def design(tmp_path: Path) -> Circuit:
    file = tmp_path / "unit.v"
    file.write_text("module unit; endmodule\n")
    return Circuit("unit", (file,), (("WA", 5), ("S", -2)))


def test_what_is_asked_and_what_is_read(vivado: Path, design: Circuit) -> None:
    result = Vivado("ultrascale-plus").synthesise(design)
    assert (result.tool, result.version) == ("vivado", "2020.1")
    assert result.counts == Counts(200, 200, 200, 16, 220, 3, 3, 0, 6)
    script = (vivado / "run.tcl").read_text()
    assert "read_verilog -sv {unit.v}" in script
    assert "-generic {WA=5 S=-2}" in script
    assert "-mode out_of_context" in script
    assert "xczu3eg" in script


def test_a_report_without_a_row_is_refused(vivado: Path, design: Circuit) -> None:
    (vivado / "report").write_text(REPORT.replace("DSPs", "DPUs"))
    with pytest.raises(CheckFailedError, match="no row for dsp"):
        Vivado("7series").synthesise(design)


def test_without_vivado_or_for_another_maker(monkeypatch: pytest.MonkeyPatch, design: Circuit) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissingError, match="PATH"):
        Vivado("7series").synthesise(design)
    with pytest.raises(InputError, match="ecp5"):
        Vivado("ecp5")
