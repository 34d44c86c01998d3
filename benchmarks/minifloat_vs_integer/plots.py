"""The study's pictures."""

from __future__ import annotations

import io
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from PIL import Image

from minifloat_vs_integer import tables
from minifloat_vs_integer.tables import Cells, Point

COLOURS = ["#2f6db3", "#d9822b", "#3a9a5b", "#8e5ea2"]


def by_cost(cells: Cells, path: Path) -> None:
    """Accuracy against bits of weights, and against LUT, by kind: every split, and a line along the best."""
    methods = cells.judged.main
    charts = []
    for name, title in (("memory", "weights, kbit"), ("lut", "LUT, at equal throughput")):
        rows = [
            {
                "cost": getattr(row, name) / (1000 if name == "memory" else 1),
                "shown": row.mean,
                "low": min(row.shown),
                "high": max(row.shown),
                "kind": kind,
                "held": row.held,
                "label": re.sub(r"fixed|khot|[<>]", "", row.formats.weights),
            }
            for kind in tables.KINDS
            for row in cells.every(kind, methods)
            if math.isfinite(getattr(row, name))
        ]
        if rows:
            charts.append(_one(rows, title, cells.judged.shown))
    if charts:
        shown = alt.hconcat(*charts).resolve_scale(color="shared", shape="shared")
        _save(shown.properties(title=f"{cells.judged.title} ({methods})"), path)


def _one(rows: Sequence[dict[str, Any]], title: str, figure: str) -> Any:
    best = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        held = -math.inf
        for row in sorted((r for r in rows if r["kind"] == kind), key=lambda r: (r["cost"], -r["held"])):
            if row["held"] > held:
                held = row["held"]
                best.append(row)
    y_title = "test accuracy" if figure == "test" else "agreement on 20 images"
    x = alt.X("cost:Q", title=title, scale=alt.Scale(type="log", nice=False))
    y = alt.Y("shown:Q", title=y_title, axis=alt.Axis(format=".1%"), scale=alt.Scale(zero=False))
    colour = alt.Color("kind:N", title=None, scale=alt.Scale(domain=list(tables.KINDS), range=COLOURS[:3]))
    base = alt.Chart({"values": list(rows)})
    line = alt.Chart({"values": best}).mark_line().encode(x=x, y=y, color=colour)
    bars = base.mark_rule(opacity=0.5).encode(x=x, y=alt.Y("low:Q", title=y_title), y2="high:Q", color=colour)
    marks = base.mark_point(filled=True, size=45, opacity=0.9).encode(
        x=x,
        y=y,
        color=colour,
        shape=alt.Shape("kind:N", title=None, scale=alt.Scale(domain=list(tables.KINDS))),
    )
    text = base.mark_text(dx=7, dy=-7, fontSize=8).encode(x=x, y=y, text="label:N", color=colour)
    return alt.layer(bars, line, marks, text).properties(width=420, height=320)


def fronts(found: Mapping[str, Sequence[Sequence[Point]]], path: Path) -> None:
    """Accuracy against LUT of several fronts, every seed; lines join what is best on the samples held out."""
    names = [name for name, seeds in found.items() if seeds]
    rows = [
        {"cost": p["cost"], "test": p["test"], "front": name, "run": f"{name} {seed}"}
        for name in names
        for seed, points in enumerate(found[name])
        for p in tables.kept(points)
    ]
    lowest = statistics.quantiles([row["test"] for row in rows], n=10)[0] if len(rows) > 1 else 0.0
    rows = [row for row in rows if row["test"] >= lowest - 0.05]
    base = alt.Chart({"values": rows}).encode(
        x=alt.X("cost:Q", title="LUT, at equal throughput", scale=alt.Scale(zero=False, nice=False)),
        y=alt.Y("test:Q", title="test accuracy", axis=alt.Axis(format=".1%"), scale=alt.Scale(zero=False)),
        color=alt.Color("front:N", title=None, scale=alt.Scale(domain=names, range=COLOURS[: len(names)])),
        detail="run:N",
    )
    drawn = alt.layer(
        base.mark_line(interpolate="step-after", opacity=0.7), base.mark_point(filled=True, size=35)
    )
    _save(drawn.properties(width=640, height=380), path)


def _save(chart: Any, path: Path) -> None:
    drawn = io.BytesIO(vl_convert.vegalite_to_png(chart.to_dict(), scale=2))
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)
