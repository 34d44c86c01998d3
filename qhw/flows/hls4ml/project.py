"""Writes a plan as a project folder: hls4ml's files, the header library, the test bench and its vectors."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.boards import Board
from qhw.errors import InputError, ToolMissingError
from qhw.flows.folders import written_beside
from qhw.flows.hls4ml.carry import Carried, FixedType, Order, natural_order, physical
from qhw.flows.hls4ml.operands import TABLES_HEADER, is_looked_up, tables_header
from qhw.flows.hls4ml.plan import LayerPlan, Plan
from qhw.flows.hls4ml.streams import set_stream_depths
from qhw.flows.hls4ml.zynq import BehindDma, behind_dma, call_lines, write_behind_dma, write_wrapper
from qhw.formats.modes import IntArray
from qhw.formats.parse import parse_format
from qhw.formats.table import TableFormat
from qhw.graph.ir import TENSOR_SIZE_LIMIT
from qhw.outside.arrays import read_npy
from qhw.outside.schema import by_name, check, table
from qhw.outside.text import read_json
from qhw.resources import resource_dir

logger = logging.getLogger(__name__)

DESCRIPTION = "qhw_project.json"
ORDERS = "qhw_orders.npy"
_SCHEMA = 2
_LARGEST_FILE = 1 << 32


@dataclass(frozen=True)
class SimulatedTensor:
    """A graph tensor as the simulation returns it: its layer, its shape in the graph, how it travels."""

    tensor: str
    shape: tuple[int, ...]
    carried: Carried


@dataclass(frozen=True)
class Description:
    """The facts of a written project that its simulation needs."""

    name: str
    inputs: tuple[SimulatedTensor, ...]
    outputs: tuple[SimulatedTensor, ...]
    traced: tuple[SimulatedTensor, ...]
    nodes: Mapping[str, str]
    """Graph node by layer name."""


def describe(plan: Plan) -> Description:
    """The facts of a plan's project that its simulation will need."""

    def ports(carried: Mapping[str, Carried]) -> tuple[SimulatedTensor, ...]:
        return tuple(
            SimulatedTensor(tensor, plan.graph.tensors[tensor].shape, c) for tensor, c in carried.items()
        )

    return Description(
        plan.name,
        ports(plan.inputs),
        ports(plan.outputs),
        ports(plan.traced),
        {layer.name: layer.node for layer in plan.layers},
    )


def write_project(
    plan: Plan,
    board: Board,
    out: Path,
    vectors: tuple[Mapping[str, IntArray], Mapping[str, IntArray]],
    multipliers: str = "auto",
) -> None:
    """Write the folder ``out``: everything goes into a folder beside it, which is then renamed.

    ``vectors`` are input and expected output mantissas for the test bench. Raises InputError where ``out`` is
    there, but not a project.
    """
    if out.exists():
        read_description(out)
    with written_beside(out) as beside:
        model = _hls4ml_project(plan, board, beside)
        library = beside / "firmware" / "qhw"
        shutil.copytree(resource_dir("hls") / "include" / "qhw", library)
        looked_up = [t.format for t in plan.graph.tensors.values() if is_looked_up(t.format)]
        if looked_up:
            (library / TABLES_HEADER).write_text(tables_header(looked_up))
        description = describe(plan)
        _write_description(description, beside)
        behind = behind_dma(model, description, plan.io_type, board)
        _write_test_bench(model, description, behind, beside)
        _write_vectors(description, vectors, beside / "tb_data")
        _write_build_options(beside)
        _set_language(beside / "build_prj.tcl")
        _set_multipliers(beside / "build_prj.tcl", multipliers)
        if behind is not None:
            write_wrapper(behind, beside)
            write_behind_dma(behind, plan.graph, board, multipliers, beside)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Redirect what hls4ml prints to the log."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        yield
    for line in filter(None, said.getvalue().splitlines()):
        logger.debug("hls4ml: %s", line)


