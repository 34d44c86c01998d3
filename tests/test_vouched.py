"""Seals under the user's key: whose key, kept how, and what happens where none can be kept."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qhw import vouched
from qhw.vouched import KEY_FILE, seal, vouches


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vouched._key.cache_clear()
    return tmp_path / "cache" / "qhw"


def test_a_seal_is_for_one_purpose_and_one_content(home: Path) -> None:
    given = seal("record", "train", "ab")
    assert vouches(given, "record", "train", "ab")
    for other in (("program", "train", "ab"), ("record", "traina", "b"), ("record", "train", "ac")):
        assert not vouches(given, *other)
    for wrong in (None, 7, "", given[:-1], given.upper(), "\ud800"):
        assert not vouches(wrong, "record", "train", "ab")


def test_the_key_is_the_users_alone_and_stays(home: Path) -> None:
    given = seal("record", "x")
    key = home / KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32
    assert [path.name for path in home.iterdir()] == [KEY_FILE]
    vouched._key.cache_clear()
    assert vouches(given, "record", "x")


def test_another_user_has_another_key(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = seal("record", "x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert not vouches(given, "record", "x")


@pytest.mark.parametrize(
    "damage",
    [
        lambda key: key.write_bytes(key.read_bytes()[:-1]),
        lambda key: key.write_bytes(b""),
        lambda key: key.chmod(0o644),
        lambda key: (key.rename(key.with_name("elsewhere")), key.symlink_to(key.with_name("elsewhere"))),
    ],
    ids=["short", "empty", "readable", "link"],
)
def test_a_key_that_is_none_is_made_anew(home: Path, damage: Callable[[Path], object]) -> None:
    given = seal("record", "x")
    damage(home / KEY_FILE)
    vouched._key.cache_clear()
    again = seal("record", "x")
    assert again != given
    assert not (home / KEY_FILE).is_symlink()
    vouched._key.cache_clear()
    assert vouches(again, "record", "x")


def test_processes_that_start_together_agree(home: Path) -> None:
    command = [sys.executable, "-c", "from qhw.vouched import seal; print(seal('record', 'x'))"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    seals = {process.communicate(timeout=120)[0].strip() for process in started}
    assert len(seals) == 1
    assert vouches(seals.pop(), "record", "x")


def test_without_a_place_for_the_key_one_warning_and_a_key_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        given = seal("record", "x")
        assert vouches(given, "record", "x")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "later runs will not recognise" in caplog.text
    vouched._key.cache_clear()
    assert not vouches(given, "record", "x")


def test_without_a_home(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("qhw.native.cache_folder", homeless)
    vouched._key.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert vouches(seal("record", "x"), "record", "x")
    assert "no home folder" in caplog.text
