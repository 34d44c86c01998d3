"""NumPy's files: what NumPy writes comes back; what lies about its size costs no memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import npy_header, write_bomb
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qhw.errors import InputError
from qhw.outside import read_gzip
from qhw.outside.arrays import MEMBER_LIMIT, read_npy, read_npz

LIMIT = 1 << 26

ARRAYS = hnp.arrays(
    st.sampled_from(["<f4", ">f8", "i1", "<i8", ">u2", "?", "<U3", "S2", "<c8"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@given(st.dictionaries(st.text("abc:/ü. ", min_size=1, max_size=8), ARRAYS, max_size=4), st.booleans())
def test_what_numpy_writes_comes_back(tmp_path_factory: Any, arrays: dict[str, Any], packed: bool) -> None:
    path = tmp_path_factory.mktemp("arrays") / "file.npz"
    arrays = {f"t:{name}": array for name, array in arrays.items()}
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    found = read_npz(path, "test file", LIMIT)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
        np.save(path.with_suffix(".npy"), np.asfortranarray(array))
        assert read_npy(path.with_suffix(".npy"), "test file", LIMIT).tobytes() == array.tobytes()


def header(text: str, version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode()


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    return npy_header(descr, shape) + data


DAMAGED = {
    "empty": b"",
    "text": b"x = 1",
    "cut header": npy("'<f4'", "(4,)")[:20],
    "unclosed header": b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'shape': (2, 64".ljust(118),
    "no data": npy("'<f4'", "(4,)"),
    "much claimed": npy("'|u1'", f"({10**12},)", b"1234"),
    "much in product": npy("'|u1'", f"({2**40}, {2**40})"),
    "longer": npy("'|u1'", "(2,)", b"123"),
    "negative": npy("'|u1'", "(-2, -1)", b"12"),
    "wide text": npy(f"'<U{2**28}'", "(1,)"),
    "no width": npy("'<U0'", f"({10**12},)"),
    "objects": npy("'|O'", "(1,)", b"12345678"),
    "records": npy("[('a', '<f4')]", "(1,)", b"1234"),
    "parts": npy("'3<f4'", "(1,)", b"123412341234"),
    "deep": header("(" * 9000),
    "unended text": header("{'descr': '''"),
    "call": header("__import__('os').abort()"),
    "long header": header(" " * 20_000 + "{}", 2),
    "claimed header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1),
    "null bytes": header("{'descr': '\0'}"),
    "version 3": header("{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}", 3) + b"1",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_arrays(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.npy"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(InputError, match=r"is not a \.npy file of numbers") as caught:
        read_npy(path, "test file", LIMIT)
    assert len(str(caught.value)) < 800
    with zipfile.ZipFile(tmp_path / "file.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", DAMAGED[name])
    with pytest.raises(InputError, match=r"is not a file of arrays \(\.npz\)"):
        read_npz(tmp_path / "file.npz", "test file", LIMIT)


def archive_of(*members: tuple[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def lying(size: int) -> bytes:
    """An archive whose directory and local header claim that its one member has ``size`` bytes."""
    content = npy("'|u1'", f"({size},)")
    data = bytearray(archive_of(("a.npy", content)))
    central = data.rindex(b"PK\x01\x02")
    for place in (22, central + 24):
        data[place : place + 4] = struct.pack("<I", size + len(content))
    return bytes(data)


def large_directory() -> bytes:
    """The end of an archive that claims a directory of 3 GiB."""
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60000, 60000, 3 << 30, 0, 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a file of arrays"),
        (b"PK\x03\x04", "is not a file of arrays"),
        (archive_of(("a.txt", b"1")), "is no array"),
        (archive_of(("a.npy", saved(1)), packing=zipfile.ZIP_LZMA), "packed in a way"),
        (archive_of(("a.npy", saved(1)), packing=zipfile.ZIP_BZIP2), "packed in a way"),
        (archive_of(("n" * 9000 + ".npy", saved(1))), "is no array"),
        (archive_of(*((f"{i}.npy", b"") for i in range(MEMBER_LIMIT + 1))), "more than 16,384"),
        (lying(1 << 30), "cannot unpack to"),
        (archive_of(("a.npy", saved(np.zeros(9))))[:-40], "is not a file of arrays"),
    ],
)
def test_damaged_archives(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "file.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_npz(path, "test file", LIMIT)
    assert len(str(caught.value)) < 800


def test_a_directory_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    with path.open("wb") as file:
        file.truncate(3 << 30)
        file.seek(0, io.SEEK_END)
        file.write(large_directory())
    with pytest.raises(InputError, match="its directory has"):
        read_npz(path, "test file", 4 << 30)


def test_two_members_of_one_name_and_members_that_overlap(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(archive_of(("a.npy", saved(1)), ("a.npy", saved(2))))
    with pytest.raises(InputError, match="two of its arrays have one name"):
        read_npz(path, "test file", LIMIT)
    names = [f"{i:04}.npy" for i in range(100)]
    data = archive_of((names[0], saved(np.random.default_rng(0).random(1000))), packing=zipfile.ZIP_STORED)
    start = data.rindex(b"PK\x01\x02")
    entry, end = data[start : data.rindex(b"PK\x05\x06")], bytearray(data[data.rindex(b"PK\x05\x06") :])
    entries = b"".join(entry.replace(names[0].encode(), name.encode()) for name in names)
    end[8:16] = struct.pack("<2HL", len(names), len(names), len(entries))
    path.write_bytes(data[:start] + entries + end)
    with pytest.raises(InputError, match="its members overlap"):
        read_npz(path, "test file", LIMIT)


def test_a_wrong_byte_is_found_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    np.savez(path, a=np.arange(1000))
    content = bytearray(path.read_bytes())
    content[4000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="Bad CRC-32"):
        read_npz(path, "test file", LIMIT)


def test_other_members_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    path.write_bytes(archive_of(("a.npy", saved(7)), ("b.npy", b"no array")))
    assert read_npz(path, "test file", LIMIT, ("a", "c")) == {"a": 7}


BOUNDED = """
import re, resource, sys
from pathlib import Path
import numpy
from qhw.errors import InputError
from qhw.outside.arrays import read_npz
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    read_npz(Path(sys.argv[1]), "trace", 4 << 30)
except InputError as error:
    print(error)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
"""The peak is this program's own: `ru_maxrss` also counts the process that started it."""


def test_an_archive_of_megabytes_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    write_bomb(path, "a", "'<i8'", 3 << 30)
    assert path.stat().st_size < 4 << 20
    command = [sys.executable, "-c", BOUNDED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "unpacks to 3,221,225," in done.stdout, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 1 << 20  # KiB


def test_gzip_is_counted_while_it_unpacks(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    assert read_gzip(path, "test file", LIMIT, 1 << 20) == bytes(1 << 20)
    with pytest.raises(InputError, match="unpacks to too much"):
        read_gzip(path, "test file", LIMIT, (1 << 20) - 1)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read"):
        read_gzip(path, "test file", LIMIT, 1 << 20)
