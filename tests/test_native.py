"""Kernels in the user's cache: only what this user's compiler wrote there is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qhw.native import compiled

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "seven.cpp"
    path.write_text('extern "C" int seven() { return 7; }\n')
    return path


def test_compiled_once(source: Path) -> None:
    first, again = compiled(source), compiled(source)
    assert (first.cached, again.cached) == (False, True)
    assert first.path == again.path
    assert again.load().seven() == 7


def other_library(path: Path) -> None:
    """Somebody's own code in the library's place."""
    planted = path.with_name("planted.cpp")
    planted.write_text('extern "C" int seven() { return 8; }\n')
    shutil.copyfile(compiled(planted).path, path)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without_seal(path: Path) -> None:
    facts = path.with_suffix(".json")
    facts.write_text(json.dumps({"compile_seconds": 1.0}))


def no_facts(path: Path) -> None:
    path.with_suffix(".json").write_text("[]")


@pytest.mark.parametrize("damage", [other_library, flipped, without_seal, no_facts])
def test_anything_else_is_compiled_anew(source: Path, damage: Callable[[Path], None]) -> None:
    path = compiled(source).path
    damage(path)
    again = compiled(source)
    assert not again.cached
    assert again.load().seven() == 7
    assert compiled(source).cached
