"""Kills real builds at random moments and flips random bytes in their folders; compares what comes of it.

    python tests/fuzz/kills.py [--count 100] [--seed 0] [--compile]

A round either kills a build (kill -9, compilers included), or takes a finished one and runs the commands that
read it; before the next command one random byte of one random file of the folder is another. The same build
then has to end with the artefacts of an undisturbed one, or to name an artefact and be whole one run later.
What g++ made of the same files before is taken from a store, unless --compile is given.
Prints the counts as JSON; exits with 1 where a round ended otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qhw.pipeline.stages import tree_digests

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3))
"""
COMPILER = """#!/bin/sh
# g++, which remembers what it made of the same files: the last argument is the object file's name.
case "$*" in *" -c "*) ;; *) exec {compiler} "$@" ;; esac
for target; do :; done
files=$(find . -path ./csim -prune -o -type f -print | grep -v '\\.txt$' | sort)
key=$( (echo "${{*%$target}}"; sha256sum $files) | sha256sum | cut -c 1-64)
if [ -f "{store}/$key" ]; then
    sleep 0.2
    cp "{store}/$key" "$target"
else
    {compiler} "$@" && cp "$target" "{store}/$key.$$" && mv "{store}/$key.$$" "{store}/$key"
fi
"""
OPTIONS = ("--board", "ultra96", "--float-epochs", "6", "--quantised-epochs", "4", "--vectors", "8", "--json")
HEAVY = (
    "brevitas.nn",
    "hls4ml.model.graph",
    "jsonschema",
    "qonnx.core.onnx_exec",
    "qhw.convert",
    "qhw.export",
    "qhw.flows.hls4ml.extension",
    "qhw.graph.lower",
    "qhw.pipeline.run",
    "qhw.report.progress",
    "qhw.sim.fast",
    "qhw.train",
)
TIMES = ("seconds", "samples_per_second", "status")
"""Keys of JSON documents that are no part of a result."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative for a signal), and what it said."""

    code: int
    out: str
    said: str


@dataclass(frozen=True)
class Whole:
    """The results of a build that nothing disturbed."""

    folder: Path
    seconds: float
    artefacts: dict[str, str]
    results: dict[str, Any]


@dataclass
class Tally:
    """What came of the rounds, by kind; ``wrong`` tells of those that should not have ended so."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def warm_up() -> None:
    """Import what a build imports: the processes of the rounds are forked from this one."""
    for name in HEAVY:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)


def start(work: Path, *arguments: object) -> int:
    """Fork a process that runs the command line in ``work``, in a process group of its own; its number."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    os.chdir(work)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    code = 70
    try:
        from qhw.cli import main

        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, work: Path) -> Ended:
    """Wait for a process that :func:`start` has made."""
    _, status = os.waitpid(child, 0)
    texts = ((work / name).read_text(errors="replace") for name in ("stdout", "stderr"))
    return Ended(os.waitstatus_to_exitcode(status), *texts)


def run(work: Path, *arguments: object) -> Ended:
    """Run the command line to its end."""
    return ended(start(work, *arguments), work)


def build(work: Path) -> tuple[object, ...]:
    """The command that is killed, and repeated."""
    return ("build", "net.py:net", "--data", "data.npz", *OPTIONS, "--out", work / "out")


def prepare(work: Path) -> None:
    """Write the network and its data: small, so that a build takes seconds."""
    (work / "net.py").write_text(NET)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    images = np.clip(rng.normal(60 + 50 * labels[:, None, None, None], 40, (400, 1, 4, 4)), 0, 255)
    images = images.astype(np.uint8)
    arrays = {
        "train_x": images[:320],
        "train_y": labels[:320],
        "test_x": images[320:],
        "test_y": labels[320:],
    }
    np.savez(work / "data.npz", **arrays)


def artefacts(folder: Path) -> dict[str, str]:
    """Digests of what a build is for: without its log, records and programs, which tell of the run."""
    skipped = (".qhw/", "build.json", "project/csim/")
    return {name: digest for name, digest in tree_digests(folder).items() if not name.startswith(skipped)}


def results(document: Any) -> Any:
    """A JSON document without what tells of the run."""
    if isinstance(document, dict):
        return {key: results(value) for key, value in document.items() if key not in TIMES}
    return [results(value) for value in document] if isinstance(document, list) else document


def remember_compilations(work: Path) -> None:
    """Put a g++ in front that compiles the same files once."""
    (work / "bin").mkdir()
    (work / "store").mkdir()
    script = work / "bin" / "g++"
    script.write_text(COMPILER.format(compiler=shutil.which("g++"), store=work / "store"))
    script.chmod(0o755)
    os.environ["PATH"] = f"{script.parent}{os.pathsep}{os.environ['PATH']}"


