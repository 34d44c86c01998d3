"""One model through qhw: lowered, simulated, compared with an independent execution of its file, built."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qhw.boards import load_board
from qhw.cost import estimate
from qhw.errors import QhwError
from qhw.flows.base import load_flow
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.ir import ExactGraph, Threshold
from qhw.graph.load import load_qonnx
from qhw.graph.lower import canonical_reason, lower
from qhw.pipeline.build_stages import work_of
from qhw.sim.compare import compare, describe
from qhw.sim.fast import FastExecutor
from qhw.sim.interpreter import interpret
from zoo.entries import AbsentError, Entry
from zoo.execution import Arrays, execute, inputs_for

BOARD = "u250"
"""The largest board there is: whether a design fits a small one is another question."""

INTERPRETED_MACS = 50_000_000
"""Larger networks are not interpreted: the fast executor alone is compared with the file."""

WRITTEN_MACS = 20_000_000
"""Of larger networks no project is written: its test bench is interpreted, its weights are text."""

Record = dict[str, Any]


def run(entry: Entry, folder: Path) -> Record:
    """Everything about one model, for JSON; whatever goes wrong is in it."""
    record: Record = {"name": entry.name, "kind": entry.kind, "note": entry.note, "seconds": {}}
    if entry.make is None:
        return record | {"outcome": "absent"}
    try:
        with _timed(record, "file"):
            path = entry.make(folder)
        with _timed(record, "lower"):
            graph = lower(path)
        record["graph"] = _facts(graph)
        with _timed(record, "compare"):
            record |= _compared(entry, path, graph)
        with _timed(record, "build"):
            record["builds"] = _built(graph, folder)
    except AbsentError as error:
        record |= {"outcome": "absent", "note": str(error)}
    except QhwError as error:
        record |= {"outcome": "refused", "reason": error.message, "hint": error.hint}
    except Exception as error:
        record |= {"outcome": "crashed", "reason": _last_line(error)}
    return record


@contextlib.contextmanager
def _timed(record: Record, what: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        record["seconds"][what] = round(time.perf_counter() - start, 1)


def _last_line(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {text}"


def _facts(graph: ExactGraph) -> Record:
    macs, weights = work_of(graph)
    thresholds = sum(graph.constants[n.inputs[1]].size for n in graph.nodes if isinstance(n, Threshold))
    return {"nodes": len(graph.nodes), "macs": macs, "weights": weights, "thresholds": thresholds}


def _compared(entry: Entry, path: Path, graph: ExactGraph) -> Record:
    """The fast executor against the interpreter, and both against the file's execution or canonical form."""
    inputs = inputs_for(graph, entry.samples, entry.image)
    mantissas = encode_inputs(graph, inputs)
    found = FastExecutor(graph, batch=1)(mantissas, keep="all")
    rows = []
    if work_of(graph)[0] <= INTERPRETED_MACS:
        one = {name: x[:1] for name, x in mantissas.items()}
        first = {name: x[:1] for name, x in found.items()}
        names = ("interpreter", "fast executor")
        rows.append(_row(graph, interpret(graph, one, keep="all"), first, names))
    file_row = _file_row(graph, found, path, inputs)
    reason = canonical_reason(path)
    if reason is None:
        rows.append(file_row)
    else:
        row, original = _canonical(path, graph, found, inputs)
        rows.append(row)
        file_row["quantised"] = original
    differing = sum(row["differing"] for row in rows)
    return {
        "outcome": "exact" if not differing else "differs",
        "scales": "powers of two" if reason is None else "free",
        "samples": entry.samples,
        "codes": sum(row["codes"] for row in rows),
        "differing": differing,
        "comparisons": rows,
        "file": file_row,
    }


def _row(
    graph: ExactGraph, left: Mapping[str, Any], right: Mapping[str, Any], names: tuple[str, str]
) -> Record:
    comparison = compare(graph, left, right, names=names)
    row: Record = {"of": " = ".join(names), "codes": comparison.codes, "differing": comparison.mismatches}
    if comparison.first is not None:
        row["first"] = describe(comparison.first, *names)
    return row


def _file_row(graph: ExactGraph, found: Mapping[str, Any], path: Path, inputs: Arrays) -> Record:
    """What the file's own execution writes where the graph ends: its outputs, or what its head reads."""
    head = getattr(graph, "postprocessing", None)
    who, tensors = execute(path, inputs, head.reads if head is not None else ())
    codes = differing = 0
    apart = 0.0
    for name, values in zip(graph.outputs, tensors.values(), strict=True):
        ours = decode_output(graph, name, found[name]).reshape(values.shape)
        codes += ours.size
        differing += int(np.count_nonzero(ours != values.astype(np.float64)))
        span = float(np.ptp(values)) or 1.0
        apart = max(apart, float(np.abs(ours - values).max(initial=0)) / span)
    return {"of": f"outputs = {who}", "codes": codes, "differing": differing, "largest_share": apart}


def _canonical(
    path: Path, graph: ExactGraph, found: Mapping[str, Any], inputs: Arrays
) -> tuple[Record, Record]:
    """The canonical form's execution against the graph; and quantised tensors of the original against it."""
    from qhw.graph.canonical import canonicalise
    from qhw.graph.canonical_check import canonical_integers, compare_with_original

    loaded = load_qonnx(path)
    canonical = canonicalise(loaded)
    row = _row(graph, found, canonical_integers(canonical, inputs), ("exact graph", "qonnx (canonical.onnx)"))
    apart = compare_with_original(loaded, canonical, inputs)
    ends = {value.name for value in loaded.graph.output}
    inner = [part for part in apart if part.tensor not in ends]
    return row, {
        "codes": sum(part.codes for part in inner),
        "differing": sum(part.differing for part in inner),
        "largest": max((part.largest for part in inner), default=0),
    }


def _built(graph: ExactGraph, folder: Path) -> Record:
    """What the hls4ml flow makes of the graph, each layer folded as far as it goes: estimate and project."""
    board, flow = load_board(BOARD), load_flow("hls4ml")
    try:
        flow.check(graph, board)
        folding = {name: factors[-1] for name, factors in flow.legal_folding(graph).items()}
        io_type = flow.io_type_for(graph)
        estimated = estimate(graph, board, folding, flow=flow.name, io_type=io_type)
        found: Record = {"hls4ml": "carried", "lut": estimated.totals["lut"]}
        if work_of(graph)[0] <= WRITTEN_MACS:
            flow.write(graph, board, folding, folder / "project")
            found["hls4ml"] = "written"
    except QhwError as error:
        return {"hls4ml": "refused", "reason": error.message}
    return found
