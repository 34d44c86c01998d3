"""One model through the FINN flow: written as a project, executed after every step, priced on every board."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qhw.boards import load_board
from qhw.cost import Design, choose_folding, estimate
from qhw.cost.pricing.folding import DoesNotFitError
from qhw.errors import CheckFailedError, QhwError
from qhw.flows.base import ProjectFlow, load_project_flow
from qhw.flows.finn.execution import abstract
from qhw.flows.finn.prepare import host_nodes
from qhw.flows.finn.project import DATAFLOW, load_model
from qhw.flows.finn.tools import finn
from qhw.formats.modes import IntArray
from qhw.graph.encode import encode_inputs
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower_model
from qhw.graph.reading.load import load_qonnx
from qhw.pipeline.build_stages import samples_for, work_of
from zoo.entries import AbsentError, Entry
from zoo.execution import inputs_for
from zoo.trial import last_line, timed

BOARDS = ("pynq-z1", "ultra96", "kv260", "zcu104", "zcu102", "u250")
"""From the smallest. The project is written for the first one that the network fits."""

VECTORS = 256
MACS, NUMBERS = 4_000_000_000, 64_000_000
"""Samples that a project is verified on at most; products and results of all of them together."""

Record = dict[str, Any]


def run(entry: Entry, folder: Path) -> Record:
    """Everything about one model, for JSON; whatever goes wrong is in it."""
    record: Record = {"name": entry.name, "kind": entry.kind, "note": entry.note, "seconds": {}}
    if entry.make is None:
        return record | {"outcome": "absent"}
    try:
        with timed(record, "file"):
            path = entry.make(folder)
        if (folder / "accuracy.txt").exists():
            record["note"] = f"{record['note']}, {(folder / 'accuracy.txt').read_text()}"
        with timed(record, "lower"):
            graph = lower_model(load_qonnx(path)).graph
        record |= {"nodes": len(graph.nodes), "macs": work_of(graph)[0]}
        with timed(record, "fold"):
            flow = load_project_flow("finn")
            design, record["boards"] = _designs(flow, graph)
        with timed(record, "write"):
            project = flow.write(design, folder / "project")
        record |= {"board": design.board.name, "host": len(host_nodes(design.graph))}
        record |= _layers(folder / "project")
        with timed(record, "verify"):
            record |= _verified(flow, project, graph, _mantissas(entry, graph))
    except AbsentError as error:
        record |= {"outcome": "absent", "note": str(error)}
    except CheckFailedError as error:
        record |= {"outcome": "failed", "reason": error.message, "hint": error.hint}
    except QhwError as error:
        record |= {"outcome": "refused", "reason": error.message, "hint": error.hint}
    except Exception as error:
        record |= {"outcome": "crashed", "reason": last_line(error)}
    return record


def _designs(flow: ProjectFlow, graph: ExactGraph) -> tuple[Design, Record]:
    """The design for the first board that it fits, and each board's rate; folded most if it fits none.

    Raises:
        UnsupportedError: FINN does not carry it.
    """
    rates: Record = {}
    first: Design | None = None
    for name in BOARDS:
        design = flow.prepare(graph, load_board(name))
        try:
            design = choose_folding(design)
        except DoesNotFitError as error:
            rates[name] = {"reason": error.message}
            continue
        found = estimate(design)
        rates[name] = {
            "fps": found.throughput_fps,
            "interval": found.initiation_interval,
            "lut": found.totals["lut"],
            "share": max(found.utilisation.values()),
        }
        first = first or design
    if first is None:
        design = flow.prepare(graph, load_board(BOARDS[-1]))
        first = design.folded({node: folds[0] for node, folds in design.legal.items()})
    return first, rates


def _layers(folder: Path) -> Record:
    """FINN's layers by kind, and how many are RTL and HLS."""
    with finn():
        kinds = [node.op_type for node in load_model(folder / DATAFLOW).graph.node]
    return {
        "layers": dict(Counter(map(abstract, kinds)).most_common()),
        "rtl": sum(kind.endswith("_rtl") for kind in kinds),
        "hls": sum(kind.endswith("_hls") for kind in kinds),
    }


def _mantissas(entry: Entry, graph: ExactGraph) -> dict[str, IntArray]:
    numbers = sum(graph.tensors[node.output].size for node in graph.nodes)
    count = max(1, min(VECTORS, MACS // max(1, work_of(graph)[0]), NUMBERS // max(1, numbers)))
    if entry.data:
        from qhw.data import load_dataset

        samples = samples_for(graph, load_dataset(entry.data))
        return encode_inputs(graph, {name: x[:count] for name, x in samples.items()})
    return encode_inputs(graph, inputs_for(graph, count, entry.image))


def _verified(
    flow: ProjectFlow, project: Any, graph: ExactGraph, mantissas: Mapping[str, IntArray]
) -> Record:
    """The comparison after every step; CPU seconds beside those of the clock."""
    before = time.process_time()
    row, facts = next(iter(flow.verify(project, graph, mantissas, tell=lambda share, text: None)))
    return {
        "outcome": "differs" if row["mismatches"] else "exact",
        "reason": row.get("first_difference", ""),
        "steps": len(facts["steps"]),
        "vectors": len(next(iter(mantissas.values()))),
        "tensors": row["layers"],
        "codes": row["codes_compared"],
        "differing": row["mismatches"],
        "distinct": int(np.asarray(row["distinct_codes"])),
        "cpu_seconds": round(time.process_time() - before, 1),
    }
