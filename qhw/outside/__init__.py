"""The one door for files from outside: boards, models, data, build folders. Bounded, checked, never executed.

A file from a colleague or a forum is data. It is read only if it is a regular file of bounded size, and no
name in it leads out of its own folder. Text, JSON, TOML and CSV are in :mod:`qhw.outside.text`, arrays in
:mod:`qhw.outside.arrays`, torch's weights in :mod:`qhw.outside.weights`; :mod:`qhw.outside.schema` checks
the types of what was read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath

from qhw.errors import InputError

_SHOWN = 200


def shown(value: object) -> str:
    """A value from a file as a message quotes it: one line, and a short one."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@contextlib.contextmanager
def opened(path: Path, what: str, limit: int, hint: str | None = None) -> Iterator[BufferedReader]:
    """A regular file, open for reading.

    Args:
        what: the file's kind in messages, e.g. "board file".
        limit: bytes that it has at most.
        hint: a remedy where it cannot be read.

    Raises:
        InputError: it cannot be read, is a folder, a pipe or a device, or is larger.
    """

    def unreadable(reason: object) -> InputError:
        return InputError(f"The {what} {shown(str(path))} cannot be read: {reason}", hint=hint)

    try:
        # A pipe without a writer blocks whoever opens it, unless told otherwise.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # a ValueError for a name with a null byte
        raise unreadable(error.strerror if isinstance(error, OSError) else error) from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise unreadable("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is no regular file")
        if status.st_size > limit:
            raise _too_large(path, what, limit)
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    except OSError as error:
        raise unreadable(error.strerror or error) from None
    finally:
        os.close(handle)


def read_bytes(path: Path, what: str, limit: int, hint: str | None = None) -> bytes:
    """The content of a regular file; arguments and errors as for :func:`opened`."""
    with opened(path, what, limit, hint) as file:
        size = min(os.fstat(file.fileno()).st_size, limit)
        content = file.read(size + 1)
        if len(content) > size:  # it grows, or is one of those that do not know their size
            content += file.read(limit + 1 - len(content))
    if len(content) > limit:
        raise _too_large(path, what, limit)
    return content


def sha256(path: Path, what: str, limit: int, hint: str | None = None) -> str:
    """The digest of a regular file, read piece by piece; arguments and errors as for :func:`opened`."""
    with opened(path, what, limit, hint) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _too_large(path: Path, what: str, limit: int) -> InputError:
    return InputError(f"The {what} {shown(str(path))} is too large", allowed=f"at most {limit:,} bytes")


def read_gzip(path: Path, what: str, limit: int, unpacked: int) -> bytearray:
    """The content of a gzipped file, of at most ``limit`` bytes packed and ``unpacked`` bytes unpacked.

    Raises:
        InputError: as for :func:`opened`; it is damaged, or unpacks to more.
    """
    import gzip
    import zlib

    content = bytearray()
    with opened(path, what, limit) as file, gzip.GzipFile(fileobj=file) as packed:
        try:
            while len(content) <= unpacked and (part := packed.read(1 << 20)):
                content += part
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"The {what} {shown(str(path))} cannot be read: {error}", hint="fetch the file again"
            ) from None
    if len(content) > unpacked:
        raise InputError(
            f"The {what} {shown(str(path))} unpacks to too much", allowed=f"at most {unpacked:,} bytes"
        )
    return content


def inside(folder: Path, name: str) -> Path:
    """The place in a folder that a record of it names, reached through real folders only.

    Raises:
        InputError: the name is absolute, has ``..`` in it, or passes through a symbolic link.
    """
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name or name.startswith("/") or ".." in parts:
        raise InputError(
            f"{folder} names a file outside of itself: {name[:80]!r}",
            allowed="relative paths without '..'",
            hint="the folder was damaged or made by somebody else: build again, with --out elsewhere",
        )
    place = folder
    for part in parts:
        place = place / part
        refuse_link(place)
    return place


def refuse_link(path: Path) -> None:
    """Raise InputError if a path is a symbolic link: what is written there would land elsewhere."""
    if path.is_symlink():
        raise InputError(
            f"{path} is a symbolic link",
            allowed="real files and folders in a build folder",
            hint="remove the link, or build into another folder with --out",
        )
