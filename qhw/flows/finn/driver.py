"""What runs on the board: FINN's settings of its driver, and the host's part as a script of NumPy alone.

FINN's driver is a package of its own, finn-plus-driver; of a network it needs ``settings.json``, which FINN
makes of the model with DMA engines at its ends. :mod:`qhw.flows.finn.host` is the script.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qhw.boards import Board
from qhw.errors import UnsupportedError
from qhw.flows.finn import host
from qhw.flows.finn.builder import finn_board, is_alveo
from qhw.flows.finn.carried import Carried, travelling
from qhw.flows.finn.emission.draft import Emitted
from qhw.flows.finn.project import host_graph
from qhw.flows.finn.tools import library
from qhw.formats.base import UniformFormat
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.ir import ExactGraph
from qhw.graph.ops.requant import requant_bounds
from qhw.graph.tensors import TensorType
from qhw.zynq import encoding
from qhw.zynq.facts import encoding_facts, output_facts
from qhw.zynq.folder import write_script

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

DRIVER = "driver"
_DATAFLOW = "finn.transformation.fpgadataflow."


def write_driver(emitted: Emitted, model: ModelWrapper, board: Board, folder: Path, scratch: Path) -> None:
    """Write ``driver/``: ``host.py``, ``encoding.py``, ``host.json``, and FINN's ``settings.json`` of a Zynq.

    For other boards FINN names its DMA engines only when it builds: there its own step makes the settings.
    """
    target = folder / DRIVER
    target.mkdir()
    write_script(host.__file__, target)
    write_script(encoding.__file__, target)
    facts = host_facts(emitted, model.get_tensor_datatype(model.graph.input[0].name).name)
    (target / "host.json").write_text(json.dumps(facts, indent=1) + "\n")
    name = finn_board(board)
    if name is not None and not is_alveo(name):
        (target / "settings.json").write_text(driver_settings(model, name, board, scratch))


def driver_settings(model: ModelWrapper, name: str, board: Board, scratch: Path) -> str:
    """FINN's settings of its driver, as its ``step_make_driver`` writes them: ports, types, shapes and clock.

    Args:
        model: the dataflow model.
        name: FINN's name of the board.
        scratch: FINN's scratch folder.
    """
    linked = _with_dma(model, library("finn.util.basic").pynq_native_port_width[name], board.part, scratch)
    operator = library("qonnx.custom_op.registry").getCustomOp
    # MakeZYNQProject gives these names; it also starts Vivado.
    operator(linked.graph.node[0]).set_nodeattr("instance_name", "idma0")
    operator(linked.graph.node[-1]).set_nodeattr("instance_name", "odma0")
    make = library(_DATAFLOW + "make_driver").MakePYNQDriver
    made = linked.transform(
        make("zynq-iodma", "FINNDMAOverlay", clk_period_ns=board.clock_period_ns, board=name)
    )
    return (Path(made.get_metadata_prop("pynq_driver_dir")) / "settings.json").read_text() + "\n"


def _with_dma(model: ModelWrapper, port_bits: int, part: str, scratch: Path) -> ModelWrapper:
    """The model as FINN's ``ZynqBuild`` links it: an engine at either end, each in a partition of its own."""
    general = library("qonnx.transformation.general")
    partition = library(_DATAFLOW + "create_dataflow_partition").CreateDataflowPartition
    for step in (
        library(_DATAFLOW + "insert_iodma").InsertIODMA(port_bits),
        library(_DATAFLOW + "insert_dwc").InsertDWC(),
        library(_DATAFLOW + "specialize_layers").SpecializeLayers(part),
        library(_DATAFLOW + "floorplan").Floorplan(),
        partition(partition_model_dir=str(scratch / "linked")),
    ):
        model = model.transform(step).transform(general.GiveUniqueNodeNames())
        model = model.transform(general.GiveReadableTensorNames())
    return model


def host_facts(emitted: Emitted, input_type: str) -> dict[str, Any]:
    """What ``host.py`` reads: how the input is encoded and travels, and the steps behind the stream.

    Args:
        input_type: FINN's type of the accelerator's input.
    """
    graph, tail = emitted.graph, host_graph(emitted)
    entry = emitted.carried[emitted.input]
    end = (tail or graph).outputs[0]
    return {
        "input": {
            **_travel(entry),
            "stream_shape": list(travelling(entry.shape, entry.layout)[1:]),
            "type": input_type,
            "encoding": encoding_facts(graph, emitted.input),
        },
        "stream": _travel(emitted.carried[emitted.output]),
        "steps": [] if tail is None else [_step(tail, node) for node in tail.nodes],
        "output": output_facts(graph, end),
    }


def _travel(carried: Carried) -> dict[str, Any]:
    return {
        "shape": list(carried.shape),
        "axes": list(carried.layout),
        "multiplier": _listed(carried.multiplier),
        "offset": _listed(carried.offset),
        "order": None if carried.order is None else _listed(carried.order),
    }


def _step(graph: ExactGraph, node: ir.Node) -> dict[str, Any]:
    """One operation of the host in integers, with every exponent worked out."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    if isinstance(node, ir.Affine):
        return {"op": "Affine", **_affine(graph, node)}
    if isinstance(node, ir.Table):
        return {"op": "Table", "first": node.first, "table": _rows(graph, node.inputs[1])}
    if isinstance(node, ir.Threshold):
        thresholds, levels = (_rows(graph, name) for name in node.inputs[1:])
        return {"op": "Threshold", "thresholds": thresholds, "levels": levels}
    if isinstance(node, ir.Reshape):
        return {"op": "Reshape", "shape": list(y.shape)}
    if isinstance(node, ir.Transpose):
        return {"op": "Transpose", "axes": list(node.perm)}
    if isinstance(node, ir.Requant) and isinstance(y.format, UniformFormat):
        return _requant(node, x, y)
    raise UnsupportedError(
        f"'{node.name}' is left to the host, whose script has no {node.op} to {y.format}",
        hint="use --flow hls4ml, and please report the network",
    )


def _requant(node: ir.Requant, x: TensorType, y: TensorType) -> dict[str, Any]:
    rank = len(y.shape)
    format = (y.format.mantissa_low, y.format.mantissa_high)
    low, high = requant_bounds(node, y) if node.overflow.saturates else format
    return {
        "op": "Requant",
        "dropped_bits": (y.exponent.broadcast(rank) - x.exponent.broadcast(rank)).tolist(),
        "rounding": node.rounding.value,
        "overflow": node.overflow.value,
        "low": int(low),
        "high": int(high),
    }


def _affine(graph: ExactGraph, node: ir.Affine) -> Mapping[str, list[int]]:
    """``x * multiplier + offset`` at the output's exponent."""
    x, m, *rest = (np.array(graph.tensors[name].exponent.values, dtype=object) for name in node.inputs)
    y = np.array(graph.tensors[node.output].exponent.values, dtype=object)
    multiplier = _scaled(graph.constants[node.inputs[1]], x + m - y)
    offset = _scaled(graph.constants[node.inputs[2]], rest[0] - y) if rest else np.zeros(1, dtype=object)
    return {"multiplier": _listed(multiplier), "offset": _listed(offset)}


def _scaled(values: IntArray, bits: IntArray) -> IntArray:
    """Constants (C,) or one of them, times powers of two."""
    return np.asarray(values.reshape(-1).astype(object) * np.array([1 << int(b) for b in bits], dtype=object))


def _rows(graph: ExactGraph, name: str) -> list[list[int]]:
    return [_listed(row) for row in graph.constants[name]]


def _listed(values: IntArray) -> list[int]:
    return [int(value) for value in values]