def undisturbed(work: Path) -> Whole:
    """Build in peace, and keep the folder; the second time, when every compilation is remembered."""
    run(work, *build(work))
    shutil.rmtree(work / "out")
    began = time.monotonic()
    done = run(work, *build(work))
    if done.code:
        raise SystemExit(f"the undisturbed build ended with {done.code}: {done.said}")
    kept = work / "kept"
    (work / "out").rename(kept)
    return Whole(kept, time.monotonic() - began, artefacts(kept), results(json.loads(done.out)))


def flip(folder: Path, rng: random.Random) -> str | None:
    """Change one byte of one file, in any part of the folder alike; its name, None where there is no file."""
    parts: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size:
            parts.setdefault(path.relative_to(folder).parts[0], []).append(path)
    if not parts:
        return None
    path = rng.choice(parts[rng.choice(sorted(parts))])
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    path.write_bytes(content)
    return path.relative_to(folder).as_posix()


def names_one(said: str, folder: Path) -> bool:
    """Whether a message names a file of the folder, or the record of a stage."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return "its record was" in said or any(name in said for name in names)


def whole_again(work: Path, whole: Whole, flipped: str | None, tally: Tally) -> None:
    """Run the same build, once or (after it has named what is wrong) twice, and compare."""
    out = work / "out"
    done = run(work, *build(work))
    if is_whole(done, out, whole):
        tally.counts["whole after one run"] += 1
        return
    if not names_one(done.said, out):
        tally.wrong.append(f"after {flipped}: code {done.code}, and no artefact is named: {done.said[-600:]}")
        return
    # What looks like an edit by hand is kept and named; deleting it is how it is written again.
    if flipped is not None and flipped.startswith("project/"):
        (out / flipped).unlink(missing_ok=True)
    again = run(work, *build(work))
    if is_whole(again, out, whole):
        tally.counts["named, whole after two runs"] += 1
        return
    tally.wrong.append(f"after {flipped}: not whole after two runs, code {again.code}: {again.said[-600:]}")


def is_whole(done: Ended, out: Path, whole: Whole) -> bool:
    """Whether a build has ended with the results and the artefacts of the undisturbed one."""
    return (
        done.code == 0
        and results(json.loads(done.out)) == whole.results
        and artefacts(out) == whole.artefacts
    )


def killed_round(work: Path, whole: Whole, rng: random.Random, tally: Tally) -> None:
    """Kill a build at a random moment, flip a byte of what it left, and run it again."""
    shutil.rmtree(work / "out", ignore_errors=True)
    child = start(work, *build(work))
    time.sleep(rng.uniform(0.05, 1.1) * whole.seconds)
    os.killpg(child, signal.SIGKILL)
    tally.counts["killed" if ended(child, work).code == -signal.SIGKILL else "had ended"] += 1
    out = work / "out"
    flipped = flip(out, rng) if out.is_dir() else None
    tally.counts["byte flipped"] += flipped is not None
    whole_again(work, whole, flipped, tally)


def finished_round(
    work: Path, whole: Whole, answers: dict[str, Any], rng: random.Random, tally: Tally
) -> None:
    """Flip a byte of a finished build, and run the commands that read one; then build again."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(whole.folder, out)
    flipped = flip(out, rng)
    tally.counts["byte flipped"] += 1
    for name, command in readers(work).items():
        done = run(work, *command)
        if done.code == 0 and results(json.loads(done.out)) == answers[name]:
            tally.counts[f"{name}: same answer"] += 1
        elif done.code in (1, 2) and names_one(done.said, out) and "Traceback" not in done.said:
            tally.counts[f"{name}: names the damage"] += 1
        else:
            tally.wrong.append(f"{name} after {flipped}: code {done.code}: {(done.out + done.said)[-600:]}")
    whole_again(work, whole, flipped, tally)


def readers(work: Path) -> dict[str, tuple[object, ...]]:
    """The commands that read a build folder."""
    out = work / "out"
    return {
        "simulate": ("simulate", out, "--json"),
        "diff": ("diff", out, f"{out}@exact", "--json"),
        "cost": ("cost", out, "--json"),
    }


def campaign(count: int, seed: int, work: Path, compiles: bool = False) -> Tally:
    """Rounds of both kinds in the folder ``work``: ``count`` of each.

    Args:
        seed: decides which bytes, and at which share of a build's time it is killed.
        compiles: compile each time, also what was compiled before.
    """
    rng, tally = random.Random(seed), Tally()
    warm_up()
    prepare(work)
    if not compiles:
        remember_compilations(work)
    whole = undisturbed(work)
    shutil.copytree(whole.folder, work / "out")
    answers = {name: results(json.loads(run(work, *command).out)) for name, command in readers(work).items()}
    for index in range(count):
        killed_round(work, whole, rng, tally)
        finished_round(work, whole, answers, rng, tally)
        print(f"round {index + 1} of {count}: {len(tally.wrong)} wrong", file=sys.stderr, flush=True)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="rounds of either kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile each time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tally = campaign(options.count, options.seed, Path(name), options.compile)
    print(json.dumps({"seed": options.seed, "counts": dict(tally.counts), "wrong": tally.wrong}, indent=1))
    raise SystemExit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()
