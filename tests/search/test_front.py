"""front.json: written by its schema, read through the door, and turned into the options of a build."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from qhw.errors import InputError
from qhw.pipeline.options import designed
from qhw.search import front as fronts

FRONT: dict[str, Any] = {
    "schema_version": 1,
    "qhw": "0.1.0",
    "model": "digits-cnn",
    "model_digest": "0" * 64,
    "board": "ultra96",
    "part": "xczu3eg",
    "flow": "hls4ml",
    "clock_mhz": 200.0,
    "fps": 1000.0,
    "fps_from": "as asked for",
    "budget": 0.8,
    "against": "lut",
    "metric": {"name": "top-1", "higher_is_better": True, "is_share": True},
    "evaluator": "calibrated",
    "strategy": "uniform",
    "methods": "",
    "seed": 0,
    "space": {},
    "space_size": 9.0,
    "evaluations": 9,
    "failed": 0,
    "seconds": 1.0,
    "held_out": {"samples": 100, "trained_on": False},
    "float": {"held_out": 0.99, "test": 0.98},
    "cost_model": "calibrated",
    "lut_error": None,
    "build": {
        "board": "ultra96",
        "flow": "hls4ml",
        "data": "digits",
        "fps": 1000.0,
        "flow_options": {"io_type": "io_stream"},
    },
    "points": [],
}
POINT: dict[str, Any] = {
    "number": 1,
    "formats": {"conv1.weights": "e2m1"},
    "cost": 100.0,
    "resources": {"lut": 100},
    "share": 0.1,
    "binding": "conv1",
    "interval": 10,
    "latency_cycles": 20,
    "throughput_fps": 2e7,
    "energy_uj": 0.1,
    "memory_bits": 8,
    "folding": {"conv1": {"reuse_factor": 3}},
    "figure": 0.9,
    "low": 0.8,
    "high": 0.95,
    "test": 0.9,
    "uniform": True,
    "model": "points/a.onnx",
    "sha256": "",
    "command": "qhw build --design front.json#1",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "a.onnx").write_bytes(b"a model")
    point = POINT | {"sha256": hashlib.sha256(b"a model").hexdigest()}
    fronts.write(FRONT | {"points": [point]}, tmp_path)
    return tmp_path


def test_a_point_gives_the_options_of_its_build(folder: Path) -> None:
    options = designed(f"{folder}/front.json#1", {"out": Path("there"), "vectors": None})
    assert options.model == str(folder / "points" / "a.onnx")
    assert (options.board, options.flow, options.data, options.fps) == ("ultra96", "hls4ml", "digits", 1000.0)
    assert options.flow_options == {"io_type": "io_stream"}
    assert options.out == Path("there")
    assert designed(f"{folder}#1", {}).model == options.model


@pytest.mark.parametrize(
    ("design", "says"),
    [
        ("front.json", r"not a front with a number[\s\S]*FRONT.json#NUMBER"),
        ("front.json#one", "not a front with a number"),
        ("front.json#2", r"has no point 2[\s\S]*1 to 1"),
        ("nothing.json#1", "nothing.json"),
    ],
)
def test_no_such_point(design: str, says: str, folder: Path) -> None:
    with pytest.raises(InputError, match=says):
        designed(f"{folder}/{design}", {})


def test_another_format_beside_a_design_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"is a whole design: model, weights cannot be given beside it"):
        designed(f"{folder}/front.json#1", {"weights": "fixed<4>", "model": "resnet8", "out": "x"})


def test_a_model_that_was_changed_is_refused(folder: Path) -> None:
    (folder / "points" / "a.onnx").write_bytes(b"another")
    with pytest.raises(InputError, match="is not what qhw search wrote for point 1"):
        designed(f"{folder}/front.json#1", {})


@pytest.mark.parametrize("model", ["../a.onnx", "/etc/passwd", "points/../../a.onnx"])
def test_a_model_outside_of_the_folder_is_refused(model: str, folder: Path) -> None:
    document = json.loads((folder / "front.json").read_text())
    document["points"][0]["model"] = model
    (folder / "front.json").write_text(json.dumps(document))
    with pytest.raises(InputError):
        designed(f"{folder}/front.json#1", {})


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("points", 0, "cost"), "much", r"points\[0\].cost"),
        (("schema_version",), 2, "schema_version"),
        (("board",), None, "board"),
        (("more",), 1, "more"),
    ],
)
def test_a_wrong_field_is_named(path: tuple[Any, ...], value: Any, says: str, folder: Path) -> None:
    document = copy.deepcopy(json.loads((folder / "front.json").read_text()))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "front.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=says):
        designed(f"{folder}/front.json#1", {})


def test_options_of_a_front_are_those_of_a_build(folder: Path) -> None:
    document = json.loads((folder / "front.json").read_text())
    document["build"] |= {"shell": "rm -rf"}
    (folder / "front.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="shell"):
        designed(f"{folder}/front.json#1", {})
