"""The stage engine, with small stages that count how often they run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qhw.errors import CheckFailedError, InputError
from qhw.pipeline.stages import (
    MARKER,
    Outcome,
    Silent,
    Stage,
    Workspace,
    check_ours,
    opened,
    read_record,
    run_stages,
)


class Factory:
    """Makes a chain of three stages that write files, and counts their runs."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.fail_in: str | None = None
        self.error: BaseException = CheckFailedError("as ordered")

    def stage(
        self, name: str, needs: tuple[str, ...] = (), keeps_edits: bool = False, **inputs: Any
    ) -> Stage:
        def run(work: Workspace) -> Mapping[str, Any]:
            self.runs.append(name)
            (work.scratch / f"{name}.txt").write_text(f"{name} {inputs.get('text', '')}")
            (work.scratch / f"{name}-folder").mkdir()
            (work.scratch / f"{name}-folder" / "inner.txt").write_text("inner")
            if name == self.fail_in:
                raise self.error
            return {"seen": sorted(work.facts)}

        return Stage(name, run, inputs, needs, keeps_edits)

    def chain(self, **first_inputs: Any) -> list[Stage]:
        return [
            self.stage("first", **first_inputs),
            self.stage("second", needs=("first",), keeps_edits=True),
            self.stage("third", needs=("second",)),
        ]


