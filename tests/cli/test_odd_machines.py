"""Machines that lack what most have: a home, an encoding, an open stdout, names that are text.

Each case is the real command line in a child process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from qonnx_factory import Net

QHW = [sys.executable, "-m", "qhw"]
ROOT = Path(__file__).parents[2]
SIMULATE = ("simulate", "model.onnx", "--samples", "2", "--backend", "interpreter", "--json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model and an array for it."""
    place = tmp_path_factory.mktemp("odd")
    net = Net((4,))
    net.annotations["x"] = "UINT8"
    weight = net.quant(np.eye(4) * 0.5, 4, 0.5)
    model = net.model(net.quant(net.node("MatMul", "x", weight, name="größe"), 8, 1.0))
    onnx.save(model, place / "model.onnx")
    onnx.save(model, os.fsencode(place) + b"/m\xff\n.onnx")
    (place / "file").write_text("")
    return place


def child(
    folder: Path,
    arguments: Sequence[str | bytes],
    environment: Mapping[str, str | None] = {},
    **options: object,
) -> subprocess.CompletedProcess[str]:
    """The command line in a folder; None takes a variable out of the environment."""
    changed = {"PYTHONPATH": str(ROOT)} | dict(environment)
    whole = {k: v for k, v in (os.environ | changed).items() if v is not None}
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*QHW, *arguments], cwd=folder, env=whole, text=True, errors="replace", timeout=120, **given
    )


HOMES: dict[str, Mapping[str, str | None]] = {
    "none": {"HOME": None},
    "not there": {"HOME": "/dev/null/home"},
    "a file": {"HOME": "/dev/null"},
    "no place to write": {"HOME": "/proc/1", "TMPDIR": "/dev/null/tmp"},
}


@pytest.mark.parametrize("home", HOMES)
def test_without_a_home_kernels_are_not_kept_and_codes_stay(folder: Path, home: str) -> None:
    arguments = ("simulate", "model.onnx", "--samples", "2", "--json")
    done = child(folder, arguments, {"XDG_CACHE_HOME": None, **HOMES[home]})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


TERMINALS: dict[str, Mapping[str, str | None]] = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "no language": {"LC_ALL": None, "LANG": None, "LC_CTYPE": None},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1", "LC_ALL": "de_DE.ISO-8859-1"},
    "dumb": {"TERM": "dumb", "COLUMNS": "20"},
}


@pytest.mark.parametrize("terminal", TERMINALS)
def test_tables_on_terminals_of_few_letters(folder: Path, terminal: str) -> None:
    done = child(folder, ("cost", "model.onnx", "--board", "ultra96"), TERMINALS[terminal])
    assert (done.returncode, done.stderr) == (0, "")
    assert "MatMul" in done.stdout


def test_closed_and_full_streams(folder: Path) -> None:
    """No stdout is an error that is told; no stderr only leaves the exit code."""
    for arguments in (("boards",), ("boards", "--json")):
        done = child(folder, arguments, stdout=None, preexec_fn=lambda: os.close(1))
        assert done.returncode == 2
        assert done.stderr.splitlines()[0] == "Error: stdout is closed"
    done = child(folder, ("boards", "nowhere", "--json"), stderr=None, preexec_fn=lambda: os.close(2))
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 2
    with Path("/dev/full").open("w") as full:
        assert child(folder, ("boards", "nowhere"), stderr=full).returncode == 2
        done = child(folder, ("boards",), stdout=full)
    assert done.returncode == 2
    assert done.stderr == "Error: No space left on device (--debug tells where)\n"


def test_names_that_are_no_text(folder: Path) -> None:
    """Paths are bytes: where they are not UTF-8 they are taken, and told with escapes."""
    done = child(folder, ("simulate", b"m\xff\n.onnx", *SIMULATE[2:]))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 2
    for arguments in (
        ("boards", b"./b\xff.toml"),
        ("build", "--config", b"c\xff.toml"),
        ("simulate", b"x\xff"),
    ):
        done = child(folder, (*arguments, "--json"))
        assert done.returncode == json.loads(done.stdout)["exit_code"] == 2
        assert done.stderr.startswith("Error: ")
        assert r"\udcff" in done.stderr


def test_a_folder_that_is_gone(folder: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [*QHW, "build", str(folder / "model.onnx"), "--board", "ultra96"]
    done = subprocess.run(
        command,
        cwd=gone,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=gone.rmdir,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: The output folder qhw-build/")


def test_files_that_may_not_grow(folder: Path) -> None:
    """As on a full disk: nothing half written stays."""

    def no_file_may_grow() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = child(folder, (*SIMULATE, "--out", "trace.npz"), preexec_fn=no_file_may_grow)
    assert done.returncode == 2
    assert done.stderr == "Error: trace.npz cannot be written: File too large\n"
