"""Where the record of a search lies: a database with Optuna's tables, one connection, one lock, and patience.

Optuna makes the tables and keeps them up to date; what a search writes goes to them directly
(:mod:`qhw.search.store`).
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import logging
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from qhw.errors import InputError, ToolMissingError
from qhw.outside import opened, shown

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

IDENTITY = "identity"
"""The user attribute of a study that holds what decides its results."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Between two tries of a database that went away."""

LOCK_WAIT_S = 2.0
"""How long the lock of a search that died a moment ago may take to fall."""

_CONNECT_S = 5
_SQLITE_MAGIC = b"SQLite format 3\0"
_SQLITE_LIMIT = 1 << 40
_SQLITE_BUSY_S = 30
_LOCK_KIND = 0x716877
"""Of PostgreSQL's advisory locks: the letters ``qhw``. The second number is the study's, 0 for the tables."""


class StoreLostError(InputError):
    """The store cannot be written any more; all that was written before is kept."""


class Tables:
    """Optuna's tables, and the statements that several modules need."""

    def __init__(self) -> None:
        from optuna.storages._rdb import models

        self.studies = models.StudyModel.__table__
        self.directions = models.StudyDirectionModel.__table__
        self.study_attributes = models.StudyUserAttributeModel.__table__
        self.trials = models.TrialModel.__table__
        self.parameters = models.TrialParamModel.__table__
        self.values = models.TrialValueModel.__table__
        self.values_model = models.TrialValueModel
        self.facts = models.TrialUserAttributeModel.__table__

    def study(self, study: int) -> Any:
        """The row of a study, locked as Optuna locks it to count trials: its own tools may add some."""
        return self.studies.select().where(self.studies.c.study_id == study).with_for_update()

    def last_trial(self, study: int) -> Any:
        """The row of the trial that was added last."""
        columns = self.trials.c
        found = self.trials.select().where(columns.study_id == study)
        return found.order_by(columns.trial_id.desc()).limit(1)

    def of_trials(self, study: int, table: Any, *names: str) -> Any:
        """Columns of the rows that belong to a study's trials, the trial's id first."""
        from sqlalchemy import select

        owner = self.trials.c.trial_id == table.c.trial_id
        rows = select(table.c.trial_id, *(table.c[name] for name in names)).join(self.trials, owner)
        return rows.where(self.trials.c.study_id == study)


