"""``qhw build`` in minifloats, k-hot and mixed formats: every code, faults by their layer, no multiplier."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from multiplications import REFUSAL, forbid_multiplications
from weight_files import write_weights

import qhw
from qhw.cli import main
from qhw.data import Dataset, load_dataset
from qhw.data.fashion_mnist import DEBIAN_FOLDER
from qhw.flows.hls4ml.operands import weight_policy
from qhw.flows.hls4ml.project import read_description
from qhw.flows.hls4ml.simulation import COMPILE_FLAGS
from qhw.formats import parse_format
from qhw.graph.serialize import load_graph
from qhw.quant_config import formats_named
from qhw.train import TrainConfig

pytest.importorskip("hls4ml")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QUICK = ("--float-epochs", "4", "--quantised-epochs", "2")
MIXED = ("--format", "e3m2", "--layer", "conv1:fixed<8>", "--layer", "classify:fixed<8>")
DIGITS = {
    "e4m3": ("--format", "e4m3"),
    "e3m2": ("--format", "e3m2"),
    "e2m1": ("--format", "e2m1"),
    "khot<8,1>": ("--format", "khot<8,1>"),
    "khot<8,2>": ("--format", "khot<8,2>"),
    "mixed": MIXED,
}
MULTIPLIER_FREE = ("khot<8,1>", "khot<8,2>")
WEIGHT_LAYERS = {"conv1", "conv2", "classify"}
TEST_SPLIT = 364

Document = dict[str, Any]
Build = Callable[..., tuple[int, str, str]]


@pytest.fixture
def build(capfd: pytest.CaptureFixture[str]) -> Build:
    """Runs ``qhw build --board ultra96`` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_info:
            main(["build", "--board", "ultra96", *map(str, arguments)])
        return int(exit_info.value.code or 0), *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the builds of all tests are; a build that is there already runs no stage again."""
    return tmp_path_factory.mktemp("formats")


def built(build: Build, folders: Path, name: str) -> tuple[Path, Document]:
    out = folders / "".join(letter for letter in name if letter.isalnum())
    code, printed, errors = build(*DIGITS[name], *QUICK, "--out", out, "--json")
    assert code == 0, errors
    return out, json.loads(printed)


def compared(document: Document) -> Document:
    """The row of the C-simulation; no row has a mismatch."""
    rows = {(row["backend"], row["reference"]): row for row in document["verification"]}
    assert not any(row["mismatches"] for row in rows.values())
    by_torch = rows["exact graph", "torch"]
    assert by_torch["mismatches"] == 0 or by_torch["not_compared"].startswith("range: ")
    simulated: Document = rows["hls4ml C-simulation", "exact graph"]
    assert simulated["mismatches"] == 0
    return simulated


@pytest.mark.parametrize("name", DIGITS)
def test_the_whole_test_split_of_the_digits(build: Build, folders: Path, name: str) -> None:
    folder, document = built(build, folders, name)
    simulated = compared(document)
    assert simulated["vectors"] == document["accuracy"]["samples"] == TEST_SPLIT
    assert simulated["layers"] >= 6
    assert simulated["distinct_codes"] > (100 if name == "mixed" else 500)  # its result has 8 bits
    assert document["accuracy"]["quantised"] > 0.6
    project = (folder / "project" / "firmware" / "parameters.h").read_text()
    assert f"typedef {weight_policy(parse_format(DIGITS[name][1]))} w_format;" in project
    assert ("typedef qhw::integer<8, true> w_format;" in project) == (name == "mixed")


def test_sums_of_more_than_64_bits(build: Build, tmp_path: Path) -> None:
    """float64 cannot vouch for them, and says so; the C-simulation still has every code."""
    code, printed, errors = build("mlp", "--format", "e5m2", *QUICK, "--out", tmp_path / "out", "--json")
    assert code == 0, errors
    document = json.loads(printed)
    graph = load_graph(tmp_path / "out" / "graph")
    assert max(kind.format.width for kind in graph.tensors.values()) > 64
    simulated = compared(document)
    assert simulated["vectors"] == TEST_SPLIT
    assert simulated["distinct_codes"] > 500
    assert any(row.get("not_compared", "").startswith("range: ") for row in document["verification"])


@pytest.mark.parametrize("name", MULTIPLIER_FREE)
def test_k_hot_takes_no_multiplier(build: Build, folders: Path, name: str) -> None:
    folder, document = built(build, folders, name)
    layers = {layer["node"]: layer["dsp"] for layer in json.loads((folder / "cost/layers.json").read_text())}
    assert layers.keys() >= WEIGHT_LAYERS
    assert {layers[layer] for layer in WEIGHT_LAYERS} == {0}
    assert document["resources"]["estimated"]["dsp"] == 0


def firmware_without_multiplications(folder: Path, copy: Path) -> subprocess.CompletedProcess[str]:
    """The generated design, compiled with ap_types that refuse to multiply."""
    shutil.copytree(folder / "project", copy)
    forbid_multiplications(copy / "firmware" / "ap_types")
    source = f"firmware/{read_description(copy).name}.cpp"
    command = ["g++", *COMPILE_FLAGS, "-fsyntax-only", source]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)


def test_the_generated_k_hot_design_multiplies_nothing(build: Build, folders: Path, tmp_path: Path) -> None:
    folder, _ = built(build, folders, "khot<8,2>")
    done = firmware_without_multiplications(folder, tmp_path / "khot")
    assert done.returncode == 0, done.stderr[:2000]
    folder, _ = built(build, folders, "e3m2")
    done = firmware_without_multiplications(folder, tmp_path / "e3m2")
    assert done.returncode != 0
    assert REFUSAL in done.stderr


@pytest.mark.parametrize("name", ["e4m3", "khot<8,2>", "mixed"])
def test_a_flipped_bit_of_a_weights_code_names_its_layer(build: Build, folders: Path, name: str) -> None:
    folder, _ = built(build, folders, name)
    weights = weights_of(folder / "project", "conv2")
    before = weights.read_text()
    codes = before.split(", ")
    codes[7] = str(int(float(codes[7])) ^ 1)
    write_weights(weights, ", ".join(codes))
    arguments = (*DIGITS[name], *QUICK, "--out", folder, "--json")
    try:
        code, _, errors = build(*arguments)
        assert code == 1
        assert "first in layer 'conv2'" in errors
        found = json.loads((folder / "build.json").read_text())
        assert found["verification"][-1]["first_difference"].startswith("layer 'conv2' (Conv")
        assert found["verification"][-1]["mismatches"] > 0
    finally:
        write_weights(weights, before)
    assert build(*arguments)[0] == 0


def weights_of(project: Path, node: str) -> Path:
    """The file of a node's weights: the first array in its layer's call."""
    description = read_description(project)
    layer = next(name for name, carried_out in description.nodes.items() if carried_out == node)
    lines = (project / "firmware" / f"{description.name}.cpp").read_text().splitlines()
    call = next(line for line in lines if line.endswith(f"// {layer}"))
    arrays = [word for word in call.split("(")[-1].split(")")[0].split(", ") if word.startswith("weight")]
    return project / "firmware" / "weights" / f"{arrays[0]}.txt"


@pytest.fixture(scope="module")
def fashion() -> Dataset:
    """A part of Fashion-MNIST: enough to train a real network, and forty test images."""
    if not DEBIAN_FOLDER.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    data = load_dataset("fashion-mnist")
    return dataclasses.replace(
        data,
        train_x=data.train_x[:1500],
        train_y=data.train_y[:1500],
        test_x=data.test_x[:40],
        test_y=data.test_y[:40],
    )


@pytest.mark.parametrize("name", ["e4m3", "khot<8,2>", "mixed"])
def test_forty_images_through_resnet8(fashion: Dataset, tmp_path: Path, name: str) -> None:
    """A few million codes; benchmarks/results/format_builds.md has a hundred images."""
    quant = formats_named("e3m2" if name == "mixed" else name)
    if name == "mixed":
        quant["overrides"] = {layer: formats_named("fixed<8>") for layer in ("conv", "classify")}
    result = qhw.build(
        "resnet8",
        board="zcu104",
        data=fashion,
        quant=quant,
        training=TrainConfig(float_epochs=1, quantised_epochs=1, batch_size=64, learning_rate=4e-3),
        vectors=40,
        out=tmp_path / "out",
    )
    simulated = compared(result.manifest)
    assert simulated["vectors"] == 40
    assert simulated["layers"] >= 15
    assert simulated["codes_compared"] > 4_000_000
    assert simulated["distinct_codes"] > 30
    if name == "khot<8,2>":
        assert result.manifest["resources"]["estimated"]["dsp"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--activations", "khot<10,2>"),
            "activations: the hls4ml flow cannot carry the format khot<10,2> as the",
        ),
        (("--layer", "conv2:activations=khot<9,2>"), "override 'conv2', activations: the hls4ml flow cannot"),
    ],
)
def test_what_the_flow_cannot_round_to_is_refused_before_training(
    build: Build, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, errors = build(*arguments, "--out", tmp_path / "out")
    assert code == 2
    assert words in errors
    assert "use --flow rtl" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--format", "e4m3fn<SPECIAL>"),
            "e4m3fn<SPECIAL> cannot be trained: it overflows to infinity or NaN",
        ),
        (("--format", "e3m2", "--layer", "conv9:e3m2"), "override 'conv9' matches no layer"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_message(
    build: Build, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, errors = build("mlp", *arguments, "--float-epochs", "1", "--out", tmp_path / "out")
    assert code == 2
    assert words in errors
    assert "Traceback" not in errors
