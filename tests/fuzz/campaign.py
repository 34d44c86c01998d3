"""Gives thousands of damaged files to the command line: each must be taken or refused in one clear message.

Of each case (``cases.py``) is recorded how it ended:

- ``ok``: exit code 0; a model that lowers gives the same codes by both executors;
- ``refused``: one message and exit code 1 or 2;
- ``blanket``: refused, by a message that stands for any exception of the reader's own;
- ``traceback``, ``memory``, ``hang``, ``killed``, ``inexact``, ``message`` (empty, long, several, or with
  control characters): faults. Each is stored with the command that runs it again.

A case is a function of its kind, the seed and its number; a campaign that was stopped goes on.

    python -m tests.fuzz.campaign --kind onnx --count 10000 --jobs 2 --results /tmp/fuzz
    python -m tests.fuzz.campaign --kind onnx --only 1234 --results /tmp/fuzz
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import json
import multiprocessing
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from qhw.pipeline.build_stages import source_digest

from . import seeds
from .cases import Case, case
from .seeds import KINDS as KINDS_OF_GRAPHS

ROOT = Path(__file__).parents[2]
FAULTS = ("traceback", "memory", "hang", "killed", "inexact", "message")
KINDS = ("onnx", "files")
LONGEST_MESSAGE = 5000
LAST_STAGE = "project"
BLANKET = ("The model is damaged: ", "is not as ONNX or QONNX define it: ", "holds no valid exact graph: ")
"""Words of messages that stand for any exception of a reader's own."""

Record = dict[str, Any]

_WARNING = re.compile(r"^\S+\.py:\d+: \w*Warning.*", re.MULTILINE)


# --- one case, in a process of its own ---


def _run(arguments: tuple[str, ...]) -> None:
    """The command line as a user meets it, in this process; a build stops once its project is written."""
    from qhw import cli

    if arguments[0] == "read":
        _read(arguments[1], Path(arguments[2]))
    if arguments[0] == "build":
        _stop_at_project()
    cli.main(list(arguments))


def _read(kind: str, path: Path) -> None:
    """A reader that no command reaches with a user's file, with the command line's messages."""
    import typer

    from qhw import cli
    from qhw.cost.calibration import measured, model_file

    try:
        with cli._command(False):
            {"measured": measured.read, "model": model_file.read}[kind](path)
    except typer.Exit as exit_:
        raise SystemExit(exit_.exit_code) from None
    raise SystemExit(0)


def _stop_at_project() -> None:
    from qhw.pipeline import run

    whole = run.run_stages

    def some(folder: Path, stages: Any, *more: Any) -> Any:
        names = [stage.name for stage in stages]
        if stages[0].name != "import":  # a model that would have to be trained
            raise SystemExit(0)
        return whole(folder, stages[: names.index(LAST_STAGE) + 1], *more)

    run.run_stages = some


def _outcome(arguments: tuple[str, ...], is_exact: bool) -> Record:
    """Run a command in this process, which is the case's own, and judge how it ended."""
    start = time.monotonic()
    code, error = _caught(lambda: _run(arguments))
    sys.stdout.flush()
    sys.stderr.flush()
    record: Record = {"code": code, "seconds": round(time.monotonic() - start, 2)}
    message = Path("stderr").read_text(errors="replace")
    record["message"] = message[-2000:]
    if error is not None:
        record |= {"outcome": _kind_of(error), "group": _group(error)}
    elif code == 0 or (code == 1 and arguments[0] == "diff" and not message and not is_exact):
        record |= _shown(Path("stdout").read_text(errors="replace"), message)
    elif is_exact and code == 1:
        record |= {"outcome": "inexact", "message": Path("stdout").read_text(errors="replace")[-2000:]}
    else:
        record |= _judged(message, code, arguments)
    return record


def _caught(run: Callable[[], None]) -> tuple[int | None, BaseException | None]:
    """The exit code, or the exception that a user would see."""
    try:
        run()
    except SystemExit as exit_:
        return (exit_.code or 0) if isinstance(exit_.code, int | None) else 1, None
    except BaseException as error:
        return None, error
    return 0, None


