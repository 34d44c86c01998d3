"""``qhw build`` with what ``qhw cost`` takes: the design that was costed is the one that is built."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))

from qonnx_factory import Net


def qhw(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qhw", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=800)


@pytest.mark.slow
def test_the_design_that_was_costed_is_built(tmp_path: Path) -> None:
    """A file whose image goes straight into a convolution: annotated, smallest at a rate, from LUTs alone."""
    net, random = Net((1, 8, 8)), np.random.default_rng(5)
    weight = net.quant(random.integers(-7, 8, (6, 1, 3, 3)) * 0.25, 4, 0.25)
    y = net.quant(net.node("Relu", net.node("Conv", "x", weight, kernel_shape=[3, 3])), 6, 1.0, signed=0)
    dense = net.quant(random.integers(-7, 8, (216, 10)) * 0.5, 4, 0.5)
    y = net.quant(net.node("MatMul", net.node("Flatten", y, axis=1), dense), 12, 1.0)
    onnx.save(net.model(y), tmp_path / "plain.onnx")
    out, want = tmp_path / "out", ("--fps", "20000", "--budget", "60%", "--multipliers", "lut")
    given = ("build", tmp_path / "plain.onnx", "--board", "ultra96", "--data", "digits", "--out", out)
    document = json.loads(qhw(*given, *want, "--json").stdout)
    assert document["flow"]["wanted"] == {"fps": 20000, "budget": 0.6, "multipliers": "lut"}
    assert document["model"]["annotated"]["type"] == "uint8"
    assert document["latency"]["throughput_fps"] >= 20000
    assert document["verification"][-1]["mismatches"] == 0
    assert "config_op mul -impl fabric" in (out / "project" / "build_prj.tcl").read_text()
    costed = json.loads(qhw("cost", out, *want, "--json").stdout)
    assert costed["resources"] == document["resources"]["estimated"]
    assert {layer["node"]: layer["fold"] for layer in costed["layers"]}.items() >= (
        document["flow"]["folding"].items()
    )
    fast = json.loads(qhw("cost", out, "--json").stdout)
    assert fast["resources"]["lut"] > costed["resources"]["lut"]
    simulated = json.loads(qhw("simulate", out, "--json").stdout)
    assert simulated["samples"] == 364
    assert simulated["accuracy"] == document["accuracy"]["quantised"]
    again = json.loads(qhw(*given, "--fps", "30000", *want[2:], "--json").stdout)
    status = {stage["name"]: stage["status"] for stage in again["stages"]}
    assert (status["vectors"], status["cost"], status["project"]) == ("skipped", "done", "done")


@pytest.mark.slow
def test_the_cost_of_a_folder_is_that_of_what_was_built(tmp_path: Path) -> None:
    """Its io_type and clock are taken over; of another io_type the cost is another."""
    net, random = Net((1, 8, 8)), np.random.default_rng(5)
    weight = net.quant(random.integers(-7, 8, (4, 1, 3, 3)) * 0.25, 4, 0.25)
    y = net.quant(net.node("Conv", net.quant("x", 8, 1.0), weight, kernel_shape=[3, 3]), 6, 1.0)
    onnx.save(net.model(y), tmp_path / "plain.onnx")
    out, given = tmp_path / "out", ("--io-type", "io_parallel", "--clock-mhz", "150")
    built = json.loads(
        qhw("build", tmp_path / "plain.onnx", "-b", "ultra96", *given, "-o", out, "--json").stdout
    )
    costed, streamed = (
        json.loads(qhw("cost", out, *more, "--json").stdout) for more in ((), ("--io-type", "io_stream"))
    )
    assert costed["resources"] == built["resources"]["estimated"]
    assert costed["latency"]["throughput_fps"] == built["latency"]["throughput_fps"]
    assert streamed["resources"] != costed["resources"]
