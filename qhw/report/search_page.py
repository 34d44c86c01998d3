"""report.html of a search: the front, to be pointed at, and the command that builds each of its points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qhw.report.charts import Spec, front_chart
from qhw.report.page import chart, rendered
from qhw.report.tables import cell_text, size_text

Front = dict[str, Any]
Tried = Sequence[tuple[float, float]]


def search_page(front: Front, tried: Tried) -> str:
    """The page of a search.

    Args:
        front: the document of front.json.
        tried: cost and figure of every point that was evaluated.

    Raises:
        ToolMissingError: vl-convert is not installed.
    """
    from qhw.search.result import SearchResult

    table = SearchResult.table_of(front)
    points = front["points"]
    return rendered(
        "search.html",
        kind=f"qhw search --flow {front['flow']}",
        title=f"{front['model']} on {front['board']}",
        subtitle=f"{front['part']} at {front['clock_mhz']:g} MHz",
        tiles=_tiles(front),
        about=_about(front),
        front_plot=chart("front-plot", front_spec(front, tried, "container")),
        command=points[-1]["command"] if points else "",
        columns=table.columns,
        spare=table.spare,
        points=[
            {"command": point["command"], "cells": [cell_text(cell) for cell in row]}
            for point, row in zip(points, table.rows, strict=True)
        ],
        note=table.note,
        made=_made(front),
    )


def front_spec(front: Front, tried: Tried, width: int | str = 640, title: str = "") -> Spec:
    """The front of a document as a plot."""
    rows = [_row(point) for point in front["points"]]
    return front_chart(
        rows,
        tried,
        front["against"],
        front["metric"],
        float_figure=front["float"]["held_out"],
        title=title,
        width=width,
    )


_RESOURCES = ("lut", "dsp", "sram", "flash")
"""Resources that a point of the plot tells."""


def _row(point: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: point[name] for name in ("number", "cost", "figure", "low", "high", "test", "command")},
        **{name: point["resources"][name] for name in _RESOURCES if name in point["resources"]},
        "rate": point["throughput_fps"],
        "formats": ", ".join(f"{name} {text}" for name, text in point["formats"].items()),
        "kind": "one format" if point["uniform"] else "mixed",
    }


def _tiles(front: Front) -> list[dict[str, str]]:
    share, points = front["metric"]["is_share"], front["points"]
    form = ".2%" if share else ".4g"
    tiles = [
        {
            "figure": f"{len(points)}",
            "name": "points that no other beats",
            "note": _evaluated(front),
            "state": "",
        }
    ]
    if points:
        better = max if front["metric"]["higher_is_better"] else min
        best = better(points, key=lambda point: point["figure"])
        note = f"point {best['number']}; float {front['float']['held_out']:{form}}"
        name = f"{front['metric']['name']} at best"
        tiles.append({"figure": f"{best['figure']:{form}}", "name": name, "note": note, "state": ""})
        costs = [point["cost"] for point in points]
        figure = (
            f"{min(costs):,.4g} – {max(costs):,.4g}"
            if max(costs) < 1000
            else f"{min(costs):,.0f} – {max(costs):,.0f}"
        )
        tiles.append({"figure": figure, "name": front["against"].upper(), "note": "estimated", "state": ""})
    rate = f"{front['fps']:,.0f}" if front["fps"] else "fastest"
    tiles.append(
        {"figure": rate, "name": "inferences/s of every point", "note": front["fps_from"], "state": ""}
    )
    return tiles


def _evaluated(front: Front) -> str:
    return f"{front['evaluations']:,} of {size_text(front['space_size'])} evaluated"


def _about(front: Front) -> str:
    metric = front["metric"]["name"]
    return (
        f"{metric} on {front['held_out']['samples']:,} samples held out of the training split, against "
        f"{front['against'].upper()} as the cost model estimates it. "
        "Grey: points that were evaluated; dashed: the float network."
    )


def _made(front: Front) -> list[tuple[str, str]]:
    return [
        ("model", f"{front['model']} (sha256 {front['model_digest'][:16]}…)"),
        ("strategy", front["strategy"]),
        ("evaluator", front["evaluator"]),
        ("seed", str(front["seed"])),
        ("budget", f"{front['budget']:.0%} of the board"),
        ("cost model", front["cost_model"]),
        ("qhw", str(front["qhw"])),
    ]
