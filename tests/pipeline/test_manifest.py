"""build.json against its schema."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qhw.errors import InputError
from qhw.pipeline import manifest

HASH = "0" * 64

EXAMPLE: dict[str, Any] = {
    "schema_version": 3,
    "inputs": {
        "model": {"given": "digits-cnn", "sha256": HASH},
        "data": {"given": "digits", "sha256": HASH, "source": "scikit-learn"},
        "board": {"given": "ultra96", "sha256": HASH},
        "options": {"seed": 0},
    },
    "tools": {"qhw": "0.1.0", "python": "3.11.7"},
    "board": {
        "name": "ultra96",
        "title": "Ultra96",
        "kind": "fpga",
        "part": "xczu3eg-sbva484-1-e",
        "clock_mhz": 200.0,
    },
    "flow": {
        "name": "hls4ml",
        "options": {"io_type": "io_stream"},
        "wanted": {"fps": None, "budget": 0.8, "multipliers": "auto"},
        "project": "project",
        "project_sha256": HASH,
        "folding": {"conv1": {"reuse_factor": 9}},
    },
    "model": {
        "name": "digits-cnn",
        "file": "model.onnx",
        "sha256": HASH,
        "graph": "graph",
        "graph_sha256": HASH,
        "canonical": None,
        "nodes": 12,
        "weights": 3000,
        "macs": 90000,
    },
    "stages": [{"name": "train", "status": "done", "seconds": 12.5}],
    "accuracy": {
        "task": "classification",
        "metric": "top-1",
        "higher_is_better": True,
        "share": True,
        "float": 0.98,
        "quantised": 0.97,
        "samples": 364,
        "split": "test",
        "warning": None,
    },
    "verification": [
        {
            "backend": "hls4ml C-simulation",
            "reference": "exact graph",
            "vectors": 364,
            "codes_compared": 3640,
            "mismatches": 0,
        }
    ],
    "resources": {
        "estimated": {"lut": 100, "ff": 100, "dsp": 0, "bram18": 2},
        "synthesised": None,
        "board": {"lut": 70560, "ff": 141120, "dsp": 360, "bram18": 432, "uram": 0},
        "utilisation": {"lut": 0.0014},
        "cost_model": "uncalibrated",
    },
    "latency": {"cycles": 900, "initiation_interval": 70, "clock_mhz": 200.0, "throughput_fps": 2857142.9},
}


def test_the_schema_itself_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(manifest.schema())


def test_the_keys_that_readers_rely_on() -> None:
    keys = {
        "accuracy": "task metric higher_is_better share float quantised samples split warning",
        "verification": "backend reference vectors codes_compared mismatches",
        "resources": "estimated synthesised board utilisation",
        "latency": "cycles initiation_interval clock_mhz throughput_fps",
        "stages": "name status seconds",
    }
    document = manifest.schema()
    assert set(document["required"]) == {*keys, "schema_version", "inputs", "tools", "board", "flow", "model"}
    for name, words in keys.items():
        kind = document["properties"][name]
        kind = kind.get("items") or next((x for x in kind.get("anyOf", []) if "required" in x), kind)
        assert set(words.split()) <= set(kind["required"]), name


def test_written_and_read_back(tmp_path: Path) -> None:
    manifest.write(EXAMPLE, tmp_path)
    assert manifest.read(tmp_path) == EXAMPLE
    assert [path.name for path in tmp_path.iterdir()] == ["build.json"]


@pytest.mark.parametrize("key", list(EXAMPLE))
def test_every_key_is_required(key: str, tmp_path: Path) -> None:
    broken = {name: value for name, value in EXAMPLE.items() if name != key}
    with pytest.raises(InputError, match=key):
        manifest.write(broken, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), 1),
        (("stages", 0, "status"), "maybe"),
        (("accuracy", "task"), "guessing"),
        (("verification", 0, "mismatches"), -1),
        (("model", "sha256"), "abc"),
        (("latency", "initiation_interval"), 0),
        (("resources", "estimated", "lut"), 1.5),
        (("board", "colour"), "green"),
    ],
)
def test_wrong_values_are_named_by_their_path(path: tuple[Any, ...], value: Any) -> None:
    broken = copy.deepcopy(EXAMPLE)
    place: Any = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError, match=str(path[-1] if path[-1] in place else path[0])):
        manifest.validate(broken)


def test_a_folder_without_or_with_a_broken_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="qhw build"):
        manifest.read(tmp_path)
    (tmp_path / "build.json").write_text(json.dumps(EXAMPLE)[:-5])
    with pytest.raises(InputError, match="not JSON"):
        manifest.read(tmp_path)


def test_a_changed_figure_is_found(tmp_path: Path) -> None:
    path = manifest.write(EXAMPLE, tmp_path)
    path.write_text(path.read_text().replace('"quantised": 0.97', '"quantised": 0.99'))
    with pytest.raises(InputError, match=r"build.json was changed .*digest"):
        manifest.read(tmp_path)


def test_tool_versions_name_what_is_installed() -> None:
    versions = manifest.tool_versions()
    assert {"qhw", "python", "numpy", "onnx", "qonnx"} <= set(versions)
