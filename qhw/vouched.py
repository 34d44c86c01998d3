"""What this user's own runs wrote: digests under a key that lies in the user's cache.

A plain digest says that a file is as it was written. One under the key also says by whom: a build folder from
elsewhere, or one that was edited, cannot have it. What is executed, or taken for a result, is vouched for.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import secrets
import stat
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

KEY_FILE = "key"
_KEY_BYTES = 32


def seal(purpose: str, *parts: str) -> str:
    """HMAC-SHA256 of texts (digests, names), in hexadecimal digits.

    Args:
        purpose: the kind of what is sealed; a seal for one purpose is none for another.
    """
    return hmac.new(_key(_folder()), json.dumps([purpose, *parts]).encode(), "sha256").hexdigest()


def vouches(given: object, purpose: str, *parts: str) -> bool:
    """Whether what was given is the seal that this user's key gives to these texts."""
    if not isinstance(given, str):
        return False
    return hmac.compare_digest(given.encode(errors="replace"), seal(purpose, *parts).encode())


def _folder() -> Path | None:
    """The user's cache folder; None for a user without a home."""
    from qhw.native import cache_folder  # its kernels are vouched for, too

    try:
        return cache_folder()
    except RuntimeError:
        return None


@cache
def _key(folder: Path | None) -> bytes:
    try:
        if folder is None:
            raise OSError("there is no home folder")
        return _stored(folder / KEY_FILE) or _made(folder / KEY_FILE)
    except OSError as error:
        logger.warning(
            "No key can be kept in the cache folder (%s): later runs will not recognise what this one makes",
            error,
        )
        return secrets.token_bytes(_KEY_BYTES)


def _stored(place: Path) -> bytes | None:
    """The key at ``place``; None where there is none, or one that others may have read or written."""
    try:
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(handle)
        is_ours = facts.st_uid == os.geteuid() and not facts.st_mode & 0o077
        if not (is_ours and stat.S_ISREG(facts.st_mode) and facts.st_size == _KEY_BYTES):
            return None
        return file.read(_KEY_BYTES)


def _made(place: Path) -> bytes:
    """A new key at ``place``, or the one that another process has put there meanwhile."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = place.with_name(f"{place.name}.{secrets.token_hex(8)}")
    key = secrets.token_bytes(_KEY_BYTES)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
        try:
            os.link(beside, place)  # unlike a renaming, it fails where another process came first
        except OSError:
            if others := _stored(place):
                return others
            os.replace(beside, place)
        return key
    finally:
        beside.unlink(missing_ok=True)