def build(folder: Path, stages: list[Stage]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with opened(folder):
        run_stages(folder, stages, outcomes)
    return outcomes


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def visible_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_second_run_skips_everything(tmp_path: Path) -> None:
    factory = Factory()
    assert statuses(build(tmp_path / "out", factory.chain())) == ["done"] * 3
    assert statuses(build(tmp_path / "out", factory.chain())) == ["skipped"] * 3
    assert factory.runs == ["first", "second", "third"]


def test_facts_of_earlier_stages_arrive(tmp_path: Path) -> None:
    outcomes = build(tmp_path, Factory().chain())
    assert [outcome.facts["seen"] for outcome in outcomes] == [[], ["first"], ["first", "second"]]


def test_changed_inputs_run_the_stage_and_what_needs_it(tmp_path: Path) -> None:
    factory = Factory()
    build(tmp_path, factory.chain(text="a"))
    assert statuses(build(tmp_path, factory.chain(text="b"))) == ["done", "done", "skipped"]


def test_equal_outputs_do_not_run_later_stages(tmp_path: Path) -> None:
    """'second' does not write what it was given: 'third' sees no change."""
    factory = Factory()
    build(tmp_path, factory.chain(unused=1))
    assert statuses(build(tmp_path, factory.chain(unused=2))) == ["done", "skipped", "skipped"]


def test_a_missing_output_runs_the_stage_again(tmp_path: Path) -> None:
    factory = Factory()
    build(tmp_path, factory.chain())
    (tmp_path / "third-folder" / "inner.txt").unlink()
    assert statuses(build(tmp_path, factory.chain())) == ["skipped", "skipped", "done"]
    assert (tmp_path / "third-folder" / "inner.txt").read_text() == "inner"


def test_a_changed_output_is_restored_or_kept(tmp_path: Path) -> None:
    factory = Factory()
    build(tmp_path, factory.chain())
    (tmp_path / "first.txt").write_text("by hand")
    assert statuses(build(tmp_path, factory.chain())) == ["done", "skipped", "skipped"]
    assert (tmp_path / "first.txt").read_text() == "first "
    (tmp_path / "second.txt").write_text("by hand")
    assert statuses(build(tmp_path, factory.chain())) == ["skipped", "edited", "done"]
    assert (tmp_path / "second.txt").read_text() == "by hand"


def test_outputs_that_are_no_longer_written_go(tmp_path: Path) -> None:
    def stage(name: str) -> Stage:
        def run(work: Workspace) -> Mapping[str, Any]:
            (work.scratch / name).write_text(name)
            return {}

        return Stage("one", run, {"name": name})

    build(tmp_path, [stage("a")])
    build(tmp_path, [stage("b")])
    assert visible_files(tmp_path) == {"b", MARKER}


@pytest.mark.parametrize(
    ("error", "status"), [(CheckFailedError("codes differ"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_stopped_stage_leaves_nothing_and_the_next_run_goes_on(
    tmp_path: Path, error: BaseException, status: str
) -> None:
    factory = Factory()
    factory.fail_in, factory.error = "second", error
    outcomes: list[Outcome] = []
    with pytest.raises(type(error)), opened(tmp_path / "out"):
        run_stages(tmp_path / "out", factory.chain(), outcomes)
    assert statuses(outcomes) == ["done", status, "pending"]
    assert visible_files(tmp_path / "out") == {"first.txt", "first-folder", MARKER}
    factory.fail_in = None
    assert statuses(build(tmp_path / "out", factory.chain())) == ["skipped", "done", "done"]


def copy_to_full(source: str) -> str:
    """A copy onto a device that has no space, ever."""
    return shutil.copyfile(source, "/dev/full")


class StopsAt(Silent):
    """Is interrupted while it reports a stage."""

    def __init__(self, moment: str, stage: str) -> None:
        self.moment, self.stage, self.asked = moment, stage, False

    def _report(self, moment: str, stage: str) -> None:
        if (moment, stage) == (self.moment, self.stage) and not self.asked:
            self.asked = True
            raise KeyboardInterrupt

    def started(self, stage: str) -> None:
        self._report("started", stage)

    def finished(self, outcome: Outcome) -> None:
        self._report("finished", outcome.name)


@pytest.mark.parametrize(
    ("moment", "stage", "expected"),
    [
        ("started", "first", ["interrupted", "pending", "pending"]),
        ("finished", "first", ["done", "interrupted", "pending"]),
        ("started", "second", ["done", "interrupted", "pending"]),
        ("finished", "second", ["done", "done", "interrupted"]),
        ("finished", "third", ["done", "done", "done"]),
    ],
)
def test_ctrl_c_between_two_stages_leaves_an_outcome_for_each(
    tmp_path: Path, moment: str, stage: str, expected: list[str]
) -> None:
    factory, outcomes = Factory(), list[Outcome]()
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "out"):
        run_stages(tmp_path / "out", factory.chain(), outcomes, StopsAt(moment, stage))
    assert [outcome.name for outcome in outcomes] == ["first", "second", "third"]
    assert statuses(outcomes) == expected
    again = build(tmp_path / "out", factory.chain())
    assert statuses(again) == ["skipped" if status == "done" else "done" for status in expected]


def test_a_full_disk_is_told_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_to_full_device(work: Workspace) -> Mapping[str, Any]:
        Path("/dev/full").write_text("x")  # a device that has no space, ever
        return {}

    def fail_in_a_library(work: Workspace) -> Mapping[str, Any]:
        raise RuntimeError("could not finish the archive")

    def fail_in_a_compiler(work: Workspace) -> Mapping[str, Any]:
        done = subprocess.run(["sh", "-c", "echo x | cat > /dev/full"], capture_output=True, text=True)
        raise CheckFailedError(f"does not compile:\n{done.stderr}")

    def fail_in_a_copy(work: Workspace) -> Mapping[str, Any]:
        (work.scratch / "from").mkdir()
        (work.scratch / "from" / "a").write_text("x")
        shutil.copytree(
            work.scratch / "from", work.scratch / "to", copy_function=lambda source, _: copy_to_full(source)
        )
        return {}

    for stage in (write_to_full_device, fail_in_a_compiler, fail_in_a_copy):
        with pytest.raises(InputError, match="full"):
            build(tmp_path, [Stage("a", stage, {})])
    with pytest.raises(RuntimeError, match="archive"):
        build(tmp_path, [Stage("b", fail_in_a_library, {})])
    monkeypatch.setattr("qhw.pipeline.stages.LEAST_FREE_BYTES", 1 << 80)
    with pytest.raises(InputError, match="full"):
        build(tmp_path, [Stage("b", fail_in_a_library, {})])


def test_a_first_stage_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    factory = Factory()
    factory.fail_in = "first"
    for folder in (tmp_path / "new", tmp_path):
        with pytest.raises(CheckFailedError):
            build(folder, factory.chain())
        assert list(tmp_path.iterdir()) == []


def test_partial_work_outlives_an_interruption(tmp_path: Path) -> None:
    seen: list[int] = []

    def run(work: Workspace) -> Mapping[str, Any]:
        checkpoint = work.partial / "checkpoint.txt"
        seen.append(int(checkpoint.read_text()) if checkpoint.exists() else 0)
        if not seen[-1]:
            checkpoint.write_text("7")
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "out", [Stage("train", run)])
    assert statuses(build(tmp_path / "out", [Stage("train", run)])) == ["done"]
    assert seen == [0, 7]
    assert not (tmp_path / "out" / MARKER / "partial").exists()


def test_ctrl_c_that_a_library_swallows_still_ends_the_build(tmp_path: Path) -> None:
    factory = Factory()
    chain = factory.chain()

    def swallow(work: Workspace) -> Mapping[str, Any]:
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        return chain[1].run(work)

    outcomes: list[Outcome] = []
    swallowing = [chain[0], replace(chain[1], run=swallow), chain[2]]
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "out"):
        run_stages(tmp_path / "out", swallowing, outcomes)
    assert statuses(outcomes) == ["done", "interrupted", "pending"]
    assert visible_files(tmp_path / "out") == {"first.txt", "first-folder", MARKER}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert statuses(build(tmp_path / "out", chain)) == ["skipped", "done", "done"]


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="belongs to something else"):
        build(tmp_path, Factory().chain())
    with pytest.raises(InputError, match="is a file"):
        build(tmp_path / "precious.txt", Factory().chain())
    assert visible_files(tmp_path) == {"precious.txt"}
    check_ours(tmp_path / "not-there-yet")


def test_two_builds_in_one_folder_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(InputError, match="Another build is running"), opened(tmp_path):
        pass


def test_a_broken_record_means_run_again(tmp_path: Path) -> None:
    factory = Factory()
    build(tmp_path, factory.chain())
    (tmp_path / MARKER / "stages" / "third.json").write_text('{"key": ')
    assert read_record(tmp_path, "third") is None
    assert statuses(build(tmp_path, factory.chain())) == ["skipped", "skipped", "done"]


def test_a_killed_build_resumes(tmp_path: Path) -> None:
    """kill -9 in the middle of the second stage: the lock is free, scratch is cleared, the first is kept."""
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from qhw.pipeline.stages import Stage, opened, run_stages

        def write(work):
            (work.scratch / "one.txt").write_text("1")
            return {}

        def hang(work):
            (work.scratch / "two.txt").write_text("half")
            if "hang" in sys.argv:
                print("hanging", flush=True)
                time.sleep(60)
            return {}

        folder, outcomes = Path(sys.argv[1]), []
        with opened(folder):
            run_stages(folder, [Stage("one", write), Stage("two", hang, needs=("one",))], outcomes)
        print(*(outcome.status for outcome in outcomes))
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    with subprocess.Popen([*command, "hang"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "hanging\n"
        os.kill(child.pid, signal.SIGKILL)
    assert visible_files(tmp_path / "out") == {"one.txt", MARKER}
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout.split() == ["skipped", "done"]
    assert visible_files(tmp_path / "out") == {"one.txt", "two.txt", MARKER}


def test_records_hold_the_seconds_of_the_run(tmp_path: Path) -> None:
    def run(work: Workspace) -> Mapping[str, Any]:
        time.sleep(0.02)
        return {}

    first, again = (build(tmp_path, [Stage("one", run)])[0] for _ in range(2))
    assert first.seconds == again.seconds >= 0.02
    assert json.loads((tmp_path / MARKER / "stages" / "one.json").read_text())["facts"] == {}