def _hls4ml_project(plan: Plan, board: Board, folder: Path) -> Any:
    """Let hls4ml write its part; nothing in it depends on the time or on where the folder is."""
    try:
        from hls4ml.model.graph import ModelGraph

        from qhw.flows.hls4ml.extension import vitis_backend
    except ImportError as error:
        raise ToolMissingError("hls4ml is not installed", hint="pip install 'qhw[hls4ml]'") from error
    with _quiet():
        backend = vitis_backend()
        config = backend.create_initial_config(
            part=board.part, clock_period=_period(board), io_type=plan.io_type
        )
        config |= {
            "OutputDir": str(folder),
            "ProjectName": plan.name,
            "Backend": "Vitis",
            "Version": "1.0.0",
            "TraceOutput": True,
            "HLSConfig": _hls_config(plan),
        }
        inputs = [carried.layer for carried in plan.inputs.values()]
        outputs = [carried.layer for carried in plan.outputs.values()]
        model = ModelGraph.from_layer_list(config, [_layer(layer) for layer in plan.layers], inputs, outputs)
        model.config.config["Stamp"] = "qhw"
        set_stream_depths(model)
        backend.writer.write_hls(model)
    _relocatable(folder / "hls4ml_config.yml", folder)
    _guarded(folder / "firmware" / "nnet_utils" / "nnet_sepconv1d_latency.h")
    return model


def _period(board: Board) -> float | int:
    """The clock period in ns, as short as it can be said."""
    period = round(1e3 / board.clock_mhz, 4)
    return int(period) if period == int(period) else period


def _layer(layer: LayerPlan) -> dict[str, Any]:
    return {"class_name": layer.kind, "name": layer.name, "inputs": list(layer.inputs), **layer.attributes}


def _hls_config(plan: Plan) -> dict[str, Any]:
    traced = {carried.layer for carried in plan.traced.values()}
    layers = {}
    for layer in plan.layers:
        layers[layer.name] = {
            "Precision": {name: type_.hls4ml() for name, type_ in layer.types.items()},
            "Trace": layer.name in traced,
            "ReuseFactor": layer.reuse_factor,
            "Strategy": layer.strategy,
        }
    model = {"Precision": {"default": "fixed<16,6>"}, "ReuseFactor": 1, "Strategy": "Latency"}
    return {"Model": model, "LayerName": layers}


def _relocatable(config: Path, folder: Path) -> None:
    """Take the folder's own path out of hls4ml's configuration file."""
    import yaml  # comes with hls4ml, which wrote the file with it

    own = yaml.dump({"OutputDir": str(folder)})
    config.write_text(config.read_text().replace(own, "OutputDir: .\n"))


def _guarded(header: Path) -> None:
    """Give a header a guard of its own: in hls4ml 1.3 it has that of its two-dimensional sibling."""
    header.write_text(
        header.read_text().replace("NNET_SEPARABLE_CONV2D_LATENCY_H_", "NNET_SEPARABLE_CONV1D_LATENCY_H_")
    )


def _write_build_options(folder: Path) -> None:
    """C synthesis after C-simulation of the vectors; ``synthesise`` and a user's own run do the same."""
    steps = {
        "reset": 1,
        "csim": 1,
        "synth": 1,
        "cosim": 0,
        "validation": 0,
        "export": 0,
        "vsynth": 0,
        "fifo_opt": 0,
    }
    lines = [f"    {step:<10} {on}" for step, on in steps.items()]
    (folder / "build_opt.tcl").write_text("\n".join(["array set opt {", *lines, "}", ""]))


def _set_language(script: Path) -> None:
    """Let the vendor's tools compile C++17, which the header library is written in."""
    script.write_text(script.read_text().replace("-std=c++0x", "-std=c++17"))


def _set_multipliers(script: Path, multipliers: str) -> None:
    """Tell Vitis HLS what multiplies: LUTs or DSP slices alone; else it chooses."""
    implementation = {"lut": "fabric", "dsp": "dsp"}.get(multipliers)
    if implementation is not None:
        text = script.read_text()
        opened = next(line for line in text.splitlines() if line.startswith("create_clock "))
        script.write_text(text.replace(opened, f"{opened}\nconfig_op mul -impl {implementation}", 1))


