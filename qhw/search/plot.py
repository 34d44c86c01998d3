"""The front as a picture, and while a search runs in a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qhw.errors import ToolMissingError
from qhw.report.charts import as_altair, front_chart
from qhw.search.pareto import front as front_of
from qhw.search.strategies.base import Trial


def save(chart: Any, place: Path) -> Path:
    """Write a chart as a PNG.

    Raises:
        ToolMissingError: vl-convert is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise ToolMissingError(
            "Pictures need vl-convert-python, which is not installed", hint="pip install vl-convert-python"
        ) from None
    place.write_bytes(vl_convert.vegalite_to_png(chart.to_dict(), scale=2))
    return place


def live_plot(against: str) -> Callable[[Sequence[Trial]], None] | None:
    """In a notebook, a picture of the front that grows with each trial; None elsewhere."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    if shell is None or type(shell).__name__ != "ZMQInteractiveShell":
        return None
    from IPython.display import display

    handle: list[Any] = []
    drawn = [0.0, 0]

    def watch(trials: Sequence[Trial]) -> None:
        if time.monotonic() - drawn[0] < _LIVE_SECONDS and len(trials) < 2 * drawn[1]:
            return
        good = [trial for trial in trials if trial.fits and np.isfinite(trial.quality)]
        places = front_of([t.cost for t in good], [t.quality for t in good])
        rows = [{"cost": good[i].cost, "figure": good[i].quality, "kind": "mixed"} for i in places]
        tried = [(trial.cost, trial.quality) for trial in good if np.isfinite(trial.cost)]
        metric = {"name": "quality", "is_share": False}
        title = f"{len(trials)} points evaluated"
        picture = as_altair(front_chart(rows, tried, against, metric, title=title))
        if handle:
            handle[0].update(picture)
        else:
            handle.append(display(picture, display_id=True))  # type: ignore[no-untyped-call]
        drawn[:] = time.monotonic(), len(trials)

    return watch


_LIVE_SECONDS = 1.0
"""Time between two pictures, unless there are twice as many points."""
