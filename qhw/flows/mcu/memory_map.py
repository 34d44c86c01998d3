"""The arena over time as a picture: which bytes hold which map during which step."""

from __future__ import annotations

import logging
from pathlib import Path

from qhw.flows.mcu.layout import ARENA_SCRATCH, INPUTS, Layout

logger = logging.getLogger(__name__)


def write_memory_map(layout: Layout, path: Path) -> bool:
    """Draw the memory map as an SVG; False, with a line in the log, where Altair or vl-convert is not installed."""
    try:
        import altair as alt
        import vl_convert
    except ImportError:
        logger.info("no picture of the memory map: it is drawn with altair and vl-convert-python")
        return False
    steps = layout.program.steps
    rows = [
        {
            "map": "input" if b.name == INPUTS else b.name.removesuffix(ARENA_SCRATCH),
            "kind": "scratch" if b.name.endswith(ARENA_SCRATCH) else "input" if b.name == INPUTS else "map",
            "from": b.first,
            "to": b.last + 1,
            "bottom": layout.arena.offsets[b.name],
            "top": layout.arena.offsets[b.name] + b.bytes,
        }
        for b in layout.buffers
    ]
    names = {str(index): step.name for index, step in enumerate(steps)}
    across = alt.X("from:Q", title="step", scale=alt.Scale(domain=[-1, max(len(steps), 1)], nice=False))
    up = alt.Y(
        "bottom:Q", title="bytes of the arena", scale=alt.Scale(domain=[0, layout.arena.bytes], nice=False)
    )
    boxes = (
        alt.Chart(alt.Data(values=rows))
        .mark_rect(stroke="white", strokeWidth=1)
        .encode(x=across, x2="to:Q", y=up, y2="top:Q", color=alt.Color("kind:N", title=None))
    )
    labels = (
        alt.Chart(alt.Data(values=rows))
        .mark_text(align="left", baseline="bottom", dx=3, dy=-3, fontSize=9)
        .encode(x=across, y=up, text="map:N")
    )
    title = f"{layout.program.name}: {layout.arena.bytes:,} bytes, {len(names)} steps"
    chart = (boxes + labels).properties(width=720, height=360, title=title)
    path.write_text(vl_convert.vegalite_to_svg(chart.to_json()), encoding="utf-8")
    return True
