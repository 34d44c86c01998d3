"""Stages of a build: run once for the same inputs, resumed after an interruption, never half written.

Beside its results, a build folder holds ``.qhw/``: the lock, one record per finished stage, and scratch
space. A stage writes into scratch space; its files are renamed into place when it has finished, and only
then is its record written. What is interrupted before that leaves the folder as it was.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from qhw.errors import InputError, QhwError
from qhw.outside.text import read_json

logger = logging.getLogger(__name__)

Status = Literal["done", "skipped", "edited", "failed", "interrupted", "pending"]
"""``skipped``: its inputs have not changed since it ran; ``edited``: and its files were changed by hand."""

MARKER = ".qhw"
"""The folder inside a build folder by which it is recognised as one."""


LARGEST_RECORD = 1 << 26
"""Bytes of a stage's record at most."""

LEAST_FREE_BYTES = 1 << 16
"""Bytes of free disk below which a failure is reported as a full disk."""


class Observer(Protocol):
    """Who wants to know how a build goes on (a progress display)."""

    def started(self, name: str) -> None:
        """A stage begins."""

    def progress(self, fraction: float | None, text: str) -> None:
        """The running stage has come that far (0..1, None where it cannot say)."""

    def finished(self, outcome: Outcome) -> None:
        """A stage has ended, or was not needed."""


