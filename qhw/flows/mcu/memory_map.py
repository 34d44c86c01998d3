"""The arena over time as a picture: which bytes hold which map during which step."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from qhw.flows.mcu.layout import ARENA_SCRATCH, INPUTS, Layout

logger = logging.getLogger(__name__)


def write_memory_map(layout: Layout, path: Path) -> bool:
    """Draw the memory map as an SVG; False, with a line in the log, where vl-convert is not installed."""
    try:
        import vl_convert
    except ImportError:
        logger.info("no picture of the memory map: vl-convert-python draws it, which is not installed")
        return False
    path.write_text(vl_convert.vegalite_to_svg(memory_chart(layout)), encoding="utf-8")
    return True


def memory_chart(layout: Layout) -> dict[str, Any]:
    """The memory map as Vega-Lite: steps from left to right, bytes of the arena from below to above."""
    steps, size = layout.program.steps, layout.arena.bytes
    across: dict[str, Any] = {"field": "from", "type": "quantitative", "title": "step"}
    across["scale"] = {"domain": [-1, max(len(steps), 1)], "nice": False}
    up: dict[str, Any] = {"field": "bottom", "type": "quantitative", "title": "bytes of the arena"}
    up["scale"] = {"domain": [0, max(size, 1)], "nice": False}
    colour = {"field": "kind", "type": "nominal", "title": None}
    boxes = {
        "mark": {"type": "rect", "stroke": "white", "strokeWidth": 1},
        "encoding": {"x": across, "x2": {"field": "to"}, "y": up, "y2": {"field": "top"}, "color": colour},
    }
    labels = {
        "mark": {"type": "text", "align": "left", "baseline": "bottom", "dx": 3, "dy": -3, "fontSize": 9},
        "encoding": {"x": across, "y": up, "text": {"field": "map", "type": "nominal"}},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": f"{layout.program.name}: {size:,} bytes, {len(steps)} steps",
        "width": 720,
        "height": 360,
        "data": {"values": _rows(layout)},
        "layer": [boxes, labels],
    }


def buffers_of(layout: Layout) -> list[dict[str, Any]]:
    """The buffers of the arena: name, offset, bytes, and the first and the last step that need each.

    The input is there before the first step; that counts as step 0.
    """
    last = len(layout.program.steps) - 1
    return [
        {
            "name": "input" if buffer.name == INPUTS else buffer.name,
            "offset": layout.arena.offsets[buffer.name],
            "bytes": buffer.bytes,
            "first": min(max(buffer.first, 0), last),
            "last": min(buffer.last, last),
        }
        for buffer in layout.buffers
    ]


def _rows(layout: Layout) -> list[dict[str, Any]]:
    rows = []
    for buffer in layout.buffers:
        is_scratch = buffer.name.endswith(ARENA_SCRATCH)
        name = "input" if buffer.name == INPUTS else buffer.name.removesuffix(ARENA_SCRATCH)
        bottom = layout.arena.offsets[buffer.name]
        rows.append(
            {
                "map": name,
                "kind": "scratch" if is_scratch else "input" if buffer.name == INPUTS else "map",
                "from": buffer.first,
                "to": buffer.last + 1,
                "bottom": bottom,
                "top": bottom + buffer.bytes,
            }
        )
    return rows
