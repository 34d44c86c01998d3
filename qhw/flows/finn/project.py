"""A FINN project as a folder: models, configurations, vectors, and how the graph's tensors travel in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qhw.errors import InputError
from qhw.flows.finn.carried import Carried, numbers
from qhw.flows.finn.emission.draft import Emitted
from qhw.formats.modes import IntArray
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.serialize import load_graph, save_graph
from qhw.outside.schema import by_name, check, table
from qhw.outside.text import read_json

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

DESCRIPTION = "qhw_project.json"
MODEL, HARDWARE, DATAFLOW = "model.onnx", "hardware.onnx", "dataflow.onnx"
SOURCES = "sources"
HOST = "host"
PRODUCTS = ("finn_build", "__pycache__")
"""What ``finn build`` makes in the folder."""

_SCHEMA = 1
_LARGEST_FILE = 1 << 32


@dataclass(frozen=True)
class Description:
    """The facts of a written project that its simulation needs.

    Args:
        name: the network's.
        part: the device, in AMD's tools.
        clock_ns: the period of the target clock.
        input, output: graph tensors at the ends of the stream.
        carried: how the graph's tensors travel.
        made_by: the graph's node that each tensor of the models was written for.
    """

    name: str
    part: str
    clock_ns: float
    input: str
    output: str
    carried: Mapping[str, Carried]
    made_by: Mapping[str, str]


def describe(emitted: Emitted, name: str, part: str, clock_ns: float) -> Description:
    """The facts of what was emitted, for a device and a clock."""
    return Description(name, part, clock_ns, emitted.input, emitted.output, emitted.carried, emitted.made_by)


def write_description(description: Description, folder: Path) -> None:
    """Write the description; the same facts give the same bytes."""

    def row(carried: Carried) -> dict[str, Any]:
        return {
            "name": carried.name,
            "shape": list(carried.shape),
            "multiplier": [int(v) for v in carried.multiplier],
            "offset": [int(v) for v in carried.offset],
            "order": None if carried.order is None else [int(v) for v in carried.order],
            "axes": None if carried.axes is None else list(carried.axes),
        }

    stored = {
        "schema": _SCHEMA,
        "flow": "finn",
        "name": description.name,
        "part": description.part,
        "clock_ns": description.clock_ns,
        "input": description.input,
        "output": description.output,
        "carried": {tensor: row(carried) for tensor, carried in description.carried.items()},
        "made_by": dict(description.made_by),
    }
    (folder / DESCRIPTION).write_text(json.dumps(stored, indent=1) + "\n")


_INTEGERS = {"type": "array", "items": {"type": "integer"}}
_SIZES = {"type": "integers", "maxItems": 64}
_CARRIED = table(
    {
        "name": {"type": "string"},
        "shape": _SIZES,
        "multiplier": _INTEGERS,
        "offset": _INTEGERS,
        "order": {"anyOf": [_INTEGERS, {"type": "null"}]},
        "axes": {"anyOf": [_SIZES, {"type": "null"}]},
    }
)
_DESCRIPTION = table(
    {
        "schema": {"const": _SCHEMA},
        "flow": {"const": "finn"},
        "name": {"type": "string"},
        "part": {"type": "string"},
        "clock_ns": {"type": "number", "exclusiveMinimum": 0},
        "input": {"type": "string"},
        "output": {"type": "string"},
        "carried": by_name(_CARRIED),
        "made_by": by_name({"type": "string"}),
    }
)


def read_description(folder: Path) -> Description:
    """The description of a project folder; InputError where it is something else."""
    path = folder / DESCRIPTION
    try:
        stored = read_json(path, "project's description", _LARGEST_FILE)
        check(stored, _DESCRIPTION, str(path))
        carried = {tensor: _carried(tensor, row) for tensor, row in stored["carried"].items()}
        for end in ("input", "output"):
            if stored[end] not in carried:
                raise ValueError(f"the {end} '{stored[end]}' is not among its tensors")
    except (ValueError, InputError) as error:
        raise InputError(f"{folder} is not a FINN project that qhw wrote: {error}") from error
    facts = {key: stored[key] for key in ("name", "part", "clock_ns", "input", "output", "made_by")}
    return Description(carried=carried, **facts)


def _carried(tensor: str, row: Mapping[str, Any]) -> Carried:
    order = None if row["order"] is None else np.array(row["order"], dtype=np.int64)
    shape, axes = tuple(row["shape"]), None if row["axes"] is None else tuple(row["axes"])
    if axes is not None and sorted(axes) != list(range(len(shape))):
        raise ValueError(f"'{tensor}' has {len(shape)} axes, which {list(axes)} does not order")
    parts = numbers(row["multiplier"]), numbers(row["offset"])
    carried = Carried(tensor, row["name"], shape, *parts, order, axes)
    channels = carried.channels
    if any(part.size not in (1, channels) for part in (carried.multiplier, carried.offset)):
        raise ValueError(f"'{tensor}' has neither one number nor {channels}, one per channel")
    if (carried.multiplier == 0).any():
        raise ValueError(f"'{tensor}' has multiplier 0")
    if order is not None and not np.array_equal(np.sort(order), np.arange(channels)):
        raise ValueError(f"the order of '{tensor}' is none of its {channels} elements")
    return carried


def host_graph(emitted: Emitted) -> ExactGraph | None:
    """What the host computes, as a graph of its own; None where the stream gives the network's output."""
    graph = emitted.graph
    if not emitted.host:
        return None
    cut = dataclasses.replace(graph, inputs=(emitted.output,), input_encodings={}, postprocessing=None)
    return cut.replace_nodes(list(emitted.host))


def write_vectors(emitted: Emitted, vectors: Mapping[str, IntArray], folder: Path) -> None:
    """Inputs and outputs of the stream for FINN's builder to verify with: (N, H, W, C) float32 .npy files."""
    folder.mkdir()
    given = np.asarray(vectors[emitted.input])
    answers = interpret(emitted.graph, {emitted.input: given}, keep={emitted.output})
    for name, tensor, values in (
        ("input.npy", emitted.input, given),
        ("expected_output.npy", emitted.output, answers[emitted.output]),
    ):
        np.save(folder / name, emitted.carried[tensor].integers(values), allow_pickle=False)


def save_model(model: ModelWrapper, path: Path) -> None:
    """Write a model, the same one always with the same bytes, with no path of this machine in it."""
    path.write_bytes(model.model.SerializeToString(deterministic=True))


def load_model(path: Path) -> ModelWrapper:
    """A model of a project folder, checked as any model file is."""
    from qonnx.core.modelwrapper import ModelWrapper

    from qhw.graph.reading.model_file import read_model

    return ModelWrapper(read_model(path))


def load_host(folder: Path) -> ExactGraph | None:
    """The host's part of a project; None where it has none."""
    return load_graph(folder / HOST) if (folder / HOST).is_dir() else None


def save_host(graph: ExactGraph | None, folder: Path) -> None:
    """Write the host's part, where there is one."""
    if graph is not None:
        (folder / HOST).mkdir()
        save_graph(graph, folder / HOST)
