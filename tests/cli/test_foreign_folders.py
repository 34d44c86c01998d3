"""Build folders of somebody else, damaged or edited by hand: read, refused, healed or verified."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from weight_files import write_weights

import qhw
from qhw.errors import CheckFailedError, InputError
from qhw.pipeline import manifest
from qhw.pipeline.run import BuildResult
from qhw.pipeline.stages import MARKER, tree_digests

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))

from qonnx_factory import Net

pytest.importorskip("hls4ml")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def model(folder: Path) -> Path:
    """One layer in E3M2."""
    net, random = Net((6,)), np.random.default_rng(0)
    x = net.float_quant("x", 3, 2, 0.25, name="first")
    dense = net.float_quant(random.normal(0, 1, (6, 4)), 3, 2, 0.25)
    x = net.node("MatMul", x, dense, name="fc")
    path = folder / "model.onnx"
    onnx.save(net.model(net.float_quant(x, 3, 2, 2.0, name="last")), path)
    return path


def build(folder: Path) -> BuildResult:
    return qhw.build(folder.parent / "model.onnx", board="ultra96", out=folder, vectors=8)


def statuses(result: BuildResult) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in result.manifest["stages"]}


def artefacts(folder: Path) -> dict[str, str]:
    skipped = (f"{MARKER}/", "build.json", "report.html", "project/csim/")
    return {name: digest for name, digest in tree_digests(folder).items() if not name.startswith(skipped)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    model(folder)
    return build(folder / "out").folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage, beside its model."""
    shutil.copy(built.parent / "model.onnx", tmp_path)
    return Path(shutil.copytree(built, tmp_path / "out"))


@pytest.fixture
def foreign(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, for another user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    return folder


def plant(folder: Path) -> Path:
    """A program that tells when it is executed, in place of the C-simulation; where it tells so."""
    (program,) = (p for p in (folder / "project" / "csim").iterdir() if os.access(p, os.X_OK) and p.is_file())
    program.write_text(f"#!/bin/sh\ntouch {folder.parent}/executed\n")
    return folder.parent / "executed"


def test_nothing_in_a_foreign_folder_is_executed(foreign: Path) -> None:
    told = plant(foreign)
    for command in (
        lambda: qhw.diff(foreign, f"{foreign}@exact"),
        lambda: qhw.simulate(foreign, backend="csim"),
    ):
        with pytest.raises(InputError, match="not built here by you: nothing in it is executed"):
            command()
    assert not told.exists()


def test_a_foreign_folder_is_read_as_data(foreign: Path) -> None:
    assert qhw.diff(f"{foreign}@exact", f"{foreign}@interpreter").equal
    assert qhw.cost(foreign).tables()


def test_a_foreign_folder_is_built_anew(foreign: Path) -> None:
    told = plant(foreign)
    before = artefacts(foreign)
    (foreign / "project" / "firmware" / "defines.h").write_text("#error planted\n")
    assert set(statuses(build(foreign)).values()) == {"done"}
    assert artefacts(foreign) == before
    assert qhw.diff(foreign, f"{foreign}@exact").equal
    assert not told.exists()


def test_a_planted_program_in_ones_own_folder_is_compiled_anew(folder: Path) -> None:
    told = plant(folder)
    assert qhw.diff(folder, f"{folder}@exact").equal
    assert not told.exists()


def test_an_edited_figure_of_a_record_does_not_come_through(folder: Path) -> None:
    path = folder / MARKER / "stages" / "cost.json"
    before = manifest.read(folder)
    path.write_text(path.read_text().replace('"lut": ', '"lut": 1'))
    result = build(folder)
    assert statuses(result)["cost"] == "done"
    assert result.manifest["resources"] == before["resources"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("graph/constants.npz", lambda folder: qhw.simulate(folder)),
        ("graph/graph.json", lambda folder: qhw.cost(folder)),
        ("vectors/inputs.npz", lambda folder: qhw.diff(f"{folder}@exact", f"{folder}@interpreter")),
        ("model.onnx", lambda folder: qhw.diff(f"{folder}@exact", f"{folder}@qonnx")),
        ("project/firmware/parameters.h", lambda folder: qhw.diff(folder, f"{folder}@exact")),
        ("project/qhw_project.json", lambda folder: qhw.diff(folder, f"{folder}@exact")),
        ("build.json", lambda folder: qhw.cost(folder)),
    ],
)
def test_one_flipped_bit_is_named_by_whoever_reads_the_file(
    folder: Path, name: str, command: Callable[[Path], Any]
) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=path.name) as failure:
        command(folder)
    assert "qhw build" in str(failure.value)


