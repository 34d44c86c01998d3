"""The time of whole searches, by the README's command, and what their points are once they are built.

`qhw search` runs in a process of its own, from a float network that is trained in the same run, unless
trained weights are given (`--state`). Then points of the front are built by `qhw build --design`: every one
must have the front's resources, and no code may differ between the exact graph and the C-simulation.

    python benchmarks/search_time.py [digits-cnn] [resnet8] [--state resnet8.pt] [--evaluations 200]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "search_time.md"
RUNS = {
    "digits-cnn": ("digits", "ultra96", 5),
    "resnet8": ("fashion-mnist", "zcu104", 30),
}
"""By model: its data, its board, and the minutes that its front may take."""
BUILT = 3


def timed(*arguments: object) -> tuple[float, dict[str, Any]]:
    """Seconds of one command, process start included, and the document that it printed."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "qhw", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, json.loads(done.stdout)


def chosen(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points to build: the cheapest, the dearest, and those between at equal steps along the front."""
    places = {round(step * (len(points) - 1) / (BUILT - 1)) for step in range(BUILT)}
    return [points[place] for place in sorted(places)]


def built(front: Path, point: dict[str, Any], folder: Path) -> str:
    """A row of the table: a point of the front, built and compared with what the front says."""
    seconds, manifest = timed("build", "--design", f"{front}#{point['number']}", "--out", folder)
    estimated = manifest["resources"]["estimated"]
    assert estimated == point["resources"], (point["number"], estimated, point["resources"])
    last = manifest["verification"][-1]
    assert all(check["mismatches"] == 0 for check in manifest["verification"]), point["number"]
    formats = sorted(set(point["formats"].values()))
    row = (
        f"{point['number']}",
        f"{point['figure']:.2%}",
        f"{point['test']:.2%}",
        f"{estimated['lut']:,}",
        f"{len(formats)}: {', '.join(formats)}",
        f"{last['codes_compared']:,}",
        f"{last['mismatches']}",
        f"{seconds:.0f}",
    )
    return f"| {' | '.join(row)} |"


def section(model: str, state: Path | None, evaluations: int) -> list[str]:
    """A model's search, and its points."""
    data, board, minutes = RUNS[model]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "search"
        given = ("--state", state) if state else ()
        command = ("search", model, "--data", data, "--board", board, "--evaluations", evaluations)
        seconds, front = timed(*command, "--out", out, *given)
        points = front["points"]
        rows = [
            built(out / "front.json", point, Path(folder) / f"b{i}") for i, point in enumerate(chosen(points))
        ]
    said = " ".join(map(str, command))
    start = "from trained weights" if state else "training of the float network included"
    return [
        f"## {model}",
        "",
        f"`qhw {said}`: **{seconds / 60:.1f} minutes** in all, {start} (aim: {minutes}); "
        f"{front['seconds'] / 60:.1f} of them for {front['evaluations']} of {front['space_size']:.3g} "
        f"points, each judged on {front['held_out']['samples']:,} samples by the build's method "
        f"({front['methods'] or 'none'}). {os.cpu_count()} processors, mean load over the last 15 minutes "
        f"{os.getloadavg()[2]:.0f}. Front of {len(points)}; the float network has "
        f"{front['float']['test']:.2%} on the test split. "
        "Each point that was built has the front's resources, to the last LUT.",
        "",
        "| point | held out | test | LUT | formats | codes compared | differ | seconds to build |",
        "|---:|---:|---:|---:|---|---:|---:|---:|",
        *rows,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=f"of {', '.join(RUNS)}; all by default")
    parser.add_argument("--state", type=Path, help="trained weights of the one model that is searched")
    parser.add_argument("--evaluations", type=int, default=200)
    options = parser.parse_args()
    text = [
        "# The time of a search",
        "",
        "By `benchmarks/search_time.py`: one process, its default threads.",
        "",
    ]
    for model in options.models or RUNS:
        text += section(model, options.state, options.evaluations)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(text), encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