def _write_test_bench(model: Any, description: Description, behind: BehindDma | None, folder: Path) -> None:
    """Replace hls4ml's test bench by one that compares, and that is the C-simulation too.

    It calls the function between a DMA engine's beats, where there is one.
    """
    text = (resource_dir("hls") / "hls4ml" / "test_bench.cpp").read_text()
    inputs, outputs = model.get_input_variables(), model.get_output_variables()
    traced = "".join(f'{{"{p.carried.layer}", {p.carried.size}}}, ' for p in description.traced)
    fields = {
        "project": description.name,
        "header": description.name if behind is None else f"{description.name}_axi",
        "input_size": str(sum(port.carried.size for port in description.inputs)),
        "output_size": str(sum(port.carried.size for port in description.outputs)),
        "traced": traced.rstrip(),
        "run": "\n".join(f"    {line}" for line in _run_lines(description, inputs, outputs, behind)),
    }
    for name, value in fields.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    (folder / f"{description.name}_test.cpp").write_text(text)


def _run_lines(
    description: Description, inputs: Any, outputs: Any, behind: BehindDma | None
) -> Iterator[str]:
    """C++ that converts one sample in, calls the top function, and converts its outputs back."""
    start = 0
    for variable, port in zip(inputs, description.inputs, strict=True):
        size = port.carried.size
        yield f"{variable.definition_cpp()};"
        yield f"nnet::convert_data<double, {variable.type.name}, {size}>(in + {start}, {variable.name});"
        start += size
    for variable in outputs:
        yield f"{variable.definition_cpp()};"
    if behind is None:
        yield f"{description.name}({', '.join(v.name for v in (*inputs, *outputs))});"
    else:
        yield from call_lines(behind)
    start = 0
    for variable, port in zip(outputs, description.outputs, strict=True):
        size = port.carried.size
        yield f"nnet::convert_data<{variable.type.name}, double, {size}>({variable.name}, out + {start});"
        start += size


def _write_vectors(
    description: Description,
    vectors: tuple[Mapping[str, IntArray], Mapping[str, IntArray]],
    folder: Path,
) -> None:
    for name, ports, values in (
        ("tb_input_features.dat", description.inputs, vectors[0]),
        ("tb_output_predictions.dat", description.outputs, vectors[1]),
    ):
        rows = batch(ports, values)
        text = "".join(" ".join(_number(v) for v in row) + "\n" for row in rows)
        (folder / name).write_text(text)


def batch(ports: tuple[SimulatedTensor, ...], values: Mapping[str, IntArray]) -> NDArray[np.float64]:
    """Mantissas by tensor as the project takes them: (N, all elements) float64."""
    return np.concatenate([physical(p.carried, np.asarray(values[p.tensor])) for p in ports], axis=1)


def _number(value: np.float64) -> str:
    return repr(int(value)) if value == int(value) else repr(float(value))


def _write_description(description: Description, folder: Path) -> None:
    """The description, with the orders that are not plain kept beside it, each once."""
    orders: list[Order] = []

    def port(entry: SimulatedTensor) -> dict[str, Any]:
        carried = entry.carried
        return {
            "tensor": entry.tensor,
            "shape": entry.shape,
            "layer": carried.layer,
            "dims": carried.dims,
            "type": {key: getattr(carried.type, key) for key in ("bits", "signed", "exponent")},
            "order": _order_reference(carried.order, orders),
            "format": None if carried.format is None else str(carried.format),
        }

    text = {
        "schema": _SCHEMA,
        "flow": "hls4ml",
        "name": description.name,
        **{kind: [port(p) for p in getattr(description, kind)] for kind in ("inputs", "outputs", "traced")},
        "nodes": dict(description.nodes),
    }
    (folder / DESCRIPTION).write_text(json.dumps(text, indent=1) + "\n")
    flat = np.concatenate(orders) if orders else np.empty(0, dtype=np.int64)
    np.save(folder / ORDERS, flat.astype(np.int64), allow_pickle=False)


