"""Files from outside: what is no regular file, too large, or leads out of its folder is refused."""

import os
from pathlib import Path

import pytest

from qhw.errors import InputError
from qhw.outside import inside, read_bytes


def test_reads_up_to_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    file.write_bytes(b"1234")
    assert read_bytes(file, "board file", 4) == b"1234"
    with pytest.raises(InputError, match=r"The board file .* is too large"):
        read_bytes(file, "board file", 3)


def test_neither_pipes_nor_devices_nor_folders_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match=r"cannot be read: it is (no regular file|a folder)"):
            read_bytes(path, "model file", 1 << 20)


@pytest.mark.parametrize("name", ["absent.toml", "null\0byte", "x" * 5000])
def test_what_is_not_there_gets_one_message(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_bytes(tmp_path / name, "board file", 10)


@pytest.mark.parametrize("name", ["../victim", "/etc/passwd", "a/../../b", "", "null\0byte"])
def test_a_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="names a file outside of itself"):
        inside(tmp_path, name)


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert inside(tmp_path, "real/file") == tmp_path / "real" / "file"
    for name in ("link", "link/file"):
        with pytest.raises(InputError, match="is a symbolic link"):
            inside(tmp_path, name)
