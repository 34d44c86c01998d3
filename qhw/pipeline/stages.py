"""Stages of a build: run once for the same inputs, resumed after an interruption, never half written.

Beside its results, a build folder holds ``.qhw/``: the lock, one record per finished stage, and scratch
space. A stage writes into scratch space; its files are renamed into place when it has finished, and only
then is its record written. What is interrupted before that leaves the folder as it was.

A record is sealed with the user's key (:mod:`qhw.vouched`): one that somebody else made, or that was changed,
is as good as none. It holds the digest of every file that its stage wrote, and who reads a file checks it.
Nothing in the folder is reached through a link.
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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from qhw import vouched
from qhw.errors import CheckFailedError, InputError, QhwError
from qhw.outside import inside, refuse_link
from qhw.outside.text import read_json

logger = logging.getLogger(__name__)

Status = Literal["done", "skipped", "edited", "failed", "interrupted", "pending"]
"""``skipped``: its inputs have not changed since it ran; ``edited``: and its files were changed by hand."""

MARKER = ".qhw"
"""The folder inside a build folder by which it is recognised as one."""

MOST_RECORD_BYTES = 1 << 26
"""Bytes of a stage's record at most: it names every file that the stage wrote."""

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
        added: the files in a build folder that count as such a change if the stage did not write them.
    """

    name: str
    run: Callable[[Workspace], Mapping[str, Any]]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    keeps_edits: bool = False
    added: Callable[[Path], Iterable[str]] = lambda build: ()


@dataclass(frozen=True)
class Record:
    """A finished stage: the key of its inputs, the digest of every file it wrote, and its facts.

    ``kept`` are the digests of the files that had been changed by hand when the build last went through.
    """

    key: str
    outputs: Mapping[str, str]
    seconds: float
    facts: Mapping[str, Any]
    kept: Mapping[str, str] = field(default_factory=dict)


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


def create(path: Path) -> IO[str]:
    """Open a new text file in place of what may be there: a link there is removed, not followed."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(handle, "w", encoding="utf-8")


def write_atomically(path: Path, text: str) -> None:
    """Write a text file beside its place, then rename it there; for whoever holds the folder's lock."""
    beside = path.with_name(f".{path.name}.new")
    try:
        with create(beside) as file:
            file.write(text)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def check_ours(folder: Path) -> None:
    """Refuse an output folder that holds something other than a build, or links to places outside.

    Raises:
        InputError: the folder is a file, has content that ``qhw build`` did not make, or a symbolic link
            stands where a build writes.
    """
    hint = "name an empty or new folder with --out"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The output folder {folder} is a file", hint=hint)
    if not folder.is_dir():
        return
    own = folder / MARKER
    refuse_link(own)
    if any(folder.iterdir()) and not own.is_dir():
        raise InputError(
            f"The output folder {folder} belongs to something else: it has files, but no build of qhw",
            hint=hint,
        )
    for path in (*folder.iterdir(), *own.rglob("*")):
        refuse_link(path)


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
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.fdopen(os.open(own / "lock", flags, 0o666), "wb")
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
            for left in ("scratch", "scratch.old"):
                shutil.rmtree(own / left, ignore_errors=True)
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
    files: dict[str, dict[str, str]] = {}
    already, start = len(outcomes), time.perf_counter()
    with Interruption() as interruption:
        try:
            for stage in stages:
                observer.started(stage.name)
                key = json_digest([stage.name, stage.inputs, {name: digests[name] for name in stage.needs}])
                before = _own_record(folder, stage.name)
                record, status = _finished(folder, stage, key, before) or (
                    _run(folder, stage, key, before, _Earlier(facts, files), observer, interruption),
                    "done",
                )
                interruption.check()
                facts[stage.name] = record.facts
                files[stage.name] = {**record.outputs, **record.kept}
                digests[stage.name] = json_digest([files[stage.name], record.facts])
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