def _order_reference(order: Order, orders: list[Order]) -> int | None:
    """The start of an order in the file of orders; None for the plain one."""
    if np.array_equal(order, natural_order((order.size,))):
        return None
    start = 0
    for known in orders:
        if np.array_equal(known, order):
            return start
        start += known.size
    orders.append(order)
    return start


def read_description(folder: Path) -> Description:
    """The description of a project folder; InputError where it is something else."""
    path = folder / DESCRIPTION
    try:
        stored = read_json(path, "project's description", _LARGEST_FILE)
        check(stored, _DESCRIPTION, str(path))
        orders = read_npy(folder / ORDERS, "project's file of orders", _LARGEST_FILE)
        if orders.dtype != np.int64 or orders.ndim != 1:
            raise ValueError(f"{ORDERS} holds {orders.dtype} of shape {orders.shape}, not positions")
        kinds = {
            kind: tuple(_port(p, orders) for p in stored[kind]) for kind in ("inputs", "outputs", "traced")
        }
        return Description(stored["name"], nodes=stored["nodes"], **kinds)
    except (ValueError, InputError) as error:
        raise InputError(f"{folder} is not an hls4ml project that qhw wrote: {error}") from error


_IDENTIFIER = {"type": "string", "pattern": r"^[A-Za-z_][A-Za-z0-9_]*\Z", "maxLength": 1024}
"""A name in C++: it stands in commands and paths, too."""

_SIZES = {"type": "integers", "maxItems": 64}
_PORT = table(
    {
        "tensor": {"type": "string"},
        "shape": _SIZES,
        "layer": _IDENTIFIER,
        "dims": _SIZES,
        "type": table(
            {
                "bits": {"type": "integer", "minimum": 1, "maximum": 1024},
                "signed": {"type": "boolean"},
                "exponent": {"type": "integer", "minimum": -8192, "maximum": 8192},
            }
        ),
        "order": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
        "format": {"type": ["string", "null"]},
    }
)
_PORTS = {"type": "array", "items": _PORT}
_DESCRIPTION = table(
    {
        "schema": {"const": _SCHEMA},
        "flow": {"const": "hls4ml"},
        "name": _IDENTIFIER,
        **dict.fromkeys(("inputs", "outputs", "traced"), _PORTS),
        "nodes": by_name({"type": "string"}),
    }
)


def _is_permutation(order: Order, size: int) -> bool:
    """Whether every position below ``size`` is there once."""
    if order.size != size or (size and not 0 <= order.min() <= order.max() < size):
        return False
    found = np.zeros(size, dtype=np.bool_)
    found[order] = True
    return bool(found.all())


def _size(shape: list[int]) -> int:
    """The elements of a shape, a sane one."""
    size = math.prod(shape)
    if min(shape, default=0) < 0 or size > TENSOR_SIZE_LIMIT:
        raise ValueError(f"shape {shape} is none of at most {TENSOR_SIZE_LIMIT} elements")
    return size


def _port(stored: dict[str, Any], orders: Order) -> SimulatedTensor:
    size = _size(stored["shape"])
    if _size(stored["dims"]) != size:
        raise ValueError(f"'{stored['tensor']}' has shape {stored['shape']} and travels as {stored['dims']}")
    start = stored["order"]
    order = natural_order((size,)) if start is None else orders[start : start + size]
    if not _is_permutation(order, size):
        raise ValueError(f"the order of '{stored['tensor']}' is none of its {size} elements")
    kind = stored["type"]
    type_ = FixedType(kind["bits"], kind["signed"], kind["exponent"])
    format = None if stored["format"] is None else parse_format(stored["format"])
    if not isinstance(format, TableFormat | None):
        raise ValueError(f"'{stored['tensor']}' travels as codes of {format}")
    carried = Carried(stored["layer"], tuple(stored["dims"]), order, type_, format)
    return SimulatedTensor(stored["tensor"], tuple(stored["shape"]), carried)
