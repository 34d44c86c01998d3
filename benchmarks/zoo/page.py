"""The page that shows the records of the models as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

Record = dict[str, Any]

HEAD = """\
# Which models work

What `python benchmarks/model_zoo.py` found (`benchmarks/results/model_zoo.json` holds it all): every
QONNX and ONNX file of the packages around qhw, every network of Brevitas's examples as Brevitas exports
it, and common networks. Weights of exported networks are random; statistics and scales come from a few
random batches.

A model **works** if its file is lowered and no code differs: between the fast executor and the
interpreter (up to {interpreted} million multiply-accumulates, one sample), and between the exact graph
and an independent execution. Where every scale is a power of two, that is the execution of the file
itself, by qonnx or (standard operators) by ONNX Runtime. Elsewhere it is qonnx's execution of
`canonical.onnx`, which is the reference there ([design.md](design.md)), tensor by tensor. How far the
original file's own float32 execution is from that is counted without any tolerance: one code that
float32 rounds the other way moves all that it reaches.

A file without quantisers is no quantised network: it is right to say so, and such files are not counted.
What is neither a CNN nor an MLP is listed with the reason. The column hls4ml says whether that flow
carries the graph (*written*: its project was; of networks above {written} million multiply-accumulates
it is not), and the estimate of the smallest design.
"""

MEANINGS = {
    "exact": "works",
    "differs": "**codes differ**",
    "refused": "refused",
    "crashed": "**failed**",
    "absent": "not to be had",
}


def page(records: list[Record], interpreted: int, written: int) -> str:
    """The page about those records; the limits are in multiply-accumulates."""
    head = HEAD.format(interpreted=interpreted // 10**6, written=written // 10**6)
    parts = [head, *_counts(records)]
    for group, members in groupby(records, key=_group):
        parts += _table(group, list(members))
    return "\n".join(parts)


def is_counted(record: Record) -> bool:
    """Whether it is a CNN or MLP with quantisers, that could be had."""
    return record["kind"] in ("CNN", "MLP") and record["outcome"] != "absent"


def works(record: Record) -> bool:
    """Whether it was lowered and no code differs."""
    return bool(record["outcome"] == "exact")


def _group(record: Record) -> str:
    return str(record["name"]).split("/")[0]


def _counts(records: list[Record]) -> Iterator[str]:
    counted = [record for record in records if is_counted(record)]
    done = sum(map(works, counted))
    share = f"{done / len(counted):.0%}" if counted else "none"
    codes = sum(record.get("codes", 0) for record in counted)
    differing = sum(record.get("differing", 0) for record in counted)
    compared = f"{codes:,} codes were compared, {differing:,} differ"
    earlier = sum(bool(record.get("earlier")) for record in counted)
    told = f" {earlier} of these results were found with earlier sources of qhw." if earlier else ""
    yield f"**{done} of {len(counted)} CNN and MLP models work ({share})**; {compared}.{told}\n"
    yield "| where from | CNN and MLP models | work | float files | others, and not to be had |"
    yield "|---|---:|---:|---:|---:|"
    for group, members in groupby(records, key=_group):
        rows = list(members)
        here = [record for record in rows if is_counted(record)]
        floats = sum(record["kind"] == "float" for record in rows)
        rest = len(rows) - len(here) - floats
        yield f"| {group} | {len(here)} | {sum(map(works, here))} | {floats} | {rest} |"
    yield ""
    reasons = Counter(_short(record) for record in counted if not works(record))
    if reasons:
        yield "| why it does not work, its names left out | models |"
        yield "|---|---:|"
        yield from (f"| {reason} | {count} |" for reason, count in reasons.most_common())
        yield ""


def _short(record: Record) -> str:
    """A reason without the names in it."""
    text = str(record.get("reason") or record["outcome"])
    parts = text.split("'")
    return _cell("…".join(parts[::2]), 100)


def _table(group: str, records: list[Record]) -> Iterator[str]:
    yield f"## {group}\n"
    columns = (
        "model",
        "kind",
        "result",
        "codes",
        "differ",
        "the file's own float32 execution",
        "hls4ml",
        "s",
        "",
    )
    yield f"| {' | '.join(columns)} |"
    yield "|---|---|---|---:|---:|---|---|---:|---|"
    for record in records:
        name = record["name"].partition("/")[2]
        seconds = record["seconds"]
        spent = sum(seconds.get(part, 0) for part in ("lower", "compare", "build"))
        cells = (
            name,
            record["kind"],
            MEANINGS[record["outcome"]],
            f"{record['codes']:,}" if "codes" in record else "",
            f"{record['differing']:,}" if "differing" in record else "",
            _original(record),
            _hls4ml(record),
            f"{spent:.1f}" if seconds else "",
            _remark(record),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""


def _original(record: Record) -> str:
    """How the file's own execution compares with the exact graph."""
    own = record.get("file")
    if own is None:
        return ""
    if not own["differing"]:
        return "the same"
    outputs = f"outputs within {own['largest_share']:.1e} of their span"
    quantised = own.get("quantised")
    return (
        f"{quantised['differing']:,} of {quantised['codes']:,} codes apart; {outputs}"
        if quantised
        else outputs
    )


def _hls4ml(record: Record) -> str:
    built = record.get("builds")
    if built is None:
        return ""
    if built["hls4ml"] == "refused":
        return f"refused: {_cell(built['reason'], 90)}"
    return f"{built['hls4ml']}, {built['lut']:,} LUT"


def _remark(record: Record) -> str:
    parts = [record.get("reason") or "", record.get("note") or ""]
    return _cell("; ".join(filter(None, parts)), 220)


def _cell(text: str, length: int) -> str:
    """A text that fits into a cell: one line, shortened, nothing that ends the cell."""
    line = " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
    return line if len(line) <= length else line[: length - 1] + "…"