@dataclass(frozen=True)
class _Earlier:
    """The facts of the stages so far, and the digests of their files, by stage."""

    facts: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Mapping[str, str]]

    def check(self, folder: Path, stage: Stage) -> None:
        """Raise CheckFailedError if a file that the stage has read is not what the earlier stage left."""
        for need in stage.needs:
            if changed := _differing(folder, self.files[need]):
                raise CheckFailedError(
                    f"{folder / changed[0]} is not what the stage '{need}' wrote: "
                    f"it was changed while the stage '{stage.name}' was running",
                    hint="run the same qhw build again: it writes the file again",
                )


def _own_record(folder: Path, name: str) -> Record | None:
    """The record of a stage as the build trusts it, with a word about one that it does not trust."""
    record = read_record(folder, name)
    if record is None and _record_path(folder, name).exists():
        logger.warning("%s: its record was made by somebody else, or was changed: the stage runs again", name)
    return record


def _finished(folder: Path, stage: Stage, key: str, record: Record | None) -> tuple[Record, Status] | None:
    """The record of a stage that need not run again, and whether its files were edited."""
    if record is None or record.key != key:
        return None
    present = _present(folder, record.outputs)
    if gone := [name for name in record.outputs if name not in present]:
        logger.warning("%s: %s is missing: the stage runs again", stage.name, gone[0])
        return None
    if stage.keeps_edits:
        present |= _present(folder, set(stage.added(folder)) - set(record.outputs))
    kept = {name: digest for name, digest in present.items() if record.outputs.get(name) != digest}
    if kept and not stage.keeps_edits:
        logger.warning("%s: %s was changed: the stage runs again", stage.name, next(iter(kept)))
        return None
    if kept != record.kept:
        record = replace(record, kept=kept)
        _write_record(folder, stage.name, record)
    if kept:
        logger.warning("%s: keeping what was changed by hand: %s", stage.name, ", ".join(list(kept)[:5]))
    return record, "edited" if kept else "skipped"


def _run(
    folder: Path,
    stage: Stage,
    key: str,
    before: Record | None,
    earlier: _Earlier,
    observer: Observer,
    interruption: Interruption,
) -> Record:
    own = folder / MARKER
    scratch, partial = own / "scratch", own / "partial" / f"{stage.name}-{key[:16]}"
    for path in (scratch, partial):
        path.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    try:
        with telling_full_disk(folder):
            try:
                result = stage.run(Workspace(folder, scratch, partial, earlier.facts, observer.progress))
            except Exception:
                earlier.check(folder, stage)  # a damaged file says more than what came of reading it
                raise
            earlier.check(folder, stage)
            interruption.check()
            outputs = tree_digests(scratch)
            _record_path(folder, stage.name).unlink(missing_ok=True)
            _install(scratch, folder)
            for name in set(before.outputs if before else ()) - set(outputs):
                if (place := inside(folder, name)).is_file():
                    place.unlink()
            facts = json.loads(json.dumps(result))
            record = Record(key, outputs, time.perf_counter() - start, facts)
            _write_record(folder, stage.name, record)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):  # keeps a folder that holds something
            partial.rmdir()
            partial.parent.rmdir()
    _drop_partial(own, stage.name)
    return record


@contextlib.contextmanager
def telling_full_disk(folder: Path) -> Iterator[None]:
    """Turns any failure on a full disk into one message: libraries tell it each in their own way."""
    try:
        yield
    except Exception as error:
        is_full = not isinstance(error, QhwError) and _free_bytes(folder) < LEAST_FREE_BYTES
        if is_full or _tells_full_disk(error):
            raise InputError(
                f"The disk that holds {folder} is full",
                hint="make room there; the same command goes on from the finished stages",
            ) from error
        raise


