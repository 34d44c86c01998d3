"""The page that shows what the FINN flow made of the models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from zoo.finn_trial import BOARDS, MACS, NUMBERS, VECTORS

Record = dict[str, Any]

HEAD = """\
# What the FINN flow carries

What `python benchmarks/finn_models.py` found (`benchmarks/results/finn_models.json` holds it all): trained
networks, those of Brevitas's examples, QONNX files of the packages around qhw, and common networks. Except
for the first group weights are random; statistics and scales come from a few random batches.

Every network becomes a project of the FINN flow. After each of the steps from the streamlined graph to the
folded dataflow model, and of the project as it lies there, FINN's own Python execution is compared with the
exact graph: every tensor that travels alone, code by code, on {vectors} samples, or as many as stay within
{macs} billion multiply-accumulates and {numbers} million numbers. Trained networks are compared on test
images of their data sets.

Rates are estimates, in inferences per second: qhw's FINN template, calibrated against Yosys, at the fastest
folding that fits 80 % of each board at the clock that its file states. No figure comes from Vivado. Where a
network fits no board, its project has every layer folded most. *Host*: operations behind FINN's last layer,
which the host computes.
"""

MEANINGS = {
    "exact": "exact",
    "differs": "**codes differ**",
    "refused": "refused",
    "failed": "**check failed**",
    "crashed": "**failed**",
    "absent": "not to be had",
}

SHORT = {
    "ConvolutionInputGenerator": "window",
    "DuplicateStreams": "fork",
    "ElementwiseAdd": "add",
    "ElementwiseMul": "multiply",
    "FMPadding": "pad",
    "FMPadding_Pixel": "zeros between pixels",
    "GlobalAccPool": "global sum",
    "InnerShuffle": "inner shuffle",
    "OuterShuffle": "outer shuffle",
    "Pool": "pool",
    "Reshape": "reshape",
    "StreamingConcat": "concat",
    "StreamingSplit": "split",
    "Thresholding": "thresholds",
    "UpsampleNearestNeighbour": "upsample",
}
"""FINN's names of layers in fewer letters."""


def page(records: list[Record]) -> str:
    """The page about those records."""
    parts = [HEAD.format(vectors=VECTORS, macs=MACS // 10**9, numbers=NUMBERS // 10**6), *_counts(records)]
    for group, members in groupby(records, key=_group):
        parts += _table(group, list(members))
    return "\n".join(parts)


def _group(record: Record) -> str:
    return str(record["name"]).split("/")[0]


def _counts(records: list[Record]) -> Iterator[str]:
    had = [record for record in records if record["outcome"] not in ("absent", "not run")]
    done = [record for record in had if record["outcome"] == "exact"]
    left = len(records) - len(had)
    codes = sum(record.get("codes", 0) for record in had)
    differing = sum(record.get("differing", 0) for record in had)
    share = f"**{len(done)} of {len(had)} networks are carried**"
    compared = f"{codes:,} codes were compared, over all steps, {differing:,} differ"
    earlier = sum(bool(record.get("earlier")) for record in had)
    told = f" {earlier} of these results were found with earlier sources of qhw." if earlier else ""
    yield f"{share} of those that were run ({left} more were not); {compared}.{told}\n"
    yield "| where from | networks | carried |"
    yield "|---|---:|---:|"
    for group, members in groupby(had, key=_group):
        rows = list(members)
        yield f"| {group} | {len(rows)} | {sum(record['outcome'] == 'exact' for record in rows)} |"
    yield ""
    reasons = Counter(_without_names(record) for record in had if record["outcome"] != "exact")
    if reasons:
        yield "| why not, names left out | networks |"
        yield "|---|---:|"
        yield from (f"| {reason} | {count} |" for reason, count in reasons.most_common())
        yield ""


def _without_names(record: Record) -> str:
    text = str(record.get("reason") or record["outcome"])
    return cell("…".join(text.split("'")[::2]))


def _table(group: str, records: list[Record]) -> Iterator[str]:
    built = [record for record in records if "layers" in record]
    yield f"## {group}\n"
    if built:
        columns = ("model", "nodes", "MAC", "FINN's layers", "RTL", "HLS", "host", "steps")
        yield f"| {' | '.join((*columns, 'samples', 'codes', 'differ', *BOARDS, ''))} |"
        yield f"|---|---:|---:|---|{'---:|' * (7 + len(BOARDS))}---|"
        yield from (_built(record) for record in built)
        yield ""
    left = [_name(record) for record in records if record["outcome"] == "not run"]
    if left:
        yield f"Not run: {', '.join(left)}.\n"
    refused = [record for record in records if "layers" not in record and record["outcome"] != "not run"]
    if refused:
        yield "| model | not carried | what to do |"
        yield "|---|---|---|"
        for record in refused:
            reason = record.get("reason") or record.get("note") or ""
            hint = record.get("hint") or ""
            yield f"| {_name(record)} | {MEANINGS[record['outcome']]}: {cell(reason)} | {cell(hint)} |"
        yield ""


def _built(record: Record) -> str:
    layers = ", ".join(f"{count} {SHORT.get(kind, kind)}" for kind, count in record["layers"].items())
    counts = (
        record["rtl"],
        record["hls"],
        record["host"],
        record.get("steps", ""),
        record.get("vectors", ""),
    )
    codes = (f"{record[name]:,}" if name in record else "" for name in ("codes", "differing"))
    rates = (_rate(record["boards"][name]) for name in BOARDS)
    note = record["note"]
    if record["outcome"] != "exact":
        note = f"{MEANINGS[record['outcome']]}: {record.get('reason', '')}; {note}"
    cells = (
        _name(record),
        record["nodes"],
        f"{record['macs']:,}",
        layers,
        *counts,
        *codes,
        *rates,
        cell(note),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _rate(found: Record) -> str:
    return f"{found['fps']:,.0f}" if "fps" in found else "–"


def _name(record: Record) -> str:
    return str(record["name"]).partition("/")[2]


def cell(text: str) -> str:
    """A text as a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