class Database(ABC):
    """A database of studies.

    Args:
        patience_s: how long it is waited for when it goes away.

    Attributes:
        shown: its name in messages, without a password.
        study: the id of the study that is open.
    """

    shown: str

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.study = 0
        self._connection: Connection | None = None

    @classmethod
    def of(cls, where: str | Path, patience_s: float) -> Database:
        """The database that a user named.

        Raises:
            InputError: it is of no known kind.
            ToolMissingError: Optuna or its driver is not installed.
        """
        for needed in ("sqlalchemy", "optuna"):
            _require(needed)
        scheme, separator, _ = str(where).partition("://")
        if not separator:
            return SQLiteFile(Path(where), patience_s)
        if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
            return PostgreSQLServer(str(where), patience_s)
        raise InputError(
            f"The store {shown(scheme)}://… is of no kind that a search can use",
            allowed="a file, or postgresql://user@host/database",
        )

    @cached_property
    def tables(self) -> Tables:
        """Optuna's tables."""
        return Tables()

    @cached_property
    def engine(self) -> Engine:
        """SQLAlchemy's engine."""
        from sqlalchemy import create_engine

        return create_engine(self.url, **self.settings)

    @property
    @abstractmethod
    def url(self) -> URL:
        """The database as SQLAlchemy names it."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings of the engine."""

    @abstractmethod
    def making(self, connection: Connection) -> contextlib.AbstractContextManager[None]:
        """While tables and study are looked for and made: others wait."""

    @abstractmethod
    def holder(self, connection: Connection) -> str | None:
        """Take the study's lock; or say who has it."""

    @abstractmethod
    def check(self) -> None:
        """Raise OSError where it is not the database any more that was opened."""

    def enter(self, name: str, identity: Mapping[str, Any]) -> None:
        """Connect, find the study or make it, and take its lock.

        Raises:
            InputError: the database cannot be used, or the study is in use.
        """
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            connection = self._connected()
            with self.making(connection):
                self._make_tables()
                with connection.begin():
                    found = self._found(connection, name)
                    self.study = self._made(connection, name, identity) if found is None else found
            holder = self._holder_after_a_while(connection)
        except (SQLAlchemyError, OptunaError, RuntimeError, OSError) as error:
            raise InputError(f"The store {self.shown} cannot be used: {reason_of(error)}") from None
        if holder is not None:
            raise InputError(
                f"A search is running on {name!r} in {self.shown} now: {holder}",
                hint="wait for it or stop it, or begin another with another --name or --store",
            )

    def _make_tables(self) -> None:
        """Let Optuna make its tables, or refuse those of another version."""
        from optuna.storages import RDBStorage

        # Optuna fills in a template.
        url = self.url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        storage = RDBStorage(url, engine_kwargs=self.settings)
        storage.remove_session()
        storage.engine.dispose()

    def _found(self, connection: Connection, name: str) -> int | None:
        studies = self.tables.studies
        row = connection.execute(studies.select().where(studies.c.study_name == name)).first()
        return None if row is None else int(row.study_id)

    def _made(self, connection: Connection, name: str, identity: Mapping[str, Any]) -> int:
        from optuna.study import StudyDirection

        tables = self.tables
        study = added(connection, tables.studies, study_name=name)
        for index, direction in enumerate((StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE)):
            added(connection, tables.directions, study_id=study, objective=index, direction=direction)
        added(
            connection,
            tables.study_attributes,
            study_id=study,
            key=IDENTITY,
            value_json=json.dumps(identity),
        )
        return study

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            self._drop()
            self._connection = self.engine.connect()
        return self._connection

    def _drop(self) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        if self._connection is not None:
            for end in (self._connection.invalidate, self._connection.close):
                with contextlib.suppress(SQLAlchemyError):
                    end()
            self._connection = None

    def _holder_after_a_while(self, connection: Connection) -> str | None:
        end = time.monotonic() + LOCK_WAIT_S
        while (holder := self.holder(connection)) is not None and time.monotonic() < end:
            time.sleep(0.05)
        return holder

    def run(self, work: Callable[[Connection, bool], Result], patience_s: float | None = None) -> Result:
        """Carry out a transaction, again and again while the database is away.

        Args:
            work: gets the connection, and whether an earlier try may have been carried out all the same.
            patience_s: how long it is tried, where other than usual.

        Raises:
            StoreLostError: it stays away, does not take it, or another search has the study.
        """
        from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

        patience_s = self.patience_s if patience_s is None else patience_s
        end, pause, again = time.monotonic() + patience_s, FIRST_PAUSE_S, False
        while True:
            try:
                result = self._tried(work, again)
            except (OperationalError, InterfaceError, OSError) as error:
                self._drop()
                if time.monotonic() + pause > end:
                    raise self.stopped(reason_of(error)) from None
                if not again:
                    logger.warning(
                        "The store %s does not answer (%s): it is tried again for %.0f s",
                        *(self.shown, reason_of(error), patience_s),
                    )
                again = True
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            except SQLAlchemyError as error:
                raise self.stopped(reason_of(error)) from None
            else:
                if again:
                    logger.warning("The store %s answers again", self.shown)
                return result

    def _tried(self, work: Callable[[Connection, bool], Result], again: bool) -> Result:
        self.check()
        was_lost = self._connection is None
        connection = self._connected()
        holder = self._holder_after_a_while(connection) if was_lost else None
        if holder == own_name():
            raise OSError("the server has not noticed yet that the connection broke")
        if holder is not None:
            raise self.stopped(f"another search took it while it was away: {holder}")
        with connection.begin():
            result = work(connection, again)
        self.check()
        return result

    def stopped(self, reason: str) -> StoreLostError:
        """The error that ends a search whose store is lost."""
        return StoreLostError(
            f"The store {self.shown} cannot be written: {reason}. The search stopped; everything that was "
            "written before is kept",
            hint="once the store is there again, go on with --resume: what was in flight is repeated",
        )

    def close(self, last: Callable[[Connection], None] | None = None) -> None:
        """Carry out a last transaction, if the database still answers, and let go of the lock."""
        from sqlalchemy.exc import SQLAlchemyError

        connection = self._connection
        if last is not None and connection is not None and not connection.invalidated:
            with contextlib.suppress(SQLAlchemyError, OSError):
                self.check()
                with connection.begin():
                    last(connection)
        self._drop()


