"""Thresholds: FINN's MultiThreshold counts, in place of levels it adds the smallest code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qhw.flows.finn.carried import Carried
from qhw.flows.finn.emission.draft import GENERAL, Draft, format_type, is_streamed, refused
from qhw.flows.finn.prepare import MOST_THRESHOLD_BITS
from qhw.formats.modes import IntArray
from qhw.graph import ir


def _threshold(draft: Draft, node: ir.Node) -> None:
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
    thresholds, levels = (draft.graph.constants[name].astype(object) for name in node.inputs[1:])
    carried = _turned(draft, node, levels)
    kind = format_type(format)
    low, high = _type_bounds(kind)
    span = carried.integers_within(*draft.ranges[carried.tensor].bounds)
    rows = max(len(thresholds), len(levels), carried.multiplier.size, carried.offset.size)
    if len(thresholds) > 1 or len(levels) > 1:
        order = draft.per_element(carried, np.arange(carried.channels), node).astype(np.int64)
        thresholds, levels = (rows if len(rows) == 1 else rows[order] for rows in (thresholds, levels))
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
    constant = draft.constant(f"{node.name}_thresholds", np.array(table, dtype=object), node)
    output = draft.result(node, carried)
    draft.node(
        "MultiThreshold",
        [carried.name, constant],
        [output],
        node,
        GENERAL,
        out_dtype=kind,
        out_scale=1.0,
        out_bias=float(low),
        data_layout="NHWC" if len(draft.shape(output)) == 4 else "NC",
    )
    draft.carry(node.output, output, order=carried.order, axes=carried.axes)


def _type_bounds(kind: str) -> tuple[int, int]:
    from qonnx.core.datatype import DataType

    return int(DataType[kind].min()), int(DataType[kind].max())


def _turned(draft: Draft, node: ir.Node, levels: IntArray) -> Carried:
    """The operand as it travels, each channel with the sign with which its levels rise."""
    carried = draft.input_of(node, any_layout=True)
    falls = draft.per_element(carried, levels[:, -1] < levels[:, 0], node)
    wrong = (carried.multiplier < 0) != falls
    flat = draft.per_element(carried, levels[:, -1] == levels[:, 0], node)
    wrong = wrong & ~flat.astype(bool)
    if not wrong.any():
        return carried
    signs = np.where(wrong, -1, 1).astype(object)
    factor = draft.constant(f"{node.name}_signs", signs, node)
    shape = draft.shape(carried.name)
    low, high = carried.integers_within(*draft.ranges[carried.tensor].bounds)
    draft.check_held(low, high, node)
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
    row = []
    if multiplier > 0:
        for code in codes:
            place = next((i for i, level in enumerate(levels) if level >= code), None)
            if place is None:
                row.append(beyond[1])
            elif place == 0:
                row.append(beyond[0])
            else:
                row.append(-((offset - thresholds[place - 1]) // multiplier))
    else:
        for code in codes:
            place = next((i for i in reversed(range(len(levels))) if levels[i] >= code), None)
            if place is None:
                row.append(beyond[1])
            elif place == len(thresholds):
                row.append(beyond[0])
            else:
                row.append((offset - thresholds[place]) // -multiplier + 1)
    return [min(max(value, beyond[0]), beyond[1]) for value in row]


EMITTERS: Mapping[str, Callable[[Draft, Any], None]] = {"Threshold": _threshold}
