"""Thresholds: FINN's MultiThreshold counts, in place of levels it adds the smallest code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qhw.flows.finn.carried import Carried
from qhw.flows.finn.emission.draft import GENERAL, Draft, data_type, format_type, is_streamed, refused
from qhw.flows.finn.prepare import MOST_STEPS, MOST_THRESHOLD_BITS
from qhw.formats.modes import IntArray
from qhw.graph import ir


def _threshold(draft: Draft, node: ir.Node) -> None:
    kind = _checked(draft, node)
    thresholds, levels = (draft.graph.constants[name].astype(object) for name in node.inputs[1:])
    carried = _turned(draft, node, thresholds, levels)
    output = _counted(draft, node, carried, (thresholds, levels), node.output, kind)
    draft.carry(node.output, output, order=carried.order, axes=carried.axes)


def _checked(draft: Draft, node: ir.Node) -> str:
    """FINN's type of the results; refuses other numbers than integers, and many bits."""
    format = draft.graph.tensors[node.output].format
    if not is_streamed(format):
        raise refused(
            node, f"its results are numbers of {format}, FINN streams integers", "use --flow hls4ml for it"
        )
    if format.width > MOST_THRESHOLD_BITS:
        raise refused(
            node,
            f"its results have {format.width} bits; "
            f"FINN's thresholds are practical up to {MOST_THRESHOLD_BITS}",
            f"give the results of this layer at most {MOST_THRESHOLD_BITS} bits, or use --flow hls4ml",
        )
    if len(draft.graph.tensors[node.output].shape) > 3:
        raise refused(node, "its result has more axes than an image", "use --flow hls4ml")
    return format_type(format)


def _counted(
    draft: Draft, node: ir.Node, carried: Carried, rule: tuple[IntArray, IntArray], name: str, kind: str
) -> str:
    """A MultiThreshold of thresholds (channels or 1, T) and rising levels (…, T + 1); the result's name."""
    low, high = _type_bounds(kind)
    span = carried.integers_within(draft.ranges[carried.tensor])
    thresholds, levels = rule
    rows = max(len(thresholds), len(levels), carried.multiplier.size, carried.offset.size)
    if len(thresholds) > 1 or len(levels) > 1:
        order = draft.per_element(carried, np.arange(carried.channels)).astype(np.int64)
        thresholds, levels = (part if len(part) == 1 else part[order] for part in rule)
    table = [
        _row(
            thresholds[row % len(thresholds)].tolist(),
            levels[row % len(levels)].tolist(),
            int(carried.multiplier[row % carried.multiplier.size]),
            int(carried.offset[row % carried.offset.size]),
            range(low + 1, high + 1),
            (span[0] - 1, span[1] + 1),
        )
        for row in range(rows)
    ]
    constant = draft.constant(f"{name}_thresholds", np.array(table, dtype=object), node)
    shape = draft.shape(carried.name)
    output = draft.tensor(name, shape, kind)
    draft.node(
        "MultiThreshold",
        [carried.name, constant],
        [output],
        node,
        GENERAL,
        out_dtype=kind,
        out_scale=1.0,
        out_bias=float(low),
        data_layout="NHWC" if len(shape) == 4 else "NC",
    )
    return output


def _table(draft: Draft, node: ir.Node) -> None:
    """Any function is what it has risen by, less what it has fallen by: the difference of two counts."""
    assert isinstance(node, ir.Table)
    _checked(draft, node)
    carried = _by_channel(draft, node, len(draft.graph.constants[node.inputs[1]]))
    if (carried.multiplier < 0).any():
        carried = draft.plain(node, any_layout=True)
    low, high = draft.ranges[carried.tensor].bounds
    reached = draft.graph.constants[node.inputs[1]].astype(object)[
        :, low - node.first : high - node.first + 1
    ]
    steps = np.diff(reached, axis=1)
    turns = np.flatnonzero((steps != 0).any(axis=0))
    steps, places = steps[:, turns], (low + 1 + turns).astype(object)[None, :]
    counts = []
    for what, moved, start in (
        ("rises", np.maximum(steps, 0), reached[:, :1]),
        ("falls", np.maximum(-steps, 0), 0),
    ):
        levels = np.cumsum(np.hstack([np.zeros_like(reached[:, :1]), moved]), axis=1) + start
        kind = data_type(int(levels.min()), int(levels.max()))
        if int(levels.max() - levels.min()) > MOST_STEPS:
            raise refused(
                node,
                f"its function {what} by {int(levels.max() - levels.min()):,} in all, "
                f"and FINN's thresholds count up to {MOST_STEPS}",
                "use --flow hls4ml for it",
            )
        counts.append(_counted(draft, node, carried, (places, levels), f"{node.output}_{what}", kind))
    output = draft.tensor(
        node.output, draft.shape(counts[0]), format_type(draft.graph.tensors[node.output].format)
    )
    draft.node("Sub", counts, [output], node)
    draft.carry(node.output, output, order=carried.order, axes=carried.axes)


def _type_bounds(kind: str) -> tuple[int, int]:
    from qonnx.core.datatype import DataType

    return int(DataType[kind].min()), int(DataType[kind].max())


def _by_channel(draft: Draft, node: ir.Node, rows: int) -> Carried:
    """The operand, so that rows of constants belong to FINN's channels."""
    carried = draft.input_of(node)
    return draft.by_axis(carried, 0, node) if rows > 1 else carried


def _turned(draft: Draft, node: ir.Node, thresholds: IntArray, levels: IntArray) -> Carried:
    """The operand as it travels, each channel with the sign with which its levels rise."""
    carried = _by_channel(draft, node, max(len(thresholds), len(levels)))
    falls = draft.per_element(carried, levels[:, -1] < levels[:, 0])
    wrong = (carried.multiplier < 0) != falls
    flat = draft.per_element(carried, levels[:, -1] == levels[:, 0])
    wrong = wrong & ~flat.astype(bool)
    if not wrong.any():
        return carried
    signs = np.where(wrong, -1, 1).astype(object)
    factor = draft.constant(f"{node.name}_signs", signs, node)
    shape = draft.shape(carried.name)
    low, high = carried.integers_within(draft.ranges[carried.tensor])
    draft.check_held(-max(-low, high), max(-low, high), node)
    turned = draft.tensor(f"{node.name}_turned", shape, "INT32")
    draft.node("Mul", [carried.name, factor], [turned], node)
    return replace(carried, name=turned, multiplier=carried.multiplier * signs)


def _row(
    thresholds: list[int],
    levels: list[int],
    multiplier: int,
    offset: int,
    codes: range,
    beyond: tuple[int, int],
) -> list[int]:
    """The lowest integer whose code is ``code`` or more, for each of the codes.

    ``beyond`` is below and above all integers that come. A mantissa reaches threshold t where
    ``multiplier * integer + offset >= t``.
    """
    rising = np.array(levels if multiplier > 0 else levels[::-1], dtype=np.int64)
    firsts = np.searchsorted(rising, np.arange(codes.start, codes.stop))
    row = []
    for first in firsts.tolist():
        if first == len(levels):
            row.append(beyond[1])
        elif first == 0:
            row.append(beyond[0])
        elif multiplier > 0:
            row.append(-((offset - thresholds[first - 1]) // multiplier))
        else:
            row.append((offset - thresholds[len(thresholds) - first]) // -multiplier + 1)
    return [min(max(value, beyond[0]), beyond[1]) for value in row]


EMITTERS: Mapping[str, Callable[[Draft, Any], None]] = {"Table": _table, "Threshold": _threshold}