class SQLiteFile(Database):
    """A file with a write-ahead log: others read while a search writes. The lock is on a file beside it."""

    def __init__(self, path: Path, patience_s: float) -> None:
        super().__init__(patience_s)
        self.path, self.shown = path, str(path)
        self._lock: TextIO | None = None
        self._file: os.stat_result | None = None
        if not path.parent.is_dir():
            raise InputError(f"The folder of the store {self.shown} does not exist")
        if path.exists():
            self._check_kind()

    def _check_kind(self) -> None:
        with opened(self.path, "store of a search", _SQLITE_LIMIT) as file:
            head = file.read(len(_SQLITE_MAGIC))
        if head and head != _SQLITE_MAGIC:
            raise InputError(
                f"The store {self.shown} is no SQLite file",
                allowed="a file that a search made, a new one, or postgresql://user@host/database",
            )

    @cached_property
    def engine(self) -> Engine:
        from sqlalchemy import event

        engine = super().engine
        # A transaction that reads before it writes would otherwise fail where another one wrote in between.
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine

    @property
    def url(self) -> URL:
        from sqlalchemy import URL

        # The path, whatever characters it has, is known to the creator of connections alone.
        return URL.create("sqlite", database="store")

    @property
    def settings(self) -> dict[str, Any]:
        from sqlalchemy.pool import NullPool

        return {"poolclass": NullPool, "creator": self._created}

    def _created(self) -> Any:
        """A connection that leaves transactions to SQLAlchemy, and trusts no code in the file."""
        import sqlite3

        connection = sqlite3.connect(
            self.path, timeout=_SQLITE_BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA trusted_schema = OFF")
        self._check_schema(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _check_schema(self, connection: Any) -> None:
        """Refuse another program's database, and one with code in it, before Optuna makes tables there."""
        found = set(connection.execute("SELECT type, name FROM sqlite_master"))
        tables = {name for kind, name in found if kind == "table"}
        with_code = {kind for kind, _ in found} - {"table", "index"}
        if with_code or (tables and not {"studies", "trials"} & tables):
            connection.close()
            raise InputError(
                f"The store {self.shown} is a database of another program",
                allowed="a file that a search made, or a new one",
            )

    @contextlib.contextmanager
    def making(self, connection: Connection) -> Iterator[None]:
        lock = _locked(Path(f"{self.path}.lock"), wait=True)
        assert lock is not None
        try:
            yield
            self._file = self.path.stat()
        finally:
            _unlocked(lock)

    def holder(self, connection: Connection) -> str | None:
        if self._lock is None:
            path = Path(f"{self.path}.{self.study}.lock")
            self._lock = _locked(path, wait=False)
            if self._lock is None:
                with path.open("a+") as other:
                    other.seek(0)
                    return other.read(200).strip() or "another process"
            self._lock.truncate(0)
            self._lock.write(own_name())
            self._lock.flush()
        return None

    def check(self) -> None:
        # What is written to a file that has no name any more is lost.
        try:
            now = self.path.stat()
        except OSError as error:
            raise OSError(f"{error.strerror}: it was moved or removed") from None
        if self._file is not None and not os.path.samestat(self._file, now):
            raise OSError("another file took its place")

    def close(self, last: Callable[[Connection], None] | None = None) -> None:
        super().close(last)
        if self._lock is not None:
            _unlocked(self._lock)
            self._lock = None


def _locked(path: Path, *, wait: bool) -> TextIO | None:
    """A file with a lock on it, made if need be; None where another process has it."""
    while True:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(path.open("a+"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return None
            # Whoever had it may have removed it since it was opened: then this lock is on no name.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    stack.pop_all()
                    return file


def _unlocked(lock: TextIO) -> None:
    """Remove a lock's file, then let go of it."""
    with contextlib.suppress(OSError):
        Path(lock.name).unlink()
    lock.close()


class PostgreSQLServer(Database):
    """A server. The lock is the connection's own, an advisory one: it falls however the search dies."""

    def __init__(self, text: str, patience_s: float) -> None:
        super().__init__(patience_s)
        _require("psycopg")
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            self._url = make_url(text).set(drivername="postgresql+psycopg")
        except (ArgumentError, ValueError):
            raise InputError(
                "The URL of the store is not understood",
                allowed="postgresql://user:password@host:port/database",
            ) from None
        self.shown = self._url.set(drivername="postgresql").render_as_string(hide_password=True)

    @property
    def url(self) -> URL:
        return self._url

    @property
    def settings(self) -> dict[str, Any]:
        """Both sides notice within a minute when the other is gone without a word."""
        from sqlalchemy.pool import NullPool

        return {
            "poolclass": NullPool,
            "connect_args": {
                "connect_timeout": _CONNECT_S,
                "application_name": own_name()[:63],
                "keepalives_idle": 15,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 30_000,
                "options": "-c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
            },
        }

    @contextlib.contextmanager
    def making(self, connection: Connection) -> Iterator[None]:
        self._ask(connection, "SELECT pg_advisory_lock(:kind, 0)")
        yield
        self._ask(connection, "SELECT pg_advisory_unlock(:kind, 0)")

    def holder(self, connection: Connection) -> str | None:
        # The lock belongs to the session, not to the transaction: it outlives the commit.
        if self._ask(connection, "SELECT pg_try_advisory_lock(:kind, :study)"):
            return None
        name = self._ask(
            connection,
            "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE granted "
            "AND locktype = 'advisory' AND classid = :kind AND objid = :study AND objsubid = 2",
        )
        return name or "another connection"

    def _ask(self, connection: Connection, query: str) -> Any:
        from sqlalchemy import text

        with connection.begin():
            return connection.execute(text(query), {"kind": _LOCK_KIND, "study": self.study}).scalar()

    def check(self) -> None:
        """Another server at the same address does not have the study, which shows when it is written."""


def added(connection: Connection, table: Any, **values: Any) -> int:
    """Add a row; its id."""
    made = connection.execute(table.insert().values(**values)).inserted_primary_key
    assert made is not None
    return int(made[0])


def own_name() -> str:
    """This process, as others are told who has a lock."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def reason_of(error: Exception) -> str:
    """An error of a database or its driver in one line, without the statement."""
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _require(module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ToolMissingError(
            f"The store of a search needs {error.name}, which is not installed",
            hint="pip install 'qhw[search]'",
        ) from None
