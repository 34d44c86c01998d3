"""The C++ tests of the header library, built against the ap_types that hls4ml ships."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from qhw.resources import resource_dir

hls4ml = pytest.importorskip("hls4ml")


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_headers(tmp_path: Path) -> None:
    templates = Path(hls4ml.__file__).parent / "templates" / "vivado"
    program = tmp_path / "headers_test"
    includes = [resource_dir("hls") / "include", templates / "ap_types", templates]
    command = ["g++", "-std=c++17", "-O0", "-w", "-fsanitize=undefined", "-fno-sanitize-recover=bounds"]
    source = Path(__file__).with_name("headers_test.cpp")
    subprocess.run([*command, *(f"-I{path}" for path in includes), source, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("0 failures"), done.stdout + done.stderr
    assert done.returncode == 0
