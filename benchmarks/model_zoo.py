"""Every ONNX and QONNX model that packages hold, every network of Brevitas's examples and twenty common
networks through qhw: which work exactly, which are refused and why.

Each model runs in a process of its own with a time and a memory limit. Files and records are kept in a cache,
so that an interrupted run goes on where it stopped; a record counts as long as qhw's sources are the same.

    python benchmarks/model_zoo.py [--only TEXT ...] [--without SOURCE ...] [--again]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ != "__main__":  # run as a script, this folder is the first that is searched
    sys.path.insert(0, str(Path(__file__).parent))

from zoo.entries import Entry
from zoo.page import page
from zoo.trial import INTERPRETED_MACS, WRITTEN_MACS, run

FOLDER = Path(__file__).parent
RESULT = FOLDER / "results" / "model_zoo.json"
PAGE = FOLDER.parent / "docs" / "models.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "qhw" / "model_zoo"

SOURCES = {
    "package_data": "ONNX files that installed packages hold",
    "package_sources": "ONNX files of their source distributions",
    "brevitas_nets": "the networks of brevitas_examples",
    "torch_nets": "common torch networks through qhw.convert",
    "onnxruntime_nets": "common torch networks and float files, quantised by ONNX Runtime",
}
"""The modules of `zoo` that list models."""

SECONDS, BYTES = 900, 14 << 30
"""What one model may take."""

KEPT_BYTES = 100 << 20
"""Larger files are made again."""

Record = dict[str, Any]
Trial = Callable[[Entry, Path], Record]


def entries(cache: Path, sources: list[str]) -> Iterator[Entry]:
    """Every model of those sources."""
    for source in sources:
        yield from importlib.import_module(f"zoo.{source}").entries(cache)


def sources_digest(*more: str) -> str:
    """SHA-256 of qhw's Python files and of a benchmark's, ``more``: further ones of `zoo`."""
    import qhw

    own = (FOLDER / "zoo" / name for name in ("execution.py", "trial.py", *more))
    digest = hashlib.sha256()
    for path in (*sorted(Path(qhw.__file__).parent.rglob("*.py")), *own):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def place(cache: Path, name: str) -> Path:
    """A model's own folder in the cache."""
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    return cache / "models" / safe


def run_here(entry: Entry, folder: Path, trial: Trial) -> None:
    """One model in this process, within its limits; its record is left in its folder."""
    with (folder / "log.txt").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    made = folder / "model.onnx"
    if made.exists() and entry.make is not None and not entry.exported:
        entry = replace(entry, make=lambda folder: made)
    record = trial(entry, folder)
    (folder / "record.json").write_text(json.dumps(record, indent=1))
    shutil.rmtree(folder / "project", ignore_errors=True)
    if made.exists() and made.stat().st_size > KEPT_BYTES:
        made.unlink()


def run_apart(entry: Entry, cache: Path, digest: str, trial: Trial = run) -> Record:
    """One model in a process of its own: its record, or how the process ended.

    The process is a fork of this one, which has imported everything and computed nothing.
    """
    folder = place(cache, entry.name)
    folder.mkdir(parents=True, exist_ok=True)
    left = folder / "record.json"
    left.unlink(missing_ok=True)
    start = time.perf_counter()
    child = multiprocessing.get_context("fork").Process(target=run_here, args=(entry, folder, trial))
    child.start()
    child.join(SECONDS)
    ending = f"took more than {SECONDS} s" if child.is_alive() else f"ended with {child.exitcode}"
    child.kill()
    child.join()
    if left.exists():
        record: Record = json.loads(left.read_text())
    else:
        record = {
            "name": entry.name,
            "kind": entry.kind,
            "outcome": "crashed",
            "reason": ending,
            "seconds": {},
        }
    record["sources"] = digest
    record["seconds"]["all"] = round(time.perf_counter() - start, 1)
    left.write_text(json.dumps(record, indent=1))
    return record


def kept(name: str, cache: Path, digest: str, exact: bool = False) -> Record | None:
    """The record of an earlier run with the same sources; with any, where it worked and ``exact`` is set."""
    path = place(cache, name) / "record.json"
    if not path.exists():
        return None
    record: Record = json.loads(path.read_text())
    if record.get("sources") == digest:
        return record
    return record | {"earlier": True} if exact and record["outcome"] == "exact" else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", metavar="TEXT", help="models whose name holds one of these texts"
    )
    parser.add_argument("--without", nargs="+", default=[], choices=SOURCES, help="what is left out")
    parser.add_argument("--again", action="store_true", help="run what has a record of these sources, too")
    parser.add_argument(
        "--refused", action="store_true", help="keep what worked with earlier sources; the page counts it"
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--results", type=Path, default=RESULT, help="JSON; the page is written beside it")
    options = parser.parse_args()
    chosen = [source for source in SOURCES if source not in options.without]
    listed = [
        entry
        for entry in entries(options.cache, chosen)
        if not options.only or any(text in entry.name for text in options.only)
    ]
    write(run_all(listed, options.cache, options.again, options.refused), options.results)


def run_all(listed: list[Entry], cache: Path, again: bool = False, refused: bool = False) -> list[Record]:
    """The records of those models; kept ones are taken unless ``again``, exact ones always if ``refused``."""
    digest, records = sources_digest(), []
    for number, entry in enumerate(listed, 1):
        record = None if again else kept(entry.name, cache, digest, refused)
        if record is None:
            record = run_apart(entry, cache, digest)
        records.append({key: value for key, value in record.items() if key != "sources"})
        said = (record.get("reason") or record.get("note") or "")[:150]
        seconds = record["seconds"].get("all", 0)
        print(f"[{number}/{len(listed)}] {record['outcome']:8} {entry.name}, {seconds} s  {said}", flush=True)
    return records


def write(records: list[Record], results: Path = RESULT) -> None:
    """The records as JSON, and the page: in the docs, or beside other results."""
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    shown = PAGE if results == RESULT else results.with_suffix(".md")
    shown.write_text(page(records, INTERPRETED_MACS, WRITTEN_MACS), encoding="utf-8")


if __name__ == "__main__":
    main()
