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
from qhw.flows.base import load_project_flow
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph, Threshold
from qhw.graph.lower import Lowering, lower_model
from qhw.graph.reading.load import load_qonnx
from qhw.pipeline.build_stages import work_of
from qhw.sim.canonical import canonical_integers, compare_with_original
from qhw.sim.compare import compare, describe
from qhw.sim.fast import FastExecutor
from zoo.entries import AbsentError, Entry
from zoo.execution import Arrays, execute, inputs_for

BOARD = "u250"
"""The largest board there is: whether a design fits a small one is another question."""

INTERPRETED_MACS = 50_000_000
"""Larger networks are not interpreted: the fast executor alone is compared with the file."""

WRITTEN_MACS = 20_000_000
"""Of larger networks no project is written: its test bench is interpreted, its weights are text."""

FEW_FLIPPED = 3
MOST_FLIPPED, MOST_ROUNDED, MOST_APART = 0.01, 1e-4, 0.5
"""Beyond these a file's own execution is doubted to be the same network: codes, and their share, in the first
tensor that differs; of the outputs' span where no code differs; and where some do."""

Record = dict[str, Any]


def run(entry: Entry, folder: Path) -> Record:
    """Everything about one model, for JSON; whatever goes wrong is in it."""
    record: Record = {"name": entry.name, "kind": entry.kind, "note": entry.note, "seconds": {}}
    if entry.make is None:
        return record | {"outcome": "absent"}
    try:
        with timed(record, "file"):
            path = entry.make(folder)
        with timed(record, "lower"):
            lowering = lower_model(load_qonnx(path))
        record["graph"] = _facts(lowering.graph)
        with timed(record, "compare"):
            record |= _compared(entry, path, lowering)
        with timed(record, "build"):
            record["builds"] = _built(lowering.graph, folder)
    except AbsentError as error:
        record |= {"outcome": "absent", "note": str(error)}
    except QhwError as error:
        record |= {"outcome": "refused", "reason": error.message, "hint": error.hint}
    except Exception as error:
        record |= {"outcome": "crashed", "reason": last_line(error)}
    return record


@contextlib.contextmanager
def timed(record: Record, what: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        record["seconds"][what] = round(time.perf_counter() - start, 1)


def last_line(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {text}"


def _facts(graph: ExactGraph) -> Record:
    macs, weights = work_of(graph)
    thresholds = sum(graph.constants[n.inputs[1]].size for n in graph.nodes if isinstance(n, Threshold))
    return {"nodes": len(graph.nodes), "macs": macs, "weights": weights, "thresholds": thresholds}


def _compared(entry: Entry, path: Path, lowering: Lowering) -> Record:
    """The fast executor against the interpreter, and both against the file's execution or canonical form."""
    graph = lowering.graph
    inputs = inputs_for(graph, entry.samples, entry.image)
    mantissas = encode_inputs(graph, inputs)
    found = FastExecutor(graph, batch=1)(mantissas, keep="all")
    rows = []
    if work_of(graph)[0] <= INTERPRETED_MACS:
        one = {name: x[:1] for name, x in mantissas.items()}
        first = {name: x[:1] for name, x in found.items()}
        names = ("interpreter", "fast executor")
        rows.append(_row(graph, interpret(graph, one, keep="all"), first, names))
    own = _own_execution(graph, found, path, inputs)
    if lowering.canonical is None:
        rows.append(own)
    else:
        integers = canonical_integers(lowering.canonical, inputs)
        rows.append(_row(graph, found, integers, ("exact graph", "canonical.onnx")))
        own["quantised"] = _quantised(lowering, inputs)
    differing = sum(row["differing"] for row in rows)
    doubt = _doubt(own) if lowering.canonical is not None else ""
    return {
        "outcome": "differs" if differing or doubt else "exact",
        "reason": doubt,
        "scales": "powers of two" if lowering.canonical is None else "free",
        "samples": entry.samples,
        "codes": sum(row["codes"] for row in rows),
        "differing": differing,
        "comparisons": rows,
        "file": own,
    }


def _row(
    graph: ExactGraph, left: Mapping[str, Any], right: Mapping[str, Any], names: tuple[str, str]
) -> Record:
    comparison = compare(graph, left, right, names=names)
    row: Record = {"of": " = ".join(names), "codes": comparison.codes, "differing": comparison.mismatches}
    if comparison.first is not None:
        row["first"] = describe(comparison.first, *names)
    return row


def _own_execution(graph: ExactGraph, found: Mapping[str, Any], path: Path, inputs: Arrays) -> Record:
    """What the file's own execution writes where the graph ends: its outputs, or what its head reads."""
    head = graph.postprocessing
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


def _quantised(lowering: Lowering, inputs: Arrays) -> Record:
    """The file's quantised tensors, as qonnx executes them in float32, against the exact graph's.

    ``first`` is the first one that differs, and in how many of its codes: all in front of it is equal.
    """
    apart = compare_with_original(lowering, inputs)
    inner = [part for part in apart if part.tensor in lowering.units]  # not sums without a quantiser
    first = next(([part.tensor, part.differing, part.codes] for part in inner if part.differing), None)
    return {
        "codes": sum(part.codes for part in inner),
        "differing": sum(part.differing for part in inner),
        "largest": max((part.largest for part in inner), default=0),
        "first": first,
    }


def _doubt(own: Record) -> str:
    """Why a file's own execution is too far from the exact graph for float32's rounding to explain it.

    ``canonical.onnx`` is written from the exact graph, so what reads the file wrongly would be wrong in both.
    Rounding flips few codes of the first tensor that differs; behind it differences grow.
    """
    quantised = own["quantised"]
    if quantised["first"] is not None:
        tensor, differing, codes = quantised["first"]
        if differing > FEW_FLIPPED and differing / codes > MOST_FLIPPED:
            return f"in the file's own execution '{tensor}' differs in {differing:,} of {codes:,} codes"
    most = MOST_APART if quantised["differing"] else MOST_ROUNDED
    if own["largest_share"] > most:
        return f"outputs of the file's own execution are {own['largest_share']:.1%} of their span away"
    return ""


def _built(graph: ExactGraph, folder: Path) -> Record:
    """What the hls4ml flow makes of the graph, each layer folded as far as it goes: estimate and project."""
    flow = load_project_flow("hls4ml")
    try:
        design = flow.prepare(graph, load_board(BOARD))
        design = design.folded({name: folds[-1] for name, folds in design.legal.items()})
        found: Record = {"hls4ml": "carried", "lut": estimate(design).totals["lut"]}
        if work_of(graph)[0] <= WRITTEN_MACS:
            flow.write(design, folder / "project")
            found["hls4ml"] = "written"
    except QhwError as error:
        return {"hls4ml": "refused", "reason": error.message}
    return found
