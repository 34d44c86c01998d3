"""Build folders of others, and damaged ones: what the stage engine trusts, checks and refuses."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_stages import Factory, build, statuses, visible_files

from qhw.errors import CheckFailedError, InputError
from qhw.pipeline.stages import (
    MARKER,
    Stage,
    Workspace,
    check_ours,
    check_own,
    check_written,
    opened,
    read_record,
    run_stages,
)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the build folder, with something precious in it."""
    folder = tmp_path / "elsewhere"
    (folder / "inner").mkdir(parents=True)
    (folder / "victim").write_text("years of work")
    (folder / "inner" / "victim").write_text("years of work")
    return folder


def assert_untouched(outside: Path) -> None:
    found = {path.relative_to(outside).as_posix() for path in outside.rglob("*")}
    assert found == {"victim", "inner", "inner/victim"}
    assert {(outside / name).read_text() for name in ("victim", "inner/victim")} == {"years of work"}


def record_file(folder: Path, name: str) -> Path:
    return folder / MARKER / "stages" / f"{name}.json"


def edit_record(folder: Path, name: str, **changes: Any) -> None:
    path = record_file(folder, name)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- records of others ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"facts": {"accuracy": 0.99}},
        {"seconds": 0.0},
        {"outputs": {}},
        {"kept": {"third.txt": "0" * 64}},
        {"key": "0" * 64},
        {"seal": "0" * 64},
        {"seal": None},
        {"more": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_record_is_as_good_as_none(
    tmp_path: Path, change: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    factory = Factory()
    build(tmp_path, factory.chain())
    before = read_record(tmp_path, "third")
    edit_record(tmp_path, "third", **change)
    assert read_record(tmp_path, "third") is None
    with caplog.at_level(logging.WARNING):
        again = build(tmp_path, factory.chain())
    assert statuses(again) == ["skipped", "skipped", "done"]
    assert again[-1].facts == {"seen": ["first", "second"]}
    assert [record.message for record in caplog.records] == [
        "third: its record was made by somebody else, or was changed: the stage runs again"
    ]
    healed = read_record(tmp_path, "third")
    assert healed is not None
    assert before is not None
    assert replace(healed, seconds=0.0) == replace(before, seconds=0.0)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"key": 1}'])
def test_a_broken_record_heals(tmp_path: Path, content: bytes) -> None:
    factory = Factory()
    build(tmp_path, factory.chain())
    record_file(tmp_path, "first").write_bytes(content)
    assert statuses(build(tmp_path, factory.chain())) == ["done", "skipped", "skipped"]
    assert statuses(build(tmp_path, factory.chain())) == ["skipped"] * 3


def test_another_users_build_runs_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factory = Factory()
    build(tmp_path / "out", factory.chain())
    shutil.copytree(tmp_path / "out", tmp_path / "copied")
    assert statuses(build(tmp_path / "copied", factory.chain())) == ["skipped"] * 3
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    assert statuses(build(tmp_path / "out", factory.chain())) == ["done"] * 3


def test_a_foreign_record_deletes_nothing(tmp_path: Path, outside: Path) -> None:
    """Its outputs name files elsewhere, as if the stage no longer wrote them."""
    factory = Factory()
    build(tmp_path / "out", factory.chain())
    names = ["../elsewhere/victim", str(outside / "victim"), "first-folder/../../elsewhere/victim"]
    for name in names:
        edit_record(tmp_path / "out", "first", outputs={name: "0" * 64}, key="another")
        assert statuses(build(tmp_path / "out", factory.chain())) == ["done", "skipped", "skipped"]
        edit_record(tmp_path / "out", "first", outputs={name: "0" * 64})
        with pytest.raises(InputError, match="names a file outside of itself"):
            check_written(tmp_path / "out", name)
        assert_untouched(outside)


# --- files that are not as they were written --------------------------------------------------------


def test_a_file_that_changes_while_a_stage_reads_it_is_named(tmp_path: Path) -> None:
    def change_and_read(work: Workspace) -> Mapping[str, Any]:
        (work.build / "first.txt").write_text("damaged")
        return {"read": (work.build / "first.txt").read_text()}

    def fail_on_it(work: Workspace) -> Mapping[str, Any]:
        change_and_read(work)
        raise ValueError("unreadable")

    factory = Factory()
    for run in (change_and_read, fail_on_it):
        chain = [factory.stage("first"), Stage("second", run, needs=("first",))]
        with pytest.raises(CheckFailedError, match=r"first.txt is not what the stage 'first' wrote"):
            build(tmp_path, chain)
        assert read_record(tmp_path, "second") is None
    chain = [factory.stage("first"), factory.stage("second", needs=("first",))]
    assert statuses(build(tmp_path, chain)) == ["done", "done"]
    assert (tmp_path / "first.txt").read_text() == "first "


def test_a_restored_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    factory = Factory()
    build(tmp_path, factory.chain())
    (tmp_path / "first.txt").write_text("by hand")
    with caplog.at_level(logging.WARNING):
        build(tmp_path, factory.chain())
    assert caplog.messages == ["first: first.txt was changed: the stage runs again"]


def test_readers_find_what_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, Factory().chain())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    assert check_written(tmp_path, "first.txt", "first-folder")
    assert not check_written(tmp_path, "fourth")
    (tmp_path / "first-folder" / "inner.txt").write_text("damaged")
    assert check_written(tmp_path, "first.txt", "second-folder")
    with pytest.raises(InputError, match=r"first-folder/inner.txt is missing, or is not what"):
        check_written(tmp_path, "first-folder")
    (tmp_path / "first-folder" / "inner.txt").unlink()
    with pytest.raises(InputError, match=r"first-folder/inner.txt is missing"):
        check_written(tmp_path, "first-folder")
    (tmp_path / "fourth").write_text("nobody's")
    with pytest.raises(InputError, match="fourth has no record"):
        check_written(tmp_path, "fourth")
    record_file(tmp_path, "second").write_text("{")
    with pytest.raises(InputError, match=r"second.json is damaged"):
        check_written(tmp_path, "first.txt")


