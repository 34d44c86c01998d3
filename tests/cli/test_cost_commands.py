"""qhw cost at a rate, within a budget, in another flow; qhw calibrate with real syntheses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from qhw.cli import main
from qhw.cost.calibration import measured, model_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))

from qonnx_factory import Net

RNG = np.random.default_rng(7)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A convolution and a linear layer of 8 and 4 bits."""
    net = Net((4, 8, 8))
    x = net.quant("x", 8, 1.0, name="quant_in")
    weight = net.quant(RNG.integers(-7, 8, (8, 4, 3, 3)) * 0.25, 4, 0.25, narrow=1)
    y = net.node("Conv", x, weight, name="conv", pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    y = net.quant(net.node("Relu", y), 6, 2.0, signed=0, name="quant_conv")
    y = net.node("Flatten", y, axis=1)
    dense = net.quant(RNG.integers(-7, 8, (512, 4)) * 0.5, 4, 0.5)
    path = tmp_path / "small.onnx"
    onnx.save(net.model(net.quant(net.node("MatMul", y, dense, name="dense"), 12, 1.0)), path)
    return path


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return int(exit_info.value.code or 0), out, err


def cost(capfd: pytest.CaptureFixture[str], model: Path, *options: object) -> dict:
    code, out, err = run(capfd, "cost", model, "--board", "ultra96", *options, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_rate_gives_the_smallest_design_that_reaches_it(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fast, slow = cost(capfd, model), cost(capfd, model, "--fps", 5000)
    assert fast["latency"]["throughput_fps"] > slow["latency"]["throughput_fps"] >= 5000
    used = [max(found["utilisation"].values()) for found in (fast, slow)]
    assert used[1] < used[0]
    assert slow["latency"]["binding_layer"] in {layer["node"] for layer in slow["layers"]}
    assert slow["energy"]["source"].startswith("modelled")
    assert slow["energy"]["uj_per_image"] == fast["energy"]["uj_per_image"] > 0


def test_a_budget_is_kept(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for text, share in (("15%", 0.15), ("0.08", 0.08)):
        found = cost(capfd, model, "--flow", "rtl", "--budget", text)
        assert max(found["utilisation"].values()) <= share


def test_another_architecture_is_priced_too(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = cost(capfd, model, "--flow", "rtl")
    assert found["flow"] == "rtl"
    assert all(len(layer["fold"]) == 2 for layer in found["layers"])


def test_a_rate_is_kept_by_the_schedule_too(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By the closed forms the cheapest design of 300,000 images/s takes 640 cycles; by its schedule 1,072."""
    rates = 150000, 300000, 330000
    found = [cost(capfd, model, "--flow", "rtl", "--fps", rate) for rate in rates]
    for rate, each in zip(rates, found, strict=True):
        assert each["latency"]["throughput_fps"] >= rate
    used = [max(each["utilisation"].values()) for each in found]
    assert used == sorted(used)
    assert used[0] < used[-1]
    code, _, err = run(capfd, "cost", model, "--board", "ultra96", "--flow", "rtl", "--fps", 335000)
    assert code == 1
    assert "does not reach 335000 images/s" in " ".join(err.split())
    assert "606 cycles by its schedule" in " ".join(err.split())
    assert "'conv', takes 590" in " ".join(err.split())


def test_multipliers_are_a_choice(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dsp = {
        choice: cost(capfd, model, "--flow", "rtl", "--fps", 300000, "--multipliers", choice)["resources"][
            "dsp"
        ]
        for choice in ("lut", "dsp", "packed")
    }
    assert dsp["lut"] == 0 < dsp["packed"] < dsp["dsp"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--budget", "lots"), 2, "The budget 'lots' is not a share"),
        (("--budget", "170%"), 2, "a share of the board above 0 and up to 1, not 1.7"),
        (("--fps", "-1"), 2, "images per second above 0"),
        (("--fps", "1e9"), 1, "does not reach 1e+09 images/s"),
        (("--flow", "fin"), 2, "There is no flow 'fin'"),
        (("--multipliers", "dsps"), 2, "unknown choice of multipliers 'dsps'"),
        (("--budget", "0.1%"), 1, "does not fit ultra96"),
    ],
)
def test_what_cannot_be_is_explained(
    model: Path, capfd: pytest.CaptureFixture[str], options: tuple[str, ...], code: int, said: str
) -> None:
    found, out, err = run(capfd, "cost", model, "--board", "ultra96", *options)
    assert found == code
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""


def test_calibration_measures_and_fits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyosys")
    path = tmp_path / "set" / "measured.csv"
    options = ("--family", "ultrascale-plus", "--units", "adder_tree", "--out", path)
    code, out, err = run(capfd, "calibrate", *options, "--limit", 3, "--jobs", 2, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["measured"], found["rows"], found["refused"]) == (3, 3, {})
    # What was committed is what this machine measures, byte for byte.
    committed = {row.design: row for row in measured.read(measured.path_of("ultrascale-plus"))}
    for row in measured.read(path):
        assert committed[row.design] == row
    assert set(model_file.read(path.with_name("model.json")).units) == {"adder_tree"}


def test_an_unknown_family_is_explained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, "calibrate", "--family", "ultrascale", "--out", tmp_path / "m.csv")
    assert code == 2
    assert "did you mean ultrascale-plus" in err
    assert list(tmp_path.iterdir()) == []
