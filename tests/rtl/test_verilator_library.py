"""Verilator's library is compiled once, and only what this user compiled is linked; files are joined."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qhw.errors import CheckFailedError
from qhw.rtl.simulation import runtime

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed", allow_module_level=True)


@pytest.fixture
def include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small files in the place of Verilator's, and a cache of its own."""
    folder = tmp_path / "tool" / "include"
    folder.mkdir(parents=True)
    for name in ("verilated.cpp", "verilated_threads.cpp"):
        (folder / name).write_text(f"int {Path(name).stem}() {{ return 1; }}\n")
    monkeypatch.setattr(runtime, "verilator_folder", lambda: tmp_path / "tool")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "scratch").mkdir()
    return folder


def test_it_is_compiled_once_and_again_when_a_byte_changes(include: Path, tmp_path: Path) -> None:
    first = runtime.library(tmp_path / "scratch")
    assert [path.name for path in first] == ["verilated.o", "verilated_threads.o"]
    made = [path.stat().st_mtime_ns for path in first]
    content = first[0].read_bytes()
    assert runtime.library(tmp_path / "scratch") == first
    assert [path.stat().st_mtime_ns for path in first] == made
    first[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert runtime.library(tmp_path / "scratch") == first
    assert first[0].read_bytes() == content
    (include / "verilated.cpp").write_text("int verilated() { return 2; }\n")
    assert runtime.library(tmp_path / "scratch")[0].parent != first[0].parent
    assert not list((tmp_path / "scratch").iterdir())


def test_without_a_cache_it_is_compiled_where_it_is_needed(include: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    assert {path.parent for path in runtime.library(tmp_path / "scratch")} == {tmp_path / "scratch"}


def test_what_does_not_compile_is_told(include: Path, tmp_path: Path) -> None:
    (include / "verilated_threads.cpp").write_text("int verilated_threads() { return }\n")
    with pytest.raises(CheckFailedError, match=r"library does not compile: g\+\+ [\s\S]*expected"):
        runtime.library(tmp_path / "scratch")


def test_files_are_joined_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_LARGEST_UNIT", 100)
    sources = [tmp_path / f"part{number}.cpp" for number in range(5)]
    for source, size in zip(sources, (60, 40, 1, 300, 99), strict=True):
        source.write_text("/" * size)
    units = runtime.joined(sources, tmp_path)
    assert [path.read_text().count("#include") for path in units] == [2, 1, 1, 1]
    assert "".join(path.read_text() for path in units) == "".join(f'#include "{path}"\n' for path in sources)
