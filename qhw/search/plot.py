"""The front as a picture: an interactive page that opens offline, and a PNG."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qhw.errors import ToolMissingError
from qhw.search.front import Front
from qhw.search.pareto import front as front_of
from qhw.search.strategies.base import Trial

_TITLES = {
    "share": "largest share of a resource of the board",
    "memory": "memory, bits",
    "energy": "energy per image, nJ (modelled, relative)",
    "interval": "cycles between two images",
}


def chart(front: Front, trials: Sequence[Trial] = ()) -> Any:
    """The points of a front joined by a line, in front of all points that were evaluated."""
    return points_chart(
        [_row(point) for point in front["points"]],
        trials,
        front["against"],
        front["metric"],
        float_figure=front["float"]["held_out"],
        title=f"{front['model']} on {front['board']} ({front['flow']})",
    )


def points_chart(
    rows: Sequence[dict[str, Any]],
    trials: Sequence[Trial],
    against: str,
    metric: dict[str, Any],
    *,
    float_figure: float | None = None,
    title: str = "",
) -> Any:
    """The same from rows with a cost and a figure, before a front is written."""
    try:
        import altair as alt
    except ImportError:
        raise ToolMissingError(
            "Plots need altair, which is not installed", hint="pip install 'qhw[search]'"
        ) from None
    sign = 1 if metric["higher_is_better"] else -1
    form = ".2%" if metric["is_share"] else ".4g"
    x = alt.X("cost:Q", title=_TITLES.get(against, against.upper()), scale=alt.Scale(zero=False))
    y = alt.Y("figure:Q", title=metric["name"], axis=alt.Axis(format=form), scale=alt.Scale(zero=False))
    layers = []
    tried = [
        {"cost": t.cost, "figure": sign * t.quality}
        for t in trials
        if t.fits and np.isfinite(t.cost) and np.isfinite(t.quality)
    ]
    if tried:
        layers.append(alt.Chart(_data(tried)).mark_circle(size=18, color="#b0b7bf").encode(x=x, y=y))
    if float_figure is not None:
        rule = alt.Chart(_data([{"figure": float_figure}])).mark_rule(strokeDash=[4, 4], color="#888")
        layers.append(rule.encode(y=y))
    base = alt.Chart(_data(rows))
    layers.append(base.mark_line(interpolate="step-after", color="#2f6db3").encode(x=x, y=y))
    shown = (
        ("number:Q", "point", ""),
        ("figure:Q", metric["name"], form),
        ("test:Q", "on the test split", form),
        ("cost:Q", against, ",.4~f"),
        ("lut:Q", "LUT", ","),
        ("dsp:Q", "DSP", ","),
        ("formats:N", "formats", ""),
        ("command:N", "built by", ""),
    )
    tips = [
        alt.Tooltip(field, title=heading, format=pattern) if pattern else alt.Tooltip(field, title=heading)
        for field, heading, pattern in shown
        if rows and field.partition(":")[0] in rows[0]
    ]
    if rows and "low" in rows[0]:
        bar = base.mark_errorbar(color="#2f6db3", opacity=0.5)
        layers.append(bar.encode(x=x, y=alt.Y("low:Q", title=metric["name"]), y2="high:Q"))
    layers.append(
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x,
            y=y,
            tooltip=tips,
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=["mixed", "one format"], range=["#2f6db3", "#d9822b"]),
            ),
        )
    )
    return alt.layer(*layers).properties(width=640, height=400, title=title).interactive()


def _data(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"values": list(rows)}


def _row(point: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: point[name] for name in ("number", "cost", "figure", "low", "high", "test", "command")},
        "lut": point["resources"]["lut"],
        "dsp": point["resources"]["dsp"],
        "formats": ", ".join(f"{name} {text}" for name, text in point["formats"].items()),
        "kind": "one format" if point["uniform"] else "mixed",
    }


def save(front: Front, trials: Sequence[Trial], folder: Path) -> tuple[Path, Path]:
    """Write ``front.html``, which needs no network, and ``front.png``.

    Raises:
        ToolMissingError: altair or vl-convert is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise ToolMissingError(
            "Plots need vl-convert-python, which is not installed", hint="pip install 'qhw[search]'"
        ) from None
    drawn = chart(front, trials).to_dict()
    page, picture = folder / "front.html", folder / "front.png"
    page.write_text(vl_convert.vegalite_to_html(drawn, bundle=True), encoding="utf-8")
    picture.write_bytes(vl_convert.vegalite_to_png(drawn, scale=2))
    return page, picture


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
    drawn = [0.0]

    def watch(trials: Sequence[Trial]) -> None:
        if time.monotonic() - drawn[0] < _LIVE_SECONDS:
            return
        good = [trial for trial in trials if trial.fits and np.isfinite(trial.quality)]
        places = front_of([t.cost for t in good], [t.quality for t in good])
        rows = [{"cost": good[i].cost, "figure": good[i].quality, "kind": "mixed"} for i in places]
        metric = {"name": "quality", "higher_is_better": True, "is_share": False}
        picture = points_chart(rows, trials, against, metric, title=f"{len(trials)} points evaluated")
        if handle:
            handle[0].update(picture)
        else:
            handle.append(display(picture, display_id=True))  # type: ignore[no-untyped-call]
        drawn[0] = time.monotonic()

    return watch


_LIVE_SECONDS = 1.0
"""Time between two pictures."""
