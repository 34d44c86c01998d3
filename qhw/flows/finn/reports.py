"""FINN's own estimates of a dataflow model, and beside them what qhw estimates of the same layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhw.cost import Design, estimate
from qhw.flows.finn.folding import cycles_of, owners, resources_of

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

REPORTS = "reports"
LAYERS, CYCLES, RESOURCES = "layers.json", "estimate_layer_cycles.json", "estimate_layer_resources.json"

_COUNTED = {"lut": "LUT", "dsp": "DSP", "bram18": "BRAM_18K", "uram": "URAM"}
"""qhw's names of the resources that FINN estimates, and FINN's."""


def write_reports(design: Design, model: ModelWrapper, made_by: Mapping[str, str], folder: Path) -> None:
    """Write ``reports/``: FINN's two files as its builder writes them, and ``layers.json``.

    Args:
        design: the folded design that the model was written from.
        model: folded and specialised.
        made_by: the graph's node that each tensor of the model was written for.
    """
    cycles, resources = cycles_of(model), resources_of(model, design.board.part)
    owner = owners(model, made_by)
    in_order = {node.name: owner[node.name] for node in model.graph.node}
    (folder / REPORTS).mkdir()
    # FINN counts in whole and fractional numbers alike; its efficiencies have no sum.
    total = {name: sum(counts.get(name, 0.0) for counts in resources.values()) for name in _COUNTED.values()}
    layers = {name: dict(sorted(counts.items())) for name, counts in resources.items()}
    for name, content in (
        (CYCLES, cycles),
        (RESOURCES, {**layers, "total": total}),
        (LAYERS, side_by_side(design, in_order, cycles, resources)),
    ):
        (folder / REPORTS / name).write_text(json.dumps(content, indent=2) + "\n")


def side_by_side(
    design: Design,
    owner: Mapping[str, str],
    cycles: Mapping[str, int],
    resources: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """One row for each node of the graph: qhw's estimate, FINN's layers of it, and theirs together.

    Cycles are those between two images: a node's are those of its slowest layer. Nodes that are part of
    another's layer, or left to the host, have no layers of their own.

    Args:
        owner: the graph's node behind each layer of FINN, by the layer's name.
        cycles, resources: FINN's estimates, by the layer's name.
    """
    rows = []
    for cost in estimate(design).layers:
        layers = {
            name: _counted(name, cycles, resources) for name, node in owner.items() if node == cost.node
        }
        together = {
            "cycles": max((counts["cycles"] for counts in layers.values()), default=0),
            **{key: sum(counts[key] for counts in layers.values()) for key in _COUNTED},
        }
        ours = {"cycles": cost.initiation_interval, **{key: getattr(cost, key) for key in _COUNTED}}
        rows.append({"node": cost.node, "op": cost.op, "qhw": ours, "finn": together, "layers": layers})
    return rows


def _counted(
    name: str, cycles: Mapping[str, int], resources: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    counts = resources[name]
    return {"cycles": cycles[name], **{key: counts.get(finn, 0.0) for key, finn in _COUNTED.items()}}
