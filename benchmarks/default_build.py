"""The default build from nothing, stage by stage; the same build again; and how fast the command line starts.

python benchmarks/default_build.py [--board ultra96] [MODEL]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "default_build.md"
STARTS = 9


def timed(*arguments: str) -> tuple[float, str]:
    """Seconds of one command, process start included, and its standard output."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "qhw", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return time.perf_counter() - start, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="digits-cnn")
    parser.add_argument("--board", default="ultra96")
    options = parser.parse_args()
    help_seconds = statistics.median(timed("--help")[0] for _ in range(STARTS))
    with tempfile.TemporaryDirectory() as folder:
        command = ["build", options.model, "--board", options.board, "--out", f"{folder}/out", "--json"]
        first, document = timed(*command)
        again, _ = timed(*command)
    manifest = json.loads(document)
    rows = [("qhw --help, median of " + str(STARTS), help_seconds), ("the whole build", first)]
    rows += [(f"  of which {stage['name']}", stage["seconds"]) for stage in manifest["stages"]]
    rows += [("the same build again, nothing changed", again)]
    accuracy = manifest["accuracy"]
    text = "\n".join(
        [
            f"`qhw build {options.model} --board {options.board}` on {os.cpu_count()} processors.",
            "",
            "| what | seconds |",
            "|---|---|",
            *(f"| {name} | {seconds:.2f} |" for name, seconds in rows),
            "",
            f"Accuracy {accuracy['quantised']:.2%}, float {accuracy['float']:.2%}, on {accuracy['samples']} "
            f"samples of the {accuracy['split']} split.",
            "",
        ]
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
