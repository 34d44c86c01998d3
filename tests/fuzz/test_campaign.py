"""The campaign tells every kind of fault, makes the same cases again, and finds none in a short run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qhw import cli

from . import campaign, seeds
from .cases import Case, case

COUNT = 15


def ends(code: int, message: str = "", printed: str = "") -> Callable[[list[str]], None]:
    """A command line that prints and exits."""

    def main(arguments: list[str]) -> None:
        sys.stdout.write(printed)
        sys.stderr.write(message)
        raise SystemExit(code)

    return main


def raises(error: BaseException) -> Callable[[list[str]], None]:
    def main(arguments: list[str]) -> None:
        raise error

    return main


def fills_memory(arguments: list[str]) -> None:
    bytearray(1 << 31)


def dies(arguments: list[str]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def waits(arguments: list[str]) -> None:
    time.sleep(30)


PLANTED = {
    "ok": ends(0, printed="fine\n"),
    "refused": ends(2, "Error: the board 'x' is none\n"),
    "traceback": raises(KeyError("x")),
    "a fault told": ends(70, "Error: KeyError: x\nThis is a fault of qhw\n"),
    "memory": fills_memory,
    "memory told": ends(2, "Error: there is not enough memory for this\n"),
    "hang": waits,
    "killed": dies,
    "no message": ends(2),
    "two messages": ends(2, "Error: one\nError: two\n"),
    "a long message": ends(2, f"Error: {'n' * 100_000}\n"),
    "an escape sequence": ends(2, "Error: \x1b[31m\n"),
    "a warning": ends(0, "/x/y.py:3: RuntimeWarning: overflow\n"),
    "an escape sequence in a table": ends(0, printed="\x1b[2J"),
}
OUTCOMES = {
    **{name: name for name in ("ok", "refused", "traceback", "memory", "hang", "killed")},
    "a fault told": "traceback",
    "memory told": "memory",
}


@pytest.mark.parametrize("name", PLANTED)
def test_every_kind_of_fault_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(campaign, "case", lambda *_: Case(("boards", "x"), "planted"))
    monkeypatch.setattr(cli, "main", PLANTED[name])
    seconds = 1 if name == "hang" else 20
    record = campaign.run_case("files", 0, 0, tmp_path, tmp_path, 512, seconds)
    assert record["outcome"] == OUTCOMES.get(name, "message")
    assert record["told"] == "planted"


def test_executions_that_differ_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "case", lambda *_: Case(("diff", "a", "b"), "planted", is_exact=True))
    monkeypatch.setattr(cli, "main", ends(1, printed="{}"))
    assert campaign.run_case("onnx", 0, 0, tmp_path, tmp_path, 512, 20)["outcome"] == "inexact"


def test_the_same_numbers_give_the_same_models(tmp_path: Path) -> None:
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        made = [case("onnx", 5, index, tmp_path, folder) for index in range(20)]
        contents.append((made, (folder / "case.onnx").read_bytes()))
    assert contents[0] == contents[1]
    assert len({made.told for made in contents[0][0]}) > 15


def test_a_short_campaign_finds_nothing(tmp_path: Path) -> None:
    """In a process of its own: children of one that has run OpenMP could wait for its threads."""
    command = [sys.executable, "-m", "tests.fuzz.campaign", "--kind", "onnx", "--kind", "files", "--json"]
    given = ("--count", str(COUNT), "--seed", "23", "--results", str(tmp_path), "--seconds", "30")
    done = subprocess.run([*command, *given], cwd=campaign.ROOT, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["cases"] == 2 * COUNT
    assert (done.returncode, found["groups"]) == (0, {}), found
    assert set(found["outcomes"]) == {"ok", "refused"}
    again = subprocess.run([*command, *given], cwd=campaign.ROOT, capture_output=True, text=True)
    assert json.loads(again.stdout) == found


def test_seeds_are_taken_as_they_are() -> None:
    """What the mutations begin with is valid: the small model, and the share of random files that lowers."""
    from qhw.graph.lower import lower

    assert lower(seeds.small_model()).outputs
