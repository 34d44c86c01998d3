"""NumPy's files from outside: nothing unpickled, nothing allocated before the file can hold it.

A ``.npy`` header says how large the array is, and an archive's directory how large its members are: both may
lie. Deflate packs at most 1,032 bytes into one, so what a member claims beyond that is refused before memory
is taken for it, and its bytes are counted while they are unpacked.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Container
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from qhw.errors import InputError
from qhw.outside import opened, shown

MEMBER_LIMIT = 1 << 14
"""Arrays in one archive at most."""

UNPACKED_FREELY = 1 << 30
"""Bytes that any archive may unpack to; a larger one no more than :data:`USUAL_RATIO` times its own size."""

USUAL_RATIO = 100

_DEFLATE_RATIO = 1032
_LARGEST_READ = 1 << 23
_HEADER_LIMIT = 10_000
_NAME_LIMIT = 1 << 13
_KINDS = "biufcSU"
_PART = 1 << 20

_DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    SyntaxError,
    TokenError,
    EOFError,
    RecursionError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What the parsers raise for bytes that are not theirs; NumPy reads a header as Python text."""


def read_npy(path: Path, what: str, limit: int) -> NDArray[Any]:
    """The one array of a ``.npy`` file: numbers or text.

    Raises:
        InputError: as for :func:`qhw.outside.opened`; it is damaged, cut short, or holds Python objects.
    """
    with opened(path, what, limit) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            kind, shape, fortran = _header(file, size)
            flat = np.fromfile(file, kind, math.prod(shape))
            return _shaped(flat, shape, fortran)
        except _DAMAGE as error:
            raise InputError(
                f"The {what} {shown(str(path))} is not a .npy file of numbers: {error}",
                allowed="one array, as numpy.save writes it",
            ) from None


def read_npz(
    path: Path, what: str, limit: int, names: Container[str] | None = None
) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name.

    Args:
        names: the arrays to read, of those that are there; None: all.

    Raises:
        InputError: as for :func:`read_npy`; or it unpacks to more than its size allows.
    """
    with opened(path, what, limit) as file:
        size = file.seek(0, io.SEEK_END)
        try:
            with zipfile.ZipFile(_Bounded(file)) as archive:
                members = _members(archive, size, names)
                return {name: _unpacked(archive, member) for name, member in members.items()}
        except _DAMAGE as error:
            raise InputError(
                f"The {what} {shown(str(path))} is not a file of arrays (.npz): {error}",
                allowed="arrays, as numpy.savez writes them",
            ) from None


class _Bounded:
    """A file of which no more is read at once than a sane directory has; zipfile reads what is claimed."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _LARGEST_READ:
            raise zipfile.BadZipFile(f"its directory has {size:,} bytes, more than {_LARGEST_READ:,}")
        return self._file.read(size if size >= 0 else _LARGEST_READ)


def _members(archive: zipfile.ZipFile, size: int, names: Container[str] | None) -> dict[str, zipfile.ZipInfo]:
    """The members to read, by the names of their arrays."""
    entries = archive.infolist()
    if len(entries) > MEMBER_LIMIT:
        raise ValueError(f"it holds {len(entries):,} arrays, more than {MEMBER_LIMIT:,}")
    if sum(entry.compress_size for entry in entries) > size:
        raise ValueError("its members overlap")
    found = {entry.filename.removesuffix(".npy"): entry for entry in entries}
    if len(found) < len(entries):
        raise ValueError("two of its arrays have one name")
    wanted = {name: entry for name, entry in found.items() if names is None or name in names}
    for name, entry in wanted.items():
        _check_member(name, entry)
    unpacked, most = (
        sum(entry.file_size for entry in wanted.values()),
        max(UNPACKED_FREELY, USUAL_RATIO * size),
    )
    if unpacked > most:
        raise ValueError(f"it has {size:,} bytes and unpacks to {unpacked:,}, more than {most:,}")
    return wanted


def _check_member(name: str, entry: zipfile.ZipInfo) -> None:
    if not entry.filename.endswith(".npy") or len(name) > _NAME_LIMIT:
        raise ValueError(f"{shown(entry.filename)} in it is no array")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
        raise ValueError(f"{shown(name)} in it is packed in a way that NumPy does not use")
    if entry.file_size > _DEFLATE_RATIO * (entry.compress_size + 1):
        raise ValueError(f"{shown(name)} in it cannot unpack to {entry.file_size:,} bytes")


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as stream:
        kind, shape, fortran = _header(stream, entry.file_size)  # type: ignore[arg-type]
        flat = np.empty(math.prod(shape), kind)
        view, start = flat.view(np.uint8), 0
        while start < len(view):
            part = stream.read(min(_PART, len(view) - start))
            if not part:
                raise EOFError(f"{shown(entry.filename)} in it is cut short")
            view[start : start + len(part)] = np.frombuffer(part, np.uint8)
            start += len(part)
        if stream.read(1):  # the end of a member is where its checksum is compared
            raise ValueError(f"{shown(entry.filename)} in it is longer than it says")
    return _shaped(flat, shape, fortran)


def _header(file: BinaryIO, size: int) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """The type, the shape and the order of an array in a file of ``size`` bytes, which it must fill."""
    prefix = file.read(8)
    if prefix[:6] != b"\x93NUMPY" or prefix[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise ValueError("it does not begin as one")
    count = file.read(2 if prefix[6] == 1 else 4)
    length = int.from_bytes(count, "little")
    if length > _HEADER_LIMIT:
        raise ValueError(f"its header has {length:,} bytes, more than {_HEADER_LIMIT:,}")
    text = io.BytesIO(count + file.read(length))
    parse = np.lib.format.read_array_header_1_0 if prefix[6] == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, kind = parse(text, max_header_size=_HEADER_LIMIT)
    if kind.kind not in _KINDS or not kind.itemsize:
        raise ValueError(f"it holds {shown(str(kind))}, not numbers")
    stated, there = math.prod(shape) * kind.itemsize, size - len(prefix) - len(count) - length
    if min(shape, default=0) < 0 or stated != there:
        raise ValueError(
            f"its header says {shown(shape)} of {kind}, {stated:,} bytes, and it holds {there:,}"
        )
    return kind, shape, fortran


def _shaped(flat: NDArray[Any], shape: tuple[int, ...], fortran: bool) -> NDArray[Any]:
    return flat.reshape(shape[::-1]).transpose() if fortran else flat.reshape(shape)
