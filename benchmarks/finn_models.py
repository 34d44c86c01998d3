"""Real networks through the FINN flow: which are carried, checked after every step, at which rates.

Each model runs in a process of its own with a time and a memory limit. Files and records are kept in a cache,
so that an interrupted run goes on where it stopped; a record counts as long as qhw's sources are the same.

    python benchmarks/finn_models.py [--only TEXT ...] [--without TEXT ...] [--again] [--report]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ != "__main__":  # run as a script, this folder is the first that is searched
    sys.path.insert(0, str(Path(__file__).parent))

from model_zoo import kept, place, run_apart, sources_digest
from zoo.entries import Entry
from zoo.finn_page import page
from zoo.finn_trial import run

FOLDER = Path(__file__).parent
RESULT = FOLDER / "results" / "finn_models.json"
PAGE = FOLDER.parent / "docs" / "finn_models.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "qhw" / "finn_models"

SOURCES = ("trained_nets", "package_data", "package_sources", "brevitas_nets", "torch_nets")
"""The modules of `zoo` whose models are tried."""

LEFT_OUT = ("vgg",)
"""Of Brevitas's examples: 10 to 15 billion multiply-accumulates and an hour each."""

Record = dict[str, Any]


def entries(cache: Path, only: list[str], without: list[str]) -> Iterator[Entry]:
    """Every model that is tried, its file to be had or not; float files are no quantised networks."""
    for source in SOURCES:
        for entry in importlib.import_module(f"zoo.{source}").entries(cache):
            chosen = not only or any(text in entry.name for text in only)
            if entry.make is None or entry.kind in ("float", "other") or not chosen:
                continue
            if not any(text in entry.name for text in (*LEFT_OUT, *without)):
                yield entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="models whose name holds one")
    parser.add_argument("--without", nargs="+", default=[], metavar="TEXT", help="models that are left out")
    parser.add_argument("--again", action="store_true", help="run what has a record of these sources, too")
    parser.add_argument("--report", action="store_true", help="write the page of the records that are there")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--results", type=Path, default=RESULT, help="JSON; the page is written beside it")
    options = parser.parse_args()
    listed = list(entries(options.cache, options.only, options.without))
    if options.report:
        records = [latest(entry, options.cache) for entry in listed]
    else:
        records = [tried(entry, options.cache, options.again) for entry in listed]
    write(records, options.results)


def latest(entry: Entry, cache: Path) -> Record:
    """The newest record of a model, of whatever sources."""
    path = place(cache, entry.name) / "record.json"
    if path.exists():
        found: Record = json.loads(path.read_text())
        older = found["sources"] != sources_digest("finn_trial.py")
        return found | ({"earlier": True} if older else {})
    return {"name": entry.name, "kind": entry.kind, "outcome": "not run", "note": "", "seconds": {}}


def tried(entry: Entry, cache: Path, again: bool) -> Record:
    """A model's record: the kept one, or a new one."""
    digest = sources_digest("finn_trial.py")
    record = None if again else kept(entry.name, cache, digest)
    if record is None:
        record = run_apart(entry, cache, digest, run)
    said = (record.get("reason") or record.get("note") or "")[:150]
    print(f"{record['outcome']:8} {entry.name}, {record['seconds'].get('all', 0)} s  {said}", flush=True)
    return record


def write(records: list[Record], results: Path = RESULT) -> None:
    """The records as JSON, and the page: in the docs, or beside other results."""
    stored = [{key: value for key, value in record.items() if key != "sources"} for record in records]
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    shown = PAGE if results == RESULT else results.with_suffix(".md")
    shown.write_text(page(stored), encoding="utf-8")


if __name__ == "__main__":
    main()
