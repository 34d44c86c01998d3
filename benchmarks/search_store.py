"""How long the record of a search takes: a trial's two transactions, and opening a study of 10,000 trials.

The space has 20 variables with 17 formats each. Optuna's own interface writes and reads the same for
comparison: ``enqueue_trial``, ``ask``, an attribute at a time, ``tell``. Wall times are medians, for other
work on the machine makes some of them long; beside them is the processor time of this process alone.

    python benchmarks/search_store.py
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import optuna
from rich.console import Console
from rich.progress import track

from qhw.search.space import WEIGHTS, Point, Space, Variable
from qhw.search.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import postgresql_server

RESULT = Path(__file__).parent / "results" / "search_store.md"
TRIALS, WINDOW, OPTUNAS = 10_000, 500, 50
SPACE = Space(tuple(Variable(f"layer{k}.weights", "weights", (f"layer{k}",), WEIGHTS) for k in range(20)))
IDENTITY = {"space": SPACE.to_mapping(), "evaluator": "calibrated", "seed": 0}
COSTS = {"lut": 31_415, "ff": 9_265, "dsp": 35, "bram18": 89}
FACTS = {
    "figure": 0.913,
    "low": 0.9,
    "high": 0.925,
    "seconds": 1.5,
    "evaluator": "calibrated",
    "costs": COSTS,
}

Times = list[tuple[float, float]]


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a clock, and of this process."""
    wall, own = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - own


def told(times: Times) -> str:
    """Times as the table has them, in milliseconds."""
    wall, own = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    return f"{wall:.1f} ({own:.1f})"


def trial(store: Store, point: Point) -> None:
    store.finish(store.begin(point), 1.5, 0.913, FACTS)


def optunas_trial(study: optuna.Study, point: Point) -> None:
    distributions = {v.name: optuna.distributions.CategoricalDistribution(v.options) for v in SPACE.variables}
    study.enqueue_trial(SPACE.formats(point))
    asked = study.ask(distributions)
    for key, value in FACTS.items():
        asked.set_user_attr(key, value)
    study.tell(asked, [1.5, 0.913])


def measured(name: str, where: str, url: str) -> list[str]:
    """One row of the table."""
    points = SPACE.sample(np.random.default_rng(0), TRIALS + OPTUNAS)
    with Store.open(where, "s", IDENTITY) as store:
        times = [timed(lambda: trial(store, point)) for point in track(points[:TRIALS], name)]  # noqa: B023
    opening = [timed(lambda: Store.open(where, "s", IDENTITY, resume=True).close()) for _ in range(3)]
    study = optuna.load_study(study_name="s", storage=url)
    reading = timed(lambda: study.trials)
    asking = [timed(lambda: optunas_trial(study, point)) for point in points[TRIALS:]]  # noqa: B023
    return [
        name,
        *(told(times[:WINDOW]), told(times[-WINDOW:]), told(asking)),
        *(told(opening), told([reading])),
    ]


@contextmanager
def databases() -> Iterator[list[tuple[str, str, str]]]:
    """SQLite, and a server of PostgreSQL where it is installed: name, place, and URL for Optuna."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "search.db"
        sqlite = ("SQLite", str(file), f"sqlite:///{file}")
        if reason := postgresql_server.missing():
            Console().print(reason)
            yield [sqlite]
            return
        with postgresql_server.running() as server:
            url = server.url.replace("postgresql", "postgresql+psycopg")
            yield [sqlite, ("PostgreSQL", server.url, url)]


def main() -> None:
    """Measure and write the table."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with databases() as found:
        rows = [measured(*database) for database in found]
    load = os.getloadavg()[2]
    heads = [
        *("store", f"a trial, first {WINDOW}", f"a trial, last {WINDOW} of {TRIALS:,}"),
        *(
            f"by Optuna's interface, behind {TRIALS:,}",
            f"opening with {TRIALS:,}",
            "`study.trials` by Optuna",
        ),
    ]
    lines = [
        "# The record of a search",
        "",
        "Milliseconds, medians; in brackets the processor time of this process alone. "
        f"{len(SPACE.variables)} variables of {len(WEIGHTS)} formats, {len(FACTS)} facts a trial. A trial is "
        "begun and finished; each of the two is on the disk before it counts. Mean load of the machine's "
        f"{os.cpu_count()} processors over the last 15 minutes: {load:.0f}.",
        "",
        f"| {' | '.join(heads)} |",
        f"|---|{'---:|' * (len(heads) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    RESULT.write_text("\n".join(lines))
    Console().print(RESULT.read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    main()