class Silent:
    """An observer that shows nothing."""

    def started(self, name: str) -> None:
        """Nothing."""

    def progress(self, fraction: float | None, text: str) -> None:
        """Nothing."""

    def finished(self, outcome: Outcome) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended, and how long it took (what it took when it ran, for one that was skipped)."""

    name: str
    status: Status
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Workspace:
    """The folders and facts that a running stage may use.

    Args:
        build: the build folder, with the files of the earlier stages: to read.
        scratch: an empty folder; what lies in it at the end becomes the stage's outputs.
        partial: a folder that outlives an interruption (checkpoints), removed when the stage has finished.
        facts: the earlier stages' results, by stage.
        progress: call it with (fraction, text).
    """

    build: Path
    scratch: Path
    partial: Path
    facts: Mapping[str, Mapping[str, Any]]
    progress: Callable[[float | None, str], None]


@dataclass(frozen=True)
class Stage:
    """One step of a build.

    Args:
        name: unique in its build.
        run: does the work in a :class:`Workspace`; returns JSON facts that depend on its inputs alone.
        inputs: JSON values that the result depends on, beside the earlier stages.
        needs: the earlier stages whose files or facts it reads.
        keeps_edits: files that a user changed by hand afterwards are kept, not written again.
    """

    name: str
    run: Callable[[Workspace], Mapping[str, Any]]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    keeps_edits: bool = False


@dataclass(frozen=True)
class Record:
    """A finished stage: the key of its inputs, the digest of every file it wrote, and its facts."""

    key: str
    outputs: Mapping[str, str]
    seconds: float
    facts: Mapping[str, Any]


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value, keys in order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path relative to it."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): file_digest(path) for path in files}


def write_atomically(path: Path, text: str) -> None:
    """Write a text file beside its place, then rename it there."""
    beside = path.with_name(f"{path.name}.new{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def check_ours(folder: Path) -> None:
    """Refuse an output folder that holds something other than a build.

    Raises:
        InputError: the folder is a file, or has content that ``qhw build`` did not make.
    """
    hint = "name an empty or new folder with --out"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The output folder {folder} is a file", hint=hint)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_dir():
        raise InputError(
            f"The output folder {folder} belongs to something else: it has files, but no build of qhw",
            hint=hint,
        )


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Path]:
    """Make a build folder and hold its lock; where no stage came to an end, nothing of it is left behind.

    Raises:
        InputError: the folder is not ours, cannot be written, or another build is running in it.
    """
    check_ours(folder)
    own = folder / MARKER
    was_empty, was_there = not own.exists(), folder.exists()
    try:
        (own / "stages").mkdir(parents=True, exist_ok=True)
        lock = (own / "lock").open("w")
    except OSError as error:
        raise InputError(f"The output folder {folder} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"Another build is running in {folder}", hint="wait for it, or name another folder with --out"
            ) from None
        try:
            shutil.rmtree(own / "scratch", ignore_errors=True)
            yield folder
        finally:
            shutil.rmtree(own / "scratch", ignore_errors=True)
            if was_empty and not any((own / "stages").iterdir()) and not (own / "partial").exists():
                shutil.rmtree(folder if not was_there else own, ignore_errors=True)


class Interruption:
    """Remembers Ctrl-C: libraries lose a KeyboardInterrupt (a bare ``except`` around an import, a finalizer).

    As a context manager it listens to SIGINT, in the main thread; :meth:`check` raises what was lost.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            if self._before is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _interrupt(self, *_: object) -> None:
        self._asked = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was asked for and has not ended the build."""
        if self._asked:
            raise KeyboardInterrupt


def run_stages(
    folder: Path, stages: Sequence[Stage], outcomes: list[Outcome], observer: Observer | None = None
) -> dict[str, Mapping[str, Any]]:
    """Run the stages in order, leaving out those whose inputs and outputs are unchanged.

    Args:
        folder: a build folder, held by :func:`opened`.
        stages: the stages, each after those that it needs.
        outcomes: receives one entry per stage, also when one fails (the rest is then ``pending``).
        observer: receives the progress of every stage.

    Returns:
        The facts of every stage, by name.
    """
    observer = observer or Silent()
    facts: dict[str, Mapping[str, Any]] = {}
    digests: dict[str, str] = {}
    already, start = len(outcomes), time.perf_counter()
    with Interruption() as interruption:
        try:
            for stage in stages:
                observer.started(stage.name)
                key = json_digest([stage.name, stage.inputs, {name: digests[name] for name in stage.needs}])
                record, status = _finished(folder, stage, key) or (
                    _run(folder, stage, key, facts, observer, interruption),
                    "done",
                )
                interruption.check()
                facts[stage.name] = record.facts
                digests[stage.name] = json_digest([_present(folder, record.outputs), record.facts])
                outcomes.append(Outcome(stage.name, status, record.seconds, record.facts))
                observer.finished(outcomes[-1])
                start = time.perf_counter()
        except BaseException as error:
            # Ctrl-C may come between two stages, too: it stops the first one that has no outcome yet.
            left = stages[len(outcomes) - already :]
            if left:
                status = "failed" if isinstance(error, Exception) else "interrupted"
                stopped = Outcome(left[0].name, status, time.perf_counter() - start)
                outcomes += [stopped, *(Outcome(stage.name, "pending", 0.0) for stage in left[1:])]
                observer.finished(stopped)
            raise
    return facts


def _finished(folder: Path, stage: Stage, key: str) -> tuple[Record, Status] | None:
    """The record of a stage that need not run again, and whether its files were edited."""
    record = read_record(folder, stage.name)
    if record is None or record.key != key:
        return None
    present = _present(folder, record.outputs)
    if present == record.outputs:
        return record, "skipped"
    if stage.keeps_edits and present.keys() == record.outputs.keys():
        changed = [name for name, digest in record.outputs.items() if present[name] != digest]
        logger.warning("%s: keeping what was changed by hand: %s", stage.name, ", ".join(changed[:5]))
        return record, "edited"
    return None


def _run(
    folder: Path,
    stage: Stage,
    key: str,
    facts: Mapping[str, Mapping[str, Any]],
    observer: Observer,
    interruption: Interruption,
) -> Record:
    own = folder / MARKER
    scratch, partial = own / "scratch", own / "partial" / f"{stage.name}-{key[:16]}"
    for path in (scratch, partial):
        path.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    try:
        with _telling_full_disk(folder):
            result = stage.run(Workspace(folder, scratch, partial, facts, observer.progress))
            interruption.check()
            outputs = tree_digests(scratch)
            before = read_record(folder, stage.name)
            _record_path(folder, stage.name).unlink(missing_ok=True)
            _install(scratch, folder)
            for name in set(before.outputs if before else ()) - set(outputs):
                (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):  # keeps a folder that holds something
            partial.rmdir()
            partial.parent.rmdir()
    record = Record(key, outputs, time.perf_counter() - start, json.loads(json.dumps(result)))
    write_atomically(_record_path(folder, stage.name), json.dumps(asdict(record), indent=1))
    _drop_partial(own, stage.name)
    return record


@contextlib.contextmanager
def _telling_full_disk(folder: Path) -> Iterator[None]:
    """Turns any failure on a full disk into one message: libraries tell it each in their own way."""
    try:
        yield
    except Exception as error:
        is_full = not isinstance(error, QhwError) and shutil.disk_usage(folder).free < LEAST_FREE_BYTES
        if is_full or _tells_full_disk(error):
            raise InputError(
                f"The disk that holds {folder} is full",
                hint="make room there; the same command goes on from the finished stages",
            ) from error
        raise


def _tells_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is about a full disk; shutil and compilers say so in words only."""
    if error is None:
        return False
    numbers = (errno.ENOSPC, errno.EDQUOT)
    told = getattr(error, "errno", None) in numbers or any(os.strerror(n) in str(error) for n in numbers)
    return told or _tells_full_disk(error.__cause__ or error.__context__)


def _install(scratch: Path, folder: Path) -> None:
    """Rename every entry of the scratch folder into the build folder, in place of what was there."""
    for entry in sorted(scratch.iterdir()):
        place = folder / entry.name
        if place.is_dir() and not place.is_symlink():
            old = scratch.parent / "scratch.old"
            shutil.rmtree(old, ignore_errors=True)
            os.rename(place, old)
            os.rename(entry, place)
            shutil.rmtree(old)
        else:
            os.replace(entry, place)


def _drop_partial(own: Path, name: str) -> None:
    for left in own.glob(f"partial/{name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    with contextlib.suppress(OSError):
        (own / "partial").rmdir()


def _present(folder: Path, names: Iterable[str]) -> dict[str, str]:
    return {name: file_digest(folder / name) for name in names if (folder / name).is_file()}


def _record_path(folder: Path, name: str) -> Path:
    return folder / MARKER / "stages" / f"{name}.json"


def read_record(folder: Path, name: str) -> Record | None:
    """The record of a finished stage; None if it has not finished, or its record is not readable."""
    try:
        return Record(**read_json(_record_path(folder, name), "stage record", LARGEST_RECORD))
    except (InputError, TypeError):
        return None