def test_a_changed_header_of_weights_is_not_called_verified(folder: Path) -> None:
    """Synthesis would read it; changed in both files alike it is verified, and found to be another model."""
    header = max(
        (folder / "project" / "firmware" / "weights").glob("*.h"), key=lambda path: path.stat().st_size
    )
    text = header.with_suffix(".txt")
    values = text.read_text().split(", ")
    largest = max(range(len(values)), key=lambda i: float(values[i]))
    changed = ", ".join([*values[:largest], "0", *values[largest + 1 :]])
    before = header.read_text()
    header.write_text(before.replace(text.read_text(), changed))
    assert header.read_text() != before
    with pytest.raises(CheckFailedError, match=rf"{header.name} and {text.name} differ in element {largest}"):
        build(folder)
    stages = {stage["name"]: stage["status"] for stage in manifest.read(folder)["stages"]}
    assert (stages["project"], stages["verify"]) == ("edited", "failed")
    write_weights(text, changed)
    with pytest.raises(CheckFailedError, match="differs from exact graph"):
        build(folder)
    header.unlink()
    assert statuses(build(folder))["project"] == "done"


def test_an_edited_source_is_compiled_and_verified(folder: Path) -> None:
    """A comment changes nothing; an error in a header that only the compiler reads does not go unseen."""
    source = folder / "project" / "firmware" / "defines.h"
    source.write_text(f"{source.read_text()}\n// edited\n")
    found = statuses(build(folder))
    assert (found["project"], found["compile"], found["verify"]) == ("edited", "done", "done")
    assert qhw.diff(folder, f"{folder}@exact").equal
    types = folder / "project" / "firmware" / "ap_types" / "ap_int.h"
    types.write_text("#error edited\n")
    with pytest.raises(CheckFailedError, match="does not compile"):
        build(folder)


def test_the_command_line_says_so_in_one_message(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    (folder / MARKER / "build.log").unlink()
    (folder / MARKER / "build.log").symlink_to(victim)
    command = [sys.executable, "-m", "qhw", "build", str(tmp_path / "model.onnx")]
    command += ["--board", "ultra96", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "build.log is a symbolic link" in done.stderr
    assert "Traceback" not in done.stderr
    assert victim.read_text() == "years of work"


def test_the_digest_of_build_json_is_as_its_schema_says(folder: Path) -> None:
    document = json.loads((folder / "build.json").read_text())
    assert document.pop("digest") == qhw.pipeline.stages.json_digest(document)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted by root alone")
def test_a_full_disk_is_one_message_and_the_next_build_is_whole(built: Path, tmp_path: Path) -> None:
    """With room for less and less of a build, down to none of it."""
    (tmp_path / "small").mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(tmp_path / "small")]
    if subprocess.run(options, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    model_file, out = tmp_path / "small" / "model.onnx", tmp_path / "small" / "out"
    try:
        shutil.copy(built.parent / "model.onnx", model_file)
        ballast = tmp_path / "small" / "ballast"
        for left in (0, 20_000, 200_000, 1_500_000):
            ballast.write_bytes(b"")
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
            os.truncate(ballast, max(ballast.stat().st_size - left, 0))
            with pytest.raises(InputError, match=r"full|No space left"):
                build(out)
        ballast.unlink()
        build(out)
        assert artefacts(out) == artefacts(built)
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)
