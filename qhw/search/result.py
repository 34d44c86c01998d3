"""What a search found, as a terminal and a notebook show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qhw.report import FILE_NAME as REPORT
from qhw.report.tables import Cell, Shown, Table, size_text
from qhw.search.front import FILE_NAME, Front
from qhw.search.strategies.base import Trial

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class SearchResult(Shown):
    """A finished search.

    Args:
        folder: where ``front.json`` and the models of its points are.
        front: the document.
        trials: all points that were evaluated.
    """

    folder: Path
    front: Front
    trials: tuple[Trial, ...] = ()

    @property
    def file(self) -> Path:
        """The front."""
        return self.folder / FILE_NAME

    def to_json(self) -> dict[str, Any]:
        """The front as JSON values."""
        return dict(self.front)

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per point of the front: formats, costs and figures."""
        from qhw.report.frames import frame

        left_out = ("folding",)
        return frame([{n: v for n, v in p.items() if n not in left_out} for p in self.front["points"]])

    @property
    def report(self) -> Path:
        """The page that shows the front: ``report.html``, which opens offline."""
        return self.folder / REPORT

    @property
    def tried(self) -> list[tuple[float, float]]:
        """Cost and figure of every point that was evaluated and fits."""
        return tried_of(self.front, self.trials)

    def plot(self) -> Any:
        """The front and all points that were evaluated, as an Altair chart.

        Raises:
            ToolMissingError: altair is not installed.
        """
        from qhw.report.charts import as_altair
        from qhw.report.search_page import front_spec

        title = f"{self.front['model']} on {self.front['board']} ({self.front['flow']})"
        return as_altair(front_spec(self.front, self.tried, title=title))

    def save_plot(self) -> Path:
        """Write the plot as ``front.png`` beside the front.

        Raises:
            ToolMissingError: altair or vl-convert is not installed.
        """
        from qhw.search.plot import save

        return save(self.plot(), self.folder / "front.png")

    def tables(self) -> list[Table]:
        """The front, cheapest first."""
        return [self.table_of(self.front)]

    @staticmethod
    def table_of(front: Front) -> Table:
        """The front of a document, cheapest first."""
        against, share = front["against"], front["metric"]["is_share"]
        there = front["points"][0]["resources"] if front["points"] else {}
        resources = [name for name in _RESOURCES if name in there and name != against]
        columns = ("#", front["metric"]["name"], "95 %", "test", against.upper(), *map(str.upper, resources))
        rows = tuple(
            (
                point["number"],
                _figure(point["figure"], share),
                f"{_figure(point['low'], share)}–{_figure(point['high'], share)}",
                _figure(point["test"], share),
                _cost(against, point["cost"]),
                *(point["resources"][name] for name in resources),
                f"{point['throughput_fps']:,.0f}",
                _formats(point["formats"]),
            )
            for point in front["points"]
        )
        float_figure = _figure(front["float"]["held_out"], share)
        rate = f"{front['fps']:,.0f} images/s ({front['fps_from']})" if front["fps"] else "as fast as fits"
        note = (
            f"{front['metric']['name']} on {front['held_out']['samples']:,} samples held out of the training "
            f"split (float {float_figure}), with its 95 % interval; test: on the test split, afterwards\n"
            f"{rate}, {front['budget']:.0%} of {front['board']} at most; {front['evaluations']} of "
            f"{size_text(front['space_size'])} points evaluated by {front['evaluator']} "
            f"({front['strategy']})\n"
            "formats: of weights | of results, in the network's order; a number is the bits of fixed point\n"
            f"cost model: {front['cost_model']}{_error(front['lut_error'])}"
        )
        title = f"Pareto front of {front['model']} on {front['board']} ({front['flow']})"
        return Table(title, (*columns, "images/s", "formats"), rows, note, spare=("95 %", "images/s"))


_RESOURCES = ("lut", "dsp", "bram18", "sram", "flash")
"""Resources that the table of a front shows, where the board has them."""


def tried_of(front: Front, trials: Sequence[Trial]) -> list[tuple[float, float]]:
    """Cost and figure of every point that was evaluated and fits."""
    sign = 1 if front["metric"]["higher_is_better"] else -1
    good = (
        trial for trial in trials if trial.fits and np.isfinite(trial.cost) and np.isfinite(trial.quality)
    )
    return [(trial.cost, sign * trial.quality) for trial in good]


def _figure(value: float, is_share: bool) -> str:
    return f"{value:.2%}" if is_share else f"{value:.4g}"


def _cost(against: str, value: float) -> Cell:
    if against == "share":
        return f"{value:.1%}"
    return int(value) if float(value).is_integer() else round(value, 2)


def _error(error: dict[str, float] | None) -> str:
    if error is None:
        return ""
    return (
        f"; LUT of its worst unit: {error['median']:.1f} % median, {error['p95']:.1f} % 95th percentile error"
    )


def _formats(formats: dict[str, str]) -> str:
    """Formats of weights, then of results, in the order of the network."""
    kinds = {"weights": [], "activations": []}  # type: dict[str, list[str]]
    for name, text in formats.items():
        kinds[name.rpartition(".")[2]].append(
            text.replace("fixed", "").strip("<>") if "fixed" in text else text
        )
    return " | ".join(" ".join(texts) for texts in kinds.values() if texts)