def _shown(text: str, message: str) -> Record:
    """Whether a terminal may be given what a command printed."""
    wrong = sorted({c for c in text if not c.isprintable() and c not in "\n\t"})
    warned = _WARNING.search(message)
    if wrong or warned:
        return {"outcome": "message", "group": f"stdout: {wrong}" if wrong else warned[0][:80]}  # type: ignore[index]
    return {"outcome": "ok"}


def _judged(message: str, code: int | None, arguments: tuple[str, ...]) -> Record:
    """Whether a refusal is one clear message, and what stands behind it."""
    text = message.partition("Error: ")[2].strip()
    wrong = [
        name
        for name, is_wrong in {
            "empty": not text,
            "several": sum(line.startswith("Error: ") for line in message.splitlines()) > 1,
            "long": len(message) > LONGEST_MESSAGE,
            "control characters": any(not c.isprintable() and c not in "\n\t" for c in message),
            f"exit code {code}": code not in (1, 2),
            "traceback": "Traceback (most" in message,
            "a warning of Python's": _WARNING.search(message),
        }.items()
        if is_wrong
    ]
    _, error = _caught(lambda: _run((*arguments, "--debug"))) if arguments[0] != "read" else (None, None)
    cause = _cause(error)
    if "not enough memory" in text or "bad_alloc" in message or isinstance(cause, MemoryError):
        return {"outcome": "memory", "group": _group(error) if error else text[:80]}
    if "This is a fault of qhw" in text:
        return {"outcome": "traceback", "group": _group(error) if error else text[:80]}
    if wrong:
        return {"outcome": "message", "group": f"{wrong[0]}: {text[:60]!r}"}
    if cause is not None and any(words in text for words in BLANKET):
        return {"outcome": "blanket", "group": _group(cause)}
    return {"outcome": "refused", "group": ""}


def _cause(error: BaseException | None) -> BaseException | None:
    """What an error was made from, if from another."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
        if not type(error).__module__.startswith("qhw"):
            return error
    return None


def _kind_of(error: BaseException) -> str:
    return "memory" if isinstance(error, MemoryError) or "bad_alloc" in str(error) else "traceback"


def _group(error: BaseException) -> str:
    """The exception and where it was raised: the last lines of qhw, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/qhw/" in f.filename][-2:]
    lines = [f"{f.filename.rpartition('/qhw/')[2]}:{f.lineno} {f.name}" for f in own]
    last = str(error).strip().splitlines()[0][:80] if str(error).strip() else ""
    return f"{type(error).__name__} {' < '.join(reversed(lines))} | {last}"


def _limited(megabytes: int) -> None:
    """Let this process have so much more memory than it has now, and write no core."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bytes_ = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (bytes_, bytes_))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_case(
    kind: str, seed: int, index: int, where: Path, folder: Path, limit_mb: int, seconds: int
) -> Record:
    """Make a case in a folder and run it there, in a child of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(lambda: case(kind, seed, index, where, folder), folder, limit_mb, writing)
    os.close(writing)
    record = _awaited(child, reading, seconds)
    os.close(reading)
    told = folder / "case.json"
    made = json.loads(told.read_text()) if told.exists() else {"arguments": [], "told": "not made"}
    return {"kind": kind, "index": index, **made, "group": ""} | record


def _child(make: Callable[[], Case], folder: Path, limit_mb: int, writing: int) -> None:
    """Never returns."""
    try:
        os.setsid()
        os.chdir(folder)
        made = make()
        Path("case.json").write_text(json.dumps({"arguments": made.arguments, "told": made.told}))
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(os.fdopen(n, "wb", closefd=False), encoding="utf-8") for n in (1, 2)
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _limited(limit_mb)
        record = _outcome(made.arguments, made.is_exact)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        record["grown_mb"] = grown >> 10
        os.write(writing, json.dumps(record).encode())
    except BaseException as error:
        os.write(
            writing, json.dumps({"outcome": _kind_of(error), "group": f"in the campaign: {error!r}"}).encode()
        )
    finally:
        os._exit(0)