def test_only_what_this_user_built_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factory = Factory()
    build(tmp_path, factory.chain())
    check_own(tmp_path, "second", ["second.txt"])
    with pytest.raises(InputError, match=r"second-folder/planted.h was changed after the last build"):
        check_own(tmp_path, "second", ["second.txt", "second-folder/planted.h"])
    (tmp_path / "second.txt").write_text("by hand")
    with pytest.raises(InputError, match=r"second.txt was changed after the last build"):
        check_own(tmp_path, "second", [])
    assert statuses(build(tmp_path, factory.chain()))[1] == "edited"
    check_own(tmp_path, "second", [])
    (tmp_path / "second.txt").write_text("second ")
    with pytest.raises(InputError, match=r"second.txt was changed after the last build"):
        check_own(tmp_path, "second", [])
    assert statuses(build(tmp_path, factory.chain()))[1] == "skipped"
    check_own(tmp_path, "second", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    with pytest.raises(InputError, match="not built here by you: nothing in it is executed"):
        check_own(tmp_path, "second", [])


def test_files_added_by_hand_count_as_edits(tmp_path: Path) -> None:
    factory = Factory()
    added: list[str] = []
    chain = factory.chain()
    chain[1] = replace(chain[1], added=lambda build: added)
    build(tmp_path, chain)
    (tmp_path / "second-folder" / "mine.h").write_text("1")
    added.append("second-folder/mine.h")
    assert statuses(build(tmp_path, chain)) == ["skipped", "edited", "done"]
    assert statuses(build(tmp_path, chain)) == ["skipped", "edited", "skipped"]
    (tmp_path / "second-folder" / "mine.h").write_text("2")
    assert statuses(build(tmp_path, chain)) == ["skipped", "edited", "done"]


# --- links ------------------------------------------------------------------------------------------


def linked_marker(folder: Path, outside: Path) -> None:
    (folder / MARKER).rename(folder.parent / "moved")
    (folder / MARKER).symlink_to(outside)


def linked(name: str, target: str) -> Callable[[Path, Path], None]:
    def link(folder: Path, outside: Path) -> None:
        place = folder / name
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(outside / target)

    return link


LINKS = {
    ".qhw": linked_marker,
    **{
        name: linked(name, target)
        for name, target in {
            f"{MARKER}/lock": "victim",
            f"{MARKER}/build.log": "victim",
            f"{MARKER}/scratch": "inner",
            f"{MARKER}/scratch.old": "inner",
            f"{MARKER}/partial": "inner",
            f"{MARKER}/partial/first-00": "inner",
            f"{MARKER}/stages": "inner",
            f"{MARKER}/stages/first.json": "victim",
            f"{MARKER}/stages/.first.json.new": "absent",
            "first.txt": "victim",
            "first-folder": "inner",
            "build.json": "victim",
            "absent": "absent",
        }.items()
    },
}


@pytest.mark.parametrize("name", LINKS)
def test_links_are_refused_and_nothing_behind_them_is_touched(
    tmp_path: Path, outside: Path, name: str
) -> None:
    folder = tmp_path / "out"
    build(folder, Factory().chain())
    LINKS[name](folder, outside)
    with pytest.raises(InputError, match="is a symbolic link"):
        check_ours(folder)
    with pytest.raises(InputError, match="is a symbolic link"):
        build(folder, Factory().chain(text="other"))
    assert_untouched(outside)


def test_a_link_deep_in_an_output_is_refused(tmp_path: Path, outside: Path) -> None:
    folder = tmp_path / "out"
    build(folder, Factory().chain())
    (folder / "second-folder" / "inner.txt").unlink()
    (folder / "second-folder" / "inner.txt").symlink_to(outside / "victim")
    for refused in (
        lambda: build(folder, Factory().chain()),
        lambda: check_written(folder, "second-folder"),
        lambda: check_own(folder, "second", []),
    ):
        with pytest.raises(InputError, match=r"inner.txt is a symbolic link"):
            refused()
    assert_untouched(outside)


def test_the_build_folder_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large disk")
    assert statuses(build(tmp_path / "out", Factory().chain())) == ["done"] * 3


def test_a_pipe_in_place_of_the_lock_does_not_block(tmp_path: Path) -> None:
    build(tmp_path, Factory().chain())
    (tmp_path / MARKER / "lock").unlink()
    os.mkfifo(tmp_path / MARKER / "lock")
    assert statuses(build(tmp_path, Factory().chain())) == ["skipped"] * 3


# --- kills and full disks ---------------------------------------------------------------------------


def test_what_a_killed_build_left_is_cleared(tmp_path: Path) -> None:
    """Killed between the two renamings of a folder, and while a record was written."""
    factory = Factory()
    build(tmp_path, factory.chain())
    own = tmp_path / MARKER
    record_file(tmp_path, "second").unlink()
    (tmp_path / "second-folder").rename(own / "scratch.old")
    (own / "stages" / ".second.json.new").write_text("{")
    assert statuses(build(tmp_path, factory.chain())) == ["skipped", "done", "skipped"]
    assert visible_files(own) == {"lock", "stages"}
    assert visible_files(own / "stages") == {"first.json", "second.json", "third.json"}


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted by root alone")
def test_a_disk_that_fills_up_leaves_whole_stages(tmp_path: Path) -> None:
    """On a file system of 256 KiB: the second stage does not fit until there is room."""
    small = tmp_path / "small"
    small.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if subprocess.run(options, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")

    def large(work: Workspace) -> Mapping[str, Any]:
        (work.scratch / "large.bin").write_bytes(b"7" * 150_000)
        return {}

    try:
        ballast = small / "ballast"
        ballast.write_bytes(b"x" * 180_000)
        stages = [Factory().stage("first"), Stage("second", large, needs=("first",))]
        with pytest.raises(InputError, match="is full"), opened(small / "out"):
            run_stages(small / "out", stages, [])
        assert visible_files(small / "out") == {"first.txt", "first-folder", MARKER}
        ballast.unlink()
        assert statuses(build(small / "out", stages)) == ["skipped", "done"]
        assert (small / "out" / "large.bin").read_bytes() == b"7" * 150_000
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_two_builds_at_once_give_one_whole_build(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from test_stages import Factory, build, statuses\n"
        "from qhw.errors import InputError\n"
        "try:\n"
        "    print(*statuses(build(Path(sys.argv[1]), Factory().chain())))\n"
        "except InputError as error:\n"
        "    assert 'Another build is running' in str(error), error\n"
        "    print('refused')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out"), str(Path(__file__).parent)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate(timeout=120)[0].strip() for process in started}
    assert "done done done" in answers
    assert answers <= {"done done done", "skipped skipped skipped", "refused"}
    assert statuses(build(tmp_path / "out", Factory().chain())) == ["skipped"] * 3
