"""The one door for files from outside: boards, models, data, build folders. Bounded, checked, never executed.

A file from a colleague or a forum is data. It is read only if it is a regular file of bounded size, and no
name in it leads out of its own folder.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from qhw.errors import InputError


def read_bytes(path: Path, what: str, limit: int) -> bytes:
    """The content of a regular file.

    Args:
        what: the file's kind in messages, e.g. "board file".
        limit: bytes that it has at most.

    Raises:
        InputError: it cannot be read, is a folder, a pipe or a device, or is larger.
    """
    try:
        # A pipe without a writer blocks whoever opens it, unless told otherwise.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # a ValueError for a name with a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"The {what} {str(path)!r} cannot be read: {reason}") from None
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise InputError(f"The {what} {str(path)!r} cannot be read: it is {kind}")
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise InputError(f"The {what} {str(path)!r} cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)
    if len(content) > limit:
        raise InputError(f"The {what} {str(path)!r} is too large", allowed=f"at most {limit:,} bytes")
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