def _awaited(child: int, reading: int, seconds: int) -> Record:
    """What a child writes; it and its own children are ended after some time."""
    parts, end = [], time.monotonic() + seconds
    while select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reading, 1 << 16)
        if not part:
            break
        parts.append(part)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return {"outcome": "hang", "seconds": seconds}
    _, status = os.waitpid(child, 0)
    if not parts:
        return {"outcome": "killed", "group": f"wait status {status}"}
    record: Record = json.loads(b"".join(parts))
    return record


# --- a campaign ---

WARM = (
    ("diff", "small.onnx", "small.onnx@interpreter", "--samples", "2", "--json"),
    ("diff", "small.onnx", "small.onnx@qonnx", "--samples", "2"),
    ("simulate", "small.onnx", "--data", "data.npz", "--json"),
    ("simulate", "build", "--backend", "csim", "--samples", "2"),
    ("cost", "small.onnx", "--board", "zcu102"),
    ("boards", "board.toml"),
    ("build", "--config", "config.toml"),
)
"""Commands that between them import what any command of a campaign does."""


def warm(where: Path) -> None:
    """Import here what commands import, so that the children of this process have it already."""
    with tempfile.TemporaryDirectory() as folder:
        for path in where.iterdir():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, Path(folder) / path.name)
        for arguments in WARM:
            for name in _imported(arguments, Path(folder)):
                with contextlib.suppress(Exception):  # some can only be imported by their own package
                    importlib.import_module(name)
    gc.freeze()  # so that collections in children copy no pages


def _imported(arguments: tuple[str, ...], folder: Path) -> list[str]:
    """The modules that a command imports in a child of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            os.chdir(folder)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            before = set(sys.modules)
            _caught(lambda: _run(arguments))
            with os.fdopen(writing, "w") as stream:
                json.dump([name for name in sys.modules if name not in before], stream)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    names: list[str] = json.loads(text)
    return names


def prepared(results: Path) -> Path:
    """The folder of seeds in a folder of results, made where this version of qhw has made none."""
    where = results / "seeds"
    done = where / "seeds.json"
    made_by = {"qhw": source_digest()}
    if not done.exists() or json.loads(done.read_text()) != made_by:
        shutil.rmtree(where, ignore_errors=True)
        seeds.write(where)
        done.write_text(json.dumps(made_by))
    return where


def _one(job: tuple[str, int, int, Path, int, int]) -> Record:
    """A case in a pool's process; its files are kept where it shows a fault."""
    kind, seed, index, results, limit_mb, seconds = job
    with tempfile.TemporaryDirectory(prefix="qhw-fuzz-") as folder:
        record = run_case(kind, seed, index, results / "seeds", Path(folder), limit_mb, seconds)
        if record["outcome"] in FAULTS:
            kept = results / "faults" / f"{kind}-{seed}-{index}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
            again = [
                "python",
                "-m",
                "tests.fuzz.campaign",
                "--kind",
                kind,
                "--seed",
                str(seed),
                "--only",
                str(index),
            ]
            record["again"] = " ".join(again)
            (kept / "record.json").write_text(json.dumps(record, indent=1, ensure_ascii=False))
    return record | {"seed": seed}


def campaign(
    counts: Mapping[str, int],
    seed: int,
    results: Path,
    *,
    jobs: int = 1,
    limit_mb: int = 2500,
    seconds: int = 60,
) -> Iterator[Record]:
    """Records of the cases 0 to count - 1 of every kind: those on file first, then the others as they end."""
    results.mkdir(parents=True, exist_ok=True)
    where, log = prepared(results), results / f"{source_digest()[:12]}.jsonl"
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {
        (record["kind"], record["index"]): record
        for record in known
        if record["seed"] == seed and record["index"] < counts.get(record["kind"], 0)
    }
    yield from done.values()
    wanted = [(kind, index) for kind, count in counts.items() for index in range(count)]
    left = [
        (kind, seed, index, results.resolve(), limit_mb, seconds)
        for kind, index in wanted
        if (kind, index) not in done
    ]
    if not left:
        return
    context = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(jobs, context, initializer=warm, initargs=(where,)) as pool,
        log.open("a") as stream,
    ):
        for record in pool.map(_one, left, chunksize=4):
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            yield record


