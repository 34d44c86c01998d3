"""The plots, as Vega-Lite specifications: plain values that a page, a notebook and a picture are made from.

Colours here are those of data, to be told apart on white and on black; text, axes and grid take the page's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from qhw.errors import ToolMissingError

Spec = dict[str, Any]
Row = Mapping[str, Any]

BLUE, ORANGE, GREY = "#2f6db3", "#d9822b", "#8a939c"

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"

_DECADE = 4
"""The dearest cost over the cheapest from which their axis is logarithmic."""

_AGAINST = {
    "share": "largest share of a resource of the board",
    "memory": "memory, bits",
    "energy": "energy per image, nJ (modelled, relative)",
    "interval": "cycles between two images",
    "instructions": "instructions of one inference (modelled)",
    "flash": "flash, bytes",
}


def front_chart(
    rows: Sequence[Row],
    tried: Sequence[tuple[float, float]],
    against: str,
    metric: Row,
    *,
    float_figure: float | None = None,
    title: str = "",
    width: int | str = 640,
) -> Spec:
    """The points of a front joined by a line, in front of all points that were evaluated.

    Args:
        rows: one per point of the front: ``cost``, ``figure``, ``kind``, and what else is to be told of it.
        tried: cost and figure of every point that was evaluated.
        against: the cost's name.
        metric: ``name``, ``is_share``.
        float_figure: of the float network: a dashed line.
        width: in pixels, or "container".
    """
    form, marks = (".2%", "~%") if metric["is_share"] else (".4g", "~g")
    x = _quantity("cost", _AGAINST.get(against, against.upper()), scale=_cost_scale(rows, tried))
    y = _quantity("figure", metric["name"], scale={"zero": False}, axis={"format": marks})
    line = {"x": x, "y": y}
    layers: list[Spec] = []
    if tried:
        dots = [{"cost": cost, "figure": figure} for cost, figure in tried]
        layers.append(
            {"data": {"values": dots}, "mark": _mark("circle", size=18, color=GREY), "encoding": line}
        )
    if float_figure is not None:
        rule = _mark("rule", strokeDash=[4, 4], color=GREY)
        layers.append(
            {"data": {"values": [{"figure": float_figure}]}, "mark": rule, "encoding": {"y": line["y"]}}
        )
    path = _mark("line", interpolate="step-after", color=BLUE)
    layers.append({"mark": path, "encoding": line})
    if rows and "low" in rows[0]:
        ends = {"x": x, "y": _quantity("low", metric["name"]), "y2": {"field": "high"}}
        layers.append({"mark": _mark("rule", color=BLUE, opacity=0.5, strokeWidth=2), "encoding": ends})
    colour = {
        "field": "kind",
        "type": "nominal",
        "title": None,
        "legend": {"orient": "top"},
        "scale": {"domain": ["mixed", "one format"], "range": [BLUE, ORANGE]},
    }
    points = {**line, "color": colour, "tooltip": _front_tips(rows, against, metric["name"], form)}
    mark = _mark("point", filled=True, size=110, opacity=1, cursor="pointer")
    layers.append({"mark": mark, "encoding": points, "name": "points"})
    rest = {"title": title, "data": {"values": [dict(row) for row in rows]}, "layer": layers}
    return _sized(width, 380, rest)


def _cost_scale(rows: Sequence[Row], tried: Sequence[tuple[float, float]]) -> Spec:
    """A logarithmic one where the dearest point would push the front into a corner."""
    costs = [row["cost"] for row in rows] + [cost for cost, _ in tried]
    if costs and min(costs) > 0 and max(costs) / min(costs) >= _DECADE:
        return {"type": "log", "domain": [min(costs) * 0.94, max(costs) * 1.06]}
    return {"zero": False}


def _front_tips(rows: Sequence[Row], against: str, metric: str, form: str) -> list[Spec]:
    shown = (
        ("number", "point", ""),
        ("figure", metric, form),
        ("test", "on the test split", form),
        ("cost", against, ",.4~f"),
        ("lut", "LUT", ","),
        ("dsp", "DSP", ","),
        ("sram", "SRAM, bytes", ","),
        ("flash", "flash, bytes", ","),
        ("rate", "images/s", ",.0f"),
        ("formats", "formats", ""),
    )
    return [
        {
            "field": field,
            "title": heading,
            "type": "quantitative" if pattern or field == "number" else "nominal",
        }
        | ({"format": pattern} if pattern else {})
        for field, heading, pattern in shown
        if rows and field in rows[0]
    ]


def board_chart(
    shares: Mapping[str, float], *, error: float | None, budget: float | None, width: int | str = 640
) -> Spec:
    """What a design takes of its board, as bars.

    Args:
        shares: by resource, of what the board has; 1 is full.
        error: the share by which the cost model may be off in LUT; drawn around that bar.
        budget: the share that might be used: a dashed line.
    """
    rows = [
        {"resource": name.upper(), "share": share, "state": "over" if share > 1 else "fits"}
        | _margin(name, share, error)
        for name, share in shares.items()
    ]
    y = {"field": "resource", "type": "nominal", "sort": None, "title": None}
    x = _quantity(
        "share", "share of the board", axis={"format": ".0%"}, scale={"domainMin": 0, "domainMax": _top(rows)}
    )
    tips = [{"field": "resource", "title": "resource"}, {"field": "share", "title": "used", "format": ".1%"}]
    colour = {
        "field": "state",
        "legend": None,
        "scale": {"domain": ["fits", "over"], "range": [BLUE, "#c0392b"]},
    }
    layers: list[Spec] = [
        {
            "mark": _mark("bar", height={"band": 0.6}),
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": tips},
        }
    ]
    if unsure := [row for row in rows if "low" in row]:
        ends = {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}, "y": y}
        layers.append(
            {"data": {"values": unsure}, "mark": _mark("rule", color=ORANGE, strokeWidth=3), "encoding": ends}
        )
    marks = [{"at": 1.0, "what": "the board"}]
    if budget is not None and budget < 1:
        marks.append({"at": budget, "what": "budget"})
    for mark in marks:
        dash = [] if mark["at"] == 1.0 else [4, 4]
        layers.append(
            {
                "data": {"values": [mark]},
                "mark": _mark("rule", strokeDash=dash, color=GREY, strokeWidth=1.5),
                "encoding": {
                    "x": {"field": "at", "type": "quantitative"},
                    "tooltip": [
                        {"field": "what", "title": "line"},
                        {"field": "at", "title": "at", "format": ".0%"},
                    ],
                },
            }
        )
    return _sized(width, 34 * max(len(rows), 1), {"data": {"values": rows}, "layer": layers})


def _margin(resource: str, share: float, error: float | None) -> dict[str, float]:
    if error is None or resource.upper() != "LUT":
        return {}
    return {"low": share * (1 - error), "high": share * (1 + error)}


def _top(rows: Sequence[Row]) -> float:
    return max(1.0, *(max(row["share"], row.get("high", 0.0)) for row in rows)) * 1.02 if rows else 1.0


def layers_chart(layers: Sequence[Row], capacity: Mapping[str, int], width: int | str = 640) -> Spec:
    """What each layer takes of the board: for each, a bar per resource that any of them takes.

    Args:
        layers: one per layer: ``node``, ``op``, and amounts by resource.
        capacity: what the board has of each resource.
    """
    resources = drawn_resources(layers, capacity)
    rows = [
        {
            "layer": layer["node"],
            "operation": layer["op"],
            "resource": name.upper(),
            "amount": layer.get(name, 0),
            "share": layer.get(name, 0) / capacity[name],
        }
        for layer in layers
        for name in resources
    ]
    names = [layer["node"] for layer in layers]
    tips = [
        {"field": "layer"},
        {"field": "operation"},
        {"field": "resource"},
        {"field": "amount", "type": "quantitative", "format": ","},
        {"field": "share", "title": "of the board", "type": "quantitative", "format": ".2%"},
    ]
    bar = max(5, 20 // max(len(resources), 1))
    height = len(names) * (len(resources) * bar + 6)
    rest = {
        "data": {"values": rows},
        "mark": _mark("bar"),
        "encoding": {
            "y": {
                "field": "layer",
                "type": "nominal",
                "sort": names,
                "title": None,
                "axis": {"labelLimit": 150},
            },
            "yOffset": {"field": "resource", "sort": [name.upper() for name in resources]},
            "x": _quantity("share", "share of the board", axis={"format": "~%", "tickCount": 8}),
            "color": {
                "field": "resource",
                "type": "nominal",
                "sort": [name.upper() for name in resources],
                "title": None,
                "legend": {"orient": "top"},
                "scale": {"range": [BLUE, ORANGE, "#3d9970", "#8e5ea2", "#b5a642"][: len(resources)]},
            },
            "tooltip": tips,
        },
    }
    return _sized(width, height, rest)


def drawn_resources(layers: Sequence[Row], capacity: Mapping[str, int]) -> list[str]:
    """The resources that the board has and a layer takes."""
    return [name for name, there in capacity.items() if there and any(layer.get(name) for layer in layers)]


def distribution_chart(
    bars: Sequence[Row], grid: Sequence[float], *, width: int | str = 240, height: int = 90
) -> Spec:
    """How often numbers occur, over the grid of their format.

    Args:
        bars: ``low``, ``high`` (what is rounded to one number, or a group of them) and ``share``.
        grid: the numbers of the format, drawn as ticks; none where there are too many.
    """
    x = {
        "field": "low",
        "type": "quantitative",
        "title": None,
        "scale": {"zero": False, "nice": False},
        "axis": {"tickCount": 5, "grid": False},
    }
    layers: list[Spec] = [
        {
            "data": {"values": [dict(bar) for bar in bars]},
            "mark": _mark("rect", color=BLUE),
            "encoding": {
                "x": x,
                "x2": {"field": "high"},
                "y": _quantity("share", None, axis={"format": ".0%", "tickCount": 3}),
                "y2": {"datum": 0},
                "tooltip": [
                    {"field": "value", "title": "number", "type": "nominal"},
                    {"field": "share", "title": "share", "type": "quantitative", "format": ".2%"},
                ],
            },
        }
    ]
    if grid:
        layers.append(
            {
                "data": {"values": [{"low": value} for value in grid]},
                "mark": _mark("tick", orient="vertical", color=ORANGE, thickness=1, size=7, yOffset=4),
                "encoding": {"x": x, "y": {"datum": 0}},
            }
        )
    return _sized(width, height, {"layer": layers})


_LIMIT_SHOWN = 4
"""A limit is drawn up to so many times the height of what lies below it."""


def memory_chart(
    buffers: Sequence[Row], steps: Sequence[str], limit: int | None, width: int | str = 640
) -> Spec:
    """Where buffers lie in a memory while a network runs, as rectangles over its steps.

    Args:
        buffers: ``name``, ``offset``, ``bytes``, and the ``first`` and ``last`` step (from 0) that need it.
        steps: the steps' names, in order.
        limit: bytes of the memory: a dashed line, unless the buffers would be too low to be seen below it.
    """
    rows = [
        {
            "name": buffer["name"],
            "low": buffer["offset"] / 1024,
            "high": (buffer["offset"] + buffer["bytes"]) / 1024,
            "first": buffer["first"],
            "end": buffer["last"] + 1,
            "bytes": buffer["bytes"],
            "from": steps[buffer["first"]],
            "to": steps[buffer["last"]],
        }
        for buffer in buffers
    ]
    layers: list[Spec] = [
        {
            "data": {"values": rows},
            "mark": _mark("rect", stroke="white", strokeWidth=1, cornerRadius=2),
            "encoding": {
                "x": _quantity("first", "step", axis={"tickMinStep": 1, "format": "d"}),
                "x2": {"field": "end"},
                "y": _quantity("low", "KiB"),
                "y2": {"field": "high"},
                "color": {"field": "name", "type": "nominal", "legend": None},
                "tooltip": [
                    {"field": "name", "title": "buffer"},
                    {"field": "bytes", "type": "quantitative", "format": ","},
                    {"field": "from", "title": "written at"},
                    {"field": "to", "title": "last read at"},
                ],
            },
        },
        {
            "data": {"values": rows},
            "mark": _mark("text", align="left", baseline="bottom", dx=4, dy=-3, fontSize=10, clip=True),
            "encoding": {
                "x": _quantity("first", "step"),
                "y": _quantity("low", "KiB"),
                "text": {"field": "name", "type": "nominal"},
            },
        },
    ]
    peak = max((buffer["offset"] + buffer["bytes"] for buffer in buffers), default=0)
    if limit is not None and math.isfinite(limit) and limit <= _LIMIT_SHOWN * peak:
        layers.append(
            {
                "data": {"values": [{"low": limit / 1024}]},
                "mark": _mark("rule", strokeDash=[4, 4], color=GREY),
                "encoding": {"y": {"field": "low", "type": "quantitative"}},
            }
        )
    return _sized(width, 260, {"layer": layers})


def as_altair(spec: Spec) -> Any:
    """A specification as a chart that a notebook shows, and that can be changed and saved.

    Raises:
        ToolMissingError: altair is not installed.
    """
    try:
        import altair
    except ImportError:
        raise ToolMissingError(
            "Plots in Python need altair, which is not installed", hint="pip install altair"
        ) from None
    return altair.Chart.from_dict(spec)


def _sized(width: int | str, height: int, rest: Spec) -> Spec:
    """A specification of that width and height; "container" fills the width that there is."""
    fit = {"autosize": {"type": "fit-x", "contains": "padding"}} if width == "container" else {}
    return {"$schema": SCHEMA, "width": width, "height": height, **fit, **rest}


def _mark(kind: str, **settings: Any) -> Spec:
    return {"type": kind, **settings}


def _quantity(field: str, title: str | None, **settings: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **settings}
