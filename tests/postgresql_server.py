"""A PostgreSQL server of one's own, in a temporary folder, as a user without rights."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER = "qhw"
ACCOUNTS = ("postgres", "nobody")
"""Whose processes the server's are where this one is root's: PostgreSQL refuses root."""


def program(name: str) -> str | None:
    """A program of the newest PostgreSQL installed: Debian keeps them off the path."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: int(f.parent.name), reverse=True
    )
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))


def missing() -> str:
    """Why there is no server to be had; empty where there is one."""
    lacking = [name for name in ("initdb", "pg_ctl", "postgres") if program(name) is None]
    return f"PostgreSQL is not installed: there is no {lacking[0]}" if lacking else ""


class Server:
    """A server that listens on a socket in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            account = next(pwd.getpwnam(name) for name in ACCOUNTS if _exists(name))
            os.chown(folder, account.pw_uid, account.pw_gid)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._call("initdb", "-D", "data", "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")

    @property
    def url(self) -> str:
        """As ``--store`` takes it."""
        return f"postgresql://{USER}@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-k {self.folder} -c listen_addresses='' -c max_connections=20 -c shared_buffers=16MB"
        self._call("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", options)

    def stop(self) -> None:
        """End it at once, as a crash does."""
        self._call("pg_ctl", "stop", "-w", "-D", "data", "-m", "immediate")

    def _call(self, name: str, *arguments: str) -> None:
        path = program(name)
        assert path is not None
        done = subprocess.run(
            [path, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            **self._as,
        )
        assert done.returncode == 0, done.stderr


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@contextmanager
def running() -> Iterator[Server]:
    """A server that runs meanwhile; its folder has a short name, as sockets want it."""
    folder = Path(tempfile.mkdtemp(prefix="qhw-pg-", dir="/tmp"))
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            subprocess.run(
                [program("pg_ctl") or "", "stop", "-w", "-D", "data", "-m", "immediate"],
                cwd=folder,
                capture_output=True,
                check=False,
                **server._as,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