def summary(records: list[Record]) -> Record:
    """Counts by outcome, and by group of those that are not plain."""
    slowest = sorted(records, key=lambda r: -r.get("seconds", 0))[:3]
    largest = sorted(records, key=lambda r: -r.get("grown_mb", 0))[:3]
    groups = {
        outcome: dict(Counter(r["group"] for r in records if r["outcome"] == outcome).most_common(60))
        for outcome in (*FAULTS, "blanket")
    }
    return {
        "cases": len(records),
        "outcomes": dict(Counter(r["outcome"] for r in records)),
        "slowest": [[r["kind"], r["index"], r.get("seconds")] for r in slowest],
        "largest": [[r["kind"], r["index"], r.get("grown_mb")] for r in largest],
        "groups": {outcome: found for outcome, found in groups.items() if found},
    }


def graphs(count: int, jobs: int, results: Path) -> int:
    """The random graphs of ``benchmarks``: file = exact graph = fast executor, and some C-simulations."""
    stored = str(results / f"graphs-{source_digest()[:12]}")
    files = ("--count", str(-(-count // len(KINDS_OF_GRAPHS))), "--jobs", str(jobs), "--results", stored)
    projects = ("--seeds", "0-1", "--branches", str(max(2, min(20, count // 100))))
    return max(
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / name), *more], check=False).returncode
        for name, more in (("random_files.py", files), ("hls4ml_random.py", projects))
    )


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = (*KINDS, "graphs", "all")
    parser.add_argument("--kind", choices=kinds, action="append", help="more than once: each  [default: all]")
    parser.add_argument("--count", type=int, default=1000, help="cases of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", type=int, help="this case of the kind alone; its files stay in RESULTS/only"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit-mb", type=int, default=2500, help="memory of a case")
    parser.add_argument("--seconds", type=int, default=60, help="time of a case")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir()) / "qhw-fuzz")
    parser.add_argument("--json", action="store_true", help="nothing on stderr")
    return parser.parse_args(given)


def alone(options: argparse.Namespace) -> int:
    """One case, whose files stay."""
    folder = options.results / "only"
    where = prepared(options.results)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    places = where.resolve(), folder.resolve()
    record = run_case(options.kind[0], options.seed, options.only, *places, options.limit_mb, options.seconds)
    print(json.dumps(record, indent=1, ensure_ascii=False))
    print(f"cd {folder.resolve()} && qhw {' '.join(record['arguments'])}")
    return int(record["outcome"] in FAULTS)


def told(record: Record, count: int, start: float) -> None:
    """A fault as it is found, and how far the campaign is."""
    if record["outcome"] in FAULTS:
        text = f"{record['kind']} {record['index']}: {record['outcome']} {record['group']}"
        print(text[:300], file=sys.stderr, flush=True)
    if count % 500 == 0:
        print(f"{count} cases, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    if options.only is not None:
        return alone(options)
    wanted = set(options.kind or ["all"])
    kinds = [kind for kind in KINDS if wanted & {kind, "all"}]
    records: list[Record] = []
    start, code = time.monotonic(), 0
    if kinds:
        limits = {"jobs": options.jobs, "limit_mb": options.limit_mb, "seconds": options.seconds}
        counts = dict.fromkeys(kinds, options.count)
        for record in campaign(counts, options.seed, options.results, **limits):
            records.append(record)
            if not options.json:
                told(record, len(records), start)
        print(json.dumps(summary(records), indent=1, ensure_ascii=False))
    if wanted & {"graphs", "all"}:
        code = graphs(options.count, options.jobs, options.results)
    return max(code, int(any(record["outcome"] in FAULTS for record in records)))


if __name__ == "__main__":
    sys.exit(main())
