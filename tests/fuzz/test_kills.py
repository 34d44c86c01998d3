"""A few rounds of the campaign that kills builds and damages their folders."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hls4ml")
pytest.importorskip("brevitas")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed"),
]


def test_killed_and_damaged_builds_end_as_undisturbed_ones() -> None:
    """In a process of its own: the rounds are forked from one that has no other threads."""
    script = Path(__file__).with_name("kills.py")
    command = [sys.executable, str(script), "--count", "3", "--seed", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert counts["byte flipped"] >= 5
    assert counts["whole after one run"] + counts.get("named, whole after two runs", 0) == 6