def _free_bytes(folder: Path) -> int:
    """Free space of the disk that holds a folder, or would: a build that came to nothing takes it with it."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


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
        place = inside(folder, entry.name)
        if place.is_dir():
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
    """Digests of those files that are there, none of them reached through a link."""
    places = {name: inside(folder, name) for name in names}
    return {name: file_digest(place) for name, place in places.items() if place.is_file()}


def _differing(folder: Path, files: Mapping[str, str]) -> list[str]:
    """The files that are missing, or are not as their digests say."""
    present = _present(folder, files)
    return [name for name, digest in files.items() if present.get(name) != digest]


# --- records ----------------------------------------------------------------------------------------


def _record_path(folder: Path, name: str) -> Path:
    return inside(folder, f"{MARKER}/stages/{name}.json")


def _write_record(folder: Path, name: str, record: Record) -> None:
    sealed = asdict(record) | {"seal": _seal_of(name, record)}
    write_atomically(_record_path(folder, name), json.dumps(sealed, indent=1))


def _seal_of(name: str, record: Record) -> str:
    return vouched.seal("stage record", name, json_digest(asdict(record)))


def read_record(folder: Path, name: str) -> Record | None:
    """This user's own record of a finished stage; None if it has not finished, or its record is another's."""
    record, seal = _stored_record(folder, name)
    if record is not None and vouched.vouches(seal, "stage record", name, json_digest(asdict(record))):
        return record
    return None


def _stored_record(folder: Path, name: str) -> tuple[Record | None, object]:
    """A record as it is stored, whoever made it, and its seal; None for one that is damaged."""
    try:
        stored = read_json(_record_path(folder, name), "stage record", MOST_RECORD_BYTES)
        seal = stored.pop("seal", None)
        record = Record(**stored)
        if not all(
            isinstance(text, str) for files in (record.outputs, record.kept) for text in _texts(files)
        ):
            return None, None
    except (InputError, ValueError, TypeError, AttributeError):
        return None, None
    return record, seal


def _texts(files: Mapping[str, str]) -> Iterator[object]:
    for pair in files.items():
        yield from pair


def check_written(folder: Path, *names: str) -> bool:
    """Check files of a build folder, whoever built it, against the digests in its records.

    Args:
        names: files, or folders with all that is recorded of them.

    Returns:
        Whether there are any.

    Raises:
        InputError: a file was changed, is missing, is a link, or has no record; it is named.
    """
    again = "run the same qhw build again: it writes what was changed"
    recorded = _recorded(folder)
    wanted = {name: recorded[name] for name in recorded if any(_is_of(name, given) for given in names)}
    if changed := _differing(folder, wanted):
        raise InputError(f"{folder / changed[0]} is missing, or is not what was written there", hint=again)
    for given in names:
        if inside(folder, given).exists() and not any(_is_of(name, given) for name in wanted):
            raise InputError(f"{folder / given} has no record of who wrote it", hint=again)
    return bool(wanted)


def _is_of(name: str, given: str) -> bool:
    return name == given or name.startswith(f"{given}/")


def _recorded(folder: Path) -> dict[str, str]:
    """The digests of all files of a build folder, by its records."""
    recorded: dict[str, str] = {}
    for path in sorted((folder / MARKER / "stages").glob("*.json")):
        record, _ = _stored_record(folder, path.stem)
        if record is None:
            raise InputError(f"The record {path} is damaged", hint="run the same qhw build again")
        recorded |= {**record.outputs, **record.kept}
    return recorded


def check_own(folder: Path, stage: str, added: Iterable[str]) -> None:
    """Check that this user built a stage's files, and changed none since the last build.

    Args:
        added: the files there that count, beside those that the stage wrote.

    Raises:
        InputError: somebody else built them, or a file was changed or added; it is named.
    """
    record = read_record(folder, stage)
    if record is None:
        path = _record_path(folder, stage)
        found = f" ({path} was made by somebody else, or changed)" if path.exists() else ""
        raise InputError(
            f"{folder} was not built here by you: nothing in it is executed{found}",
            hint="build it yourself, with the same qhw build; '@exact' and '@qonnx' read it as data",
        )
    files = {**record.outputs, **record.kept}
    changed = [*_differing(folder, files), *sorted(set(added) - set(files))]
    if changed:
        raise InputError(
            f"{folder / changed[0]} was changed after the last build",
            hint="run the same qhw build again: it keeps what was changed by hand, and verifies it; "
            "what is deleted, it writes again",
        )
