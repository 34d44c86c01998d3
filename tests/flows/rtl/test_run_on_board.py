"""``qhw run``: the host's end of a serial line, a board in Verilator, and faulty ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from board_on_a_pty import answering, compiled, plugged_in
from rtl_designs import chain, design_of

import qhw
from qhw.errors import CheckFailedError, InputError, UnsupportedError
from qhw.flows.base import BoardRun, Project, SerialLine, list_flows, load_flow, load_project_flow
from qhw.flows.rtl.project import identity, read_description
from qhw.graph.interpreter import interpret

pytest.importorskip("serial", reason="pyserial is not installed: pip install 'qhw[synth]'")

FLOW = load_project_flow("rtl")
IMAGES = np.random.default_rng(0).integers(-8, 8, (3, 6))
LONG = 60.0
"""Seconds without an answer: more than any simulation takes for one."""

TINY = """
import torch
from torch import nn


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return FLOW.write(design_of(chain()), tmp_path_factory.mktemp("board") / "project")


def sent(project: Project, port: str, *, timeout: float = 0.3, baud: int | None = None) -> BoardRun:
    line = SerialLine(port, baud, timeout)
    return FLOW.run_on_board(project, {"x": IMAGES}, line, tell=lambda share, text: None)


def test_words_of_a_port_become_codes(project: Project) -> None:
    """A board that is played: its bytes are written down here from the interpreter's numbers."""
    expected = interpret(chain(), {"x": IMAGES})["y"]
    port = read_description(project.folder).outputs[0]
    words = (expected & 31).reshape(-1, port.lanes) @ (1 << 5 * np.arange(port.lanes))
    size = -(-5 * port.lanes // 8)
    answers = np.split(words, len(IMAGES))
    played = [b"".join(int(word).to_bytes(size, "little") for word in row) for row in answers]
    with answering([identity(project.folder), *played]) as name:
        found = sent(project, name, timeout=LONG)
    assert np.array_equal(found.values["y"], expected)
    assert found.design == identity(project.folder)[3:].hex()


def test_a_silent_port(project: Project) -> None:
    with answering([]) as port, pytest.raises(InputError, match=r"does not answer within 0\.3 s"):
        sent(project, port)


def test_a_board_with_another_design(project: Project) -> None:
    with (
        answering([b"qhw12345"]) as port,
        pytest.raises(CheckFailedError, match=r"another design \(3132333435\)"),
    ):
        sent(project, port, timeout=LONG)


class Played:
    """A port that answers each message with the next of some texts, whatever the time."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers, self.waiting, self.closed = answers, b"", False

    def write(self, content: bytes) -> None:
        self.waiting += self.answers.pop(0) if self.answers else b""

    def read(self, size: int) -> bytes:
        found, self.waiting = self.waiting[:size], self.waiting[size:]
        return found

    @property
    def in_waiting(self) -> int:
        return len(self.waiting)

    def close(self) -> None:
        self.closed = True


OWN = b"the project's identity"


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([b"", b"", b"qhw"], r"answers 3 bytes \(71 68 77\) when it is asked for its design"),
        ([b"\xff" * 8, b"\xff" * 90, b"\xff" * 8], r"(?s)ff ff.*--baud"),
        ([OWN, b"\x00"], r"answered sample 0 with 1 of \d+ bytes"),
        ([b"late", b"more" * 3000, OWN], r"answered sample 0 with 0 of \d+ bytes"),
    ],
    ids=["short", "noise", "stops", "begun"],
)
def test_a_port_with_something_else(
    project: Project, answers: list[bytes], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import serial

    own = identity(project.folder)
    port = Played([own if answer == OWN else answer for answer in answers])
    monkeypatch.setattr(serial, "Serial", lambda *given, **settings: port)
    with pytest.raises(InputError, match=text) as told:
        sent(project, "/dev/ttyPlayed")
    assert told.value.exit_code == 2
    assert "/dev/ttyPlayed" in told.value.message
    assert port.closed


def test_what_is_given_is_checked_first(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="timeout is -1"):
        qhw.run(tmp_path, port="/dev/ttyNone", timeout=-1)
    with pytest.raises(InputError, match="no board holds it"):
        qhw.run(tmp_path / "model.onnx", port="/dev/ttyNone")
    with pytest.raises(InputError, match="is not a build folder"):
        qhw.run(tmp_path, port="/dev/ttyNone")


def test_a_port_that_is_none(project: Project, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no terminal")
    for port in ("/dev/ttyNone", str(tmp_path / "file"), str(tmp_path)):
        with pytest.raises(InputError, match="cannot be opened at 1000000 baud"):
            sent(project, port)
    with answering([]) as port, pytest.raises(InputError, match=r"at 77 baud|does not answer"):
        sent(project, port, baud=77)


def test_a_project_without_a_loader(tmp_path: Path) -> None:
    project = FLOW.write(design_of(chain(), board="ultra96"), tmp_path / "project")
    with pytest.raises(InputError, match=r"has no board/board\.v"):
        sent(project, "/dev/ttyNone")


def test_other_flows_have_no_loader(project: Project) -> None:
    for name in set(list_flows()) - {"rtl"}:
        flow = load_flow(name)
        if hasattr(flow, "run_on_board"):
            with pytest.raises(UnsupportedError, match=r"(?s)by a serial line.*the flow rtl"):
                flow.run_on_board(project, {}, SerialLine("/dev/ttyNone"), tell=lambda share, text: None)


def test_the_identity_is_that_of_verilog_and_memories(project: Project, tmp_path: Path) -> None:
    own = identity(project.folder)
    assert f"64'h{own.hex()}" in (project.folder / "board" / "board.v").read_text()
    copy = tmp_path / "project"
    shutil.copytree(project.folder, copy)
    assert identity(copy) == own
    memory = next(iter(sorted((copy / "memories").glob("*.mem"))))
    memory.write_text(memory.read_text() + "\n")
    assert identity(copy) != own
    memory.unlink()
    memory.symlink_to("/dev/null")
    with pytest.raises(InputError, match="is a symbolic link"):
        identity(copy)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_graph_the_serial_line_and_the_host(project: Project, tmp_path: Path) -> None:
    """Also behind a host that stopped within an image."""
    import serial

    program = compiled(project.folder, tmp_path)
    expected = interpret(chain(), {"x": IMAGES})["y"]
    with plugged_in(program, project.folder) as port:
        for _ in range(2):
            assert np.array_equal(sent(project, port, timeout=LONG).values["y"], expected)
        with serial.Serial(port, 1_000_000) as line:
            line.write(b"\x01\x00")
        assert np.array_equal(sent(project, port, timeout=2.0).values["y"], expected)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "qhw", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_runs_a_trained_network_on_a_board(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "tiny.py").write_text(TINY)
    out = tmp_path / "build"
    model = f"{tmp_path / 'tiny.py'}:net"
    built = command(
        *("build", model, "--data", "digits", "--board", "ulx3s", "--flow", "rtl", "--fps", "1000"),
        *("--float-epochs", "2", "--quantised-epochs", "1", "--vectors", "8", "--out", out, "--json"),
    )
    assert built.returncode == 0, built.stderr
    folder, scratch = out / "project", tmp_path / "scratch"
    program = compiled(folder, scratch)
    before = sorted(path for path in out.rglob("*"))
    with plugged_in(program, folder) as port:
        everything = ("run", out, "--port", port, "--timeout", str(LONG), "--json")
        done = command(*everything, "--data", "digits")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["samples"], told["mismatches"]) == (364, 0)
        assert told["codes_compared"] == 3640
        assert told["accuracy"] == json.loads(built.stdout)["accuracy"]["quantised"]
        assert told["images_per_second"] > 0
        # What the build was verified on, without --data.
        done = command(*everything[:-1], "--count", "5")
        assert done.returncode == 0, done.stderr
        assert "images per second" in done.stdout
    assert sorted(path for path in out.rglob("*")) == before
    # A weight that a bit of memory has changed on the board.
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    for memory in (broken / "memories").glob("*.mem"):
        memory.write_text(memory.read_text().translate(str.maketrans("0123456789abcdef", "fedcba9876543210")))
    with plugged_in(program, broken) as port:
        done = command("run", out, "--port", port, "--timeout", str(LONG), "--count", "5", "--json")
        assert done.returncode == 1, done.stderr
        told = json.loads(done.stdout)
        assert told["mismatches"] > 0
        assert "sample 0, element (" in told["first_difference"]
        assert "in the board" in told["first_difference"]
    done = command("run", out, "--port", "/dev/ttyNone", "--count", "1")
    assert done.returncode == 2
    assert "The serial port /dev/ttyNone cannot be opened" in done.stderr
