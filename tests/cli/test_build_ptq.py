"""``qhw build --quantise ptq``: no code differs in any kind of format; its stages are kept and run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qhw
from qhw.cli import main
from qhw.data import load_dataset
from qhw.errors import InputError
from qhw.models import build_model
from qhw.pipeline.options import BuildOptions
from qhw.train import TrainConfig, train_float

Build = Callable[..., tuple[int, str, str]]
QUICK = ("--quantise", "ptq", "--float-epochs", "5", "--board", "ultra96")


@pytest.fixture
def build(capfd: pytest.CaptureFixture[str]) -> Build:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_info:
            main(["build", *QUICK, *map(str, arguments)])
        return int(exit_info.value.code or 0), *capfd.readouterr()

    return run


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in document["stages"]}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("format", "methods"),
    [
        ("fixed<4>", "bn-fold,equalize,adaround,bias-correction"),
        ("e3m2", "smoothquant,preshift,gpfq,bn-reestimate"),
        ("khot<6,2>", "equalize,gptq,bias-correction"),
        ("e2m1", "flexround"),
    ],
)
def test_no_code_differs(build: Build, tmp_path: Path, format: str, methods: str) -> None:
    pytest.importorskip("hls4ml")
    out = tmp_path / "out"
    code, printed, errors = build("--format", format, "--methods", methods, "--out", out, "--json")
    assert code == 0, errors
    document = json.loads(printed)
    rows = {(row["backend"], row["reference"]): row for row in document["verification"]}
    assert not any(row["mismatches"] for row in rows.values())
    assert rows["hls4ml C-simulation", "exact graph"]["vectors"] == 364
    assert (
        rows["exact graph", "torch"]["mismatches"] == 0
        or "range" in rows["exact graph", "torch"]["not_compared"]
    )
    assert list(statuses(document))[:3] == ["train", "ptq", "export"]
    assert document["accuracy"]["quantised"] > 0.9
    assert document["accuracy"]["float"] > 0.95


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_other_formats_and_methods_leave_the_float_network_as_it_is(build: Build, tmp_path: Path) -> None:
    pytest.importorskip("hls4ml")
    out = tmp_path / "out"
    given = ("--format", "fixed<5>", "--out", out, "--json", "--vectors", 4)
    first = json.loads(build(*given, "--methods", "none")[1])
    weights = (out / "training" / "float.pt").read_bytes()
    again = json.loads(build(*given, "--methods", "none")[1])
    assert set(statuses(again).values()) == {"skipped"}
    other = json.loads(build(*given, "--methods", "gptq")[1])
    assert (statuses(other)["train"], statuses(other)["ptq"]) == ("skipped", "done")
    assert (out / "training" / "float.pt").read_bytes() == weights
    assert first["model"]["sha256"] == again["model"]["sha256"] != other["model"]["sha256"]
    assert other["inputs"]["options"]["methods"] == "gptq"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_the_verb_gives_goes_into_a_build(tmp_path: Path) -> None:
    pytest.importorskip("hls4ml")
    data = load_dataset("digits")
    recipe = TrainConfig(float_epochs=5, batch_size=32, learning_rate=4e-3, threads=1)
    model, figure = train_float(build_model("digits-cnn", data), data, recipe, qhw.QuantConfig())
    quantised = qhw.ptq(model, data, "fixed<5>", methods=("bn-fold", "equalize", "gpfq"))
    result = qhw.build(quantised, board="ultra96", data=data, out=tmp_path / "out", vectors=50)
    rows = result.manifest["verification"]
    assert not any(row["mismatches"] for row in rows)
    assert not any(node.op == "Affine" and "norm" in node.name for node in result.graph.nodes)  # folded
    assert result.manifest["accuracy"]["quantised"] > figure - 0.05


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"quantise": "magic"}, r"quantise is 'magic'[\s\S]*training, ptq"),
        ({"methods": "gptq"}, r"methods would change nothing[\s\S]*--quantise ptq"),
        ({"samples": 9, "calibration": "max"}, "calibration, samples would change nothing"),
        ({"quantise": "ptq", "quantised_epochs": 3}, r"quantised_epochs would change nothing[\s\S]*training"),
        ({"quantise": "ptq", "methods": "gptk"}, "'gptk' is not a method"),
        ({"quantise": "ptq", "samples": 0}, "samples is 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        BuildOptions(**settings)


def test_a_file_is_quantised_already() -> None:
    from qhw.pipeline.build_stages import check_idle
    from qhw.pipeline.source import Source

    source = Source("qonnx", "m.onnx", "m", "")
    with pytest.raises(InputError, match="quantise, methods would change nothing"):
        check_idle(source, BuildOptions(quantise="ptq", methods="gptq"))
    check_idle(source, BuildOptions())
