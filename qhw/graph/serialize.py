"""An exact graph as two plain files, and the hashes of its content.

``graph.json`` holds the structure, ``constants.npz`` the numbers (no pickle). Node hashes take in the
operation, its attributes, its types, its constants and the hashes of what it reads: two nodes with one
hash compute the same codes.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from qhw.errors import InputError, QhwError
from qhw.formats.base import Format
from qhw.formats.integer import as_mantissas
from qhw.formats.modes import IntArray, Rounding
from qhw.formats.parse import parse_format
from qhw.formats.table import TableFormat
from qhw.graph.builder import value_ranges
from qhw.graph.ir import (
    OPERATIONS,
    TENSOR_SIZE_LIMIT,
    ExactGraph,
    Exponent,
    HostStep,
    InputEncoding,
    InputStep,
    Node,
    OutputScale,
    Postprocessing,
    TensorType,
)
from qhw.outside import shown
from qhw.outside.arrays import read_npz
from qhw.outside.schema import by_name, check, of_fields, table
from qhw.outside.text import read_json

SCHEMA_VERSION = 1
MAX_BYTES = 1 << 30
"""Bound on each file of a saved graph."""

LARGEST_EXPONENT = 1 << 12
"""Bound of an exponent's size: shifts to align numbers stay short."""

_LONGEST_REASON = 2000
"""Characters of a message about a file that are passed on: it may quote names of any length."""

# Exceptions that a damaged file raises while it is read and checked.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    AssertionError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


def graph_hash(graph: ExactGraph) -> str:
    """SHA-256 of everything that decides a graph's output codes and its names."""
    digest = hashlib.sha256(json.dumps(_structure(graph), sort_keys=True).encode())
    for name in sorted(graph.constants):
        digest.update(name.encode() + _constant_bytes(graph.constants[name]))
    return digest.hexdigest()


def node_hashes(graph: ExactGraph) -> dict[str, str]:
    """A content hash per node name; names, and the source that messages quote, do not enter it."""
    tensors: dict[str, str] = {}
    for name in graph.inputs:
        encoding = graph.input_encodings.get(name)
        tensors[name] = _digest(
            _type_fields(graph.tensors[name]), _encoding_fields(encoding) if encoding else None
        )
    for name, value in graph.constants.items():
        tensors[name] = _digest(_type_fields(graph.tensors[name]), _constant_bytes(value).hex())
    hashes = {}
    for node in graph.nodes:
        content = {
            k: v for k, v in _node_fields(node).items() if k not in ("name", "inputs", "output", "source")
        }
        key = _digest(content, [tensors[i] for i in node.inputs], _type_fields(graph.tensors[node.output]))
        hashes[node.name] = tensors[node.output] = key
    return hashes


def save_graph(graph: ExactGraph, folder: Path) -> None:
    """Write ``graph.json`` and ``constants.npz`` into a folder; the same graph gives the same bytes."""
    (folder / "graph.json").write_text(json.dumps(_stored(graph), indent=1) + "\n")
    with zipfile.ZipFile(folder / "constants.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for index, name in enumerate(sorted(graph.constants)):
            # A fixed date keeps the bytes a function of the content alone.
            entry = zipfile.ZipInfo(f"{index}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, _storable(graph.constants[name]), allow_pickle=False)


def load_graph(folder: Path) -> ExactGraph:
    """Read a saved graph and check it; InputError names the file and field that is wrong."""
    path = folder / "graph.json"
    stored = read_json(path, "exact graph", MAX_BYTES, hint=_AGAIN)
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(f"{path} has schema_version {shown(version)}", allowed=str(SCHEMA_VERSION))
    check(stored, _schema(), str(path), _AGAIN)
    try:
        graph = _graph(stored, _load_constants(folder / "constants.npz", stored))
        if graph.output_names and len(graph.output_names) != len(graph.outputs):
            raise ValueError(f"{len(graph.outputs)} outputs have {len(graph.output_names)} names")
        known = {node.output for node in graph.nodes} | set(graph.inputs) | set(graph.constants)
        if missing := [name for name in graph.outputs if name not in known]:
            raise ValueError(f"nothing writes the output {shown(missing[0])}")
        value_ranges(graph)
        _check_host_steps(graph)
    except QhwError as error:
        where = "" if str(folder) in error.message else f"{path}: "
        error.message = f"{where}{error.message[:_LONGEST_REASON]}"
        raise
    except _DAMAGE as error:
        raise InputError(
            f"{folder} holds no valid exact graph: {str(error)[:_LONGEST_REASON]}", hint=_AGAIN
        ) from error
    return graph


_AGAIN = "lower a QONNX model, or build, again"


@cache
def _schema() -> dict[str, Any]:
    """The schema of ``graph.json``, nodes left out: their fields are those of their operation."""
    text, optional_text = {"type": "string"}, {"type": ["string", "null"]}
    kind = table(
        {
            "shape": {"type": "integers"},
            "format": text,
            "exponent": {"type": "integers", "minItems": 1},
            "axis": {"type": ["integer", "null"]},
        }
    )
    step = table({"op": text, "operands": {"type": "array"}, "attributes": {"type": "array", "items": _PAIR}})
    encoding = of_fields(InputEncoding, format=optional_text, before={"type": "array", "items": step})
    numbers = {"type": "array", "items": {"type": "number"}, "minItems": 1}
    host = of_fields(HostStep, attributes={"type": "object"})
    return table(
        {
            "schema_version": {"const": SCHEMA_VERSION},
            "name": text,
            **{name: {"type": "texts", "minItems": 1} for name in ("inputs", "outputs")},
            "constants": {"type": "texts"},
            "input_encodings": by_name(encoding),
            "output_scales": by_name(of_fields(OutputScale, scale=numbers, offset=numbers)),
            "tensors": by_name(kind),
            "nodes": {"type": "array", "items": {"type": "object", "required": ["op", "name"]}},
        },
        {
            "postprocessing": of_fields(Postprocessing, steps={"type": "array", "items": host}),
            "output_names": {"type": "texts"},
        },
    )


_PAIR = {"type": "array", "prefixItems": [{"type": "string"}], "minItems": 2, "maxItems": 2}


@cache
def _node_schema(op: str) -> dict[str, Any]:
    schema = of_fields(OPERATIONS[op])
    return {**schema, "properties": {**schema["properties"], "op": {"const": op}}}


def _check_host_steps(graph: ExactGraph) -> None:
    """Carry out once what the host does before and behind the graph: where operands do not fit, it raises."""
    from qhw.graph.encode import decode_output
    from qhw.graph.tails.host import carry_out
    from qhw.sim.postprocess import postprocess, predicted_classes

    for name, encoding in graph.input_encodings.items():
        shape = (1, *graph.tensors[name].shape)
        if carry_out(encoding.before, np.zeros(shape, dtype=np.float32)).shape != shape:
            raise ValueError(f"the operations on input '{name}' change its shape {shape}")
    if graph.postprocessing is not None:
        _check_written_once(graph.postprocessing)
        zeros = {name: np.zeros((1, *graph.tensors[name].shape), dtype=np.int64) for name in graph.outputs}
        with np.errstate(all="ignore"):
            values = {name: decode_output(graph, name, zero) for name, zero in zeros.items()}
            postprocess(graph, values)
            predicted_classes(graph, values)


def _check_written_once(after: Postprocessing) -> None:
    """A step writes tensors of its own: whoever follows one back to what it was made of comes to an end."""
    known = set(after.reads)
    for step in after.steps:
        if known & set(step.outputs):
            raise ValueError(f"the host step {shown(step.source)} writes what is there already")
        known |= set(step.outputs) - {""}


def _structure(graph: ExactGraph) -> dict[str, Any]:
    after = graph.postprocessing
    return {
        "schema_version": SCHEMA_VERSION,
        "name": graph.name,
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
        "input_encodings": {k: _encoding_fields(v) for k, v in sorted(graph.input_encodings.items())},
        "output_scales": {k: _scale_fields(v) for k, v in sorted(graph.output_scales.items())},
        "constants": sorted(graph.constants),
        "tensors": {k: _type_fields(v) for k, v in sorted(graph.tensors.items())},
        "nodes": [_node_fields(node) for node in graph.nodes],
    } | ({} if after is None else {"postprocessing": dataclasses.asdict(after)})


def _stored(graph: ExactGraph) -> dict[str, Any]:
    """The structure, and how a file calls what comes out."""
    names = {"output_names": list(graph.output_names)} if graph.output_names else {}
    return _structure(graph) | names


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Format):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}


def _scale_fields(scale: OutputScale) -> dict[str, Any]:
    """An axis is stored only where it is not the channels'."""
    fields = _fields(scale)
    return fields if scale.axis else {k: v for k, v in fields.items() if k != "axis"}


def _encoding_fields(encoding: InputEncoding) -> dict[str, Any]:
    """An encoding's fields; the host's operations in front of the quantizer only where there are any."""
    fields = _fields(encoding)
    steps = [_fields(step) for step in fields.pop("before")]
    for step in steps:
        step |= {name: _without_infinity(step[name]) for name in ("operands", "attributes")}
    return fields | ({"before": steps} if steps else {})


_INFINITE = {"inf": math.inf, "-inf": -math.inf}
"""How a bound that there is not stands in a file: JSON has no infinity."""


def _without_infinity(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_infinity(part) for part in value]
    return str(float(value)) if value in _INFINITE.values() else value


def _with_infinity(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_infinity(part) for part in value]
    return _INFINITE.get(value, value) if isinstance(value, str) else value


def _node_fields(node: Node) -> dict[str, Any]:
    return {"op": node.op, **_fields(node)}


def _type_fields(kind: TensorType) -> dict[str, Any]:
    return {
        "shape": list(kind.shape),
        "format": str(kind.format),
        "exponent": list(kind.exponent.values),
        "axis": kind.exponent.axis,
    }


def _storable(value: IntArray) -> IntArray:
    """int64 as it is; wider integers as text, so that no pickle is needed."""
    return value if value.dtype != object else np.array([str(v) for v in value.flat]).reshape(value.shape)


def _constant_bytes(value: IntArray) -> bytes:
    stored = _storable(value)
    return f"{stored.dtype.kind}{stored.shape}".encode() + np.ascontiguousarray(stored).tobytes()


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _load_constants(path: Path, stored: dict[str, Any]) -> dict[str, IntArray]:
    constants = {}
    arrays = read_npz(path, "file of constants", MAX_BYTES)
    for index, name in enumerate(stored["constants"]):
        value = arrays[str(index)]
        if value.dtype.kind not in "iU":
            raise InputError(f"{path}: constant '{name}' has type {value.dtype}", allowed="integers")
        if value.dtype.kind == "U":
            integers = np.array([int(v) for v in value.flat], dtype=object)
            value = as_mantissas(integers.reshape(value.shape))
        constants[name] = value
    return constants


def _node(stored: dict[str, Any]) -> Node:
    stored = dict(stored)
    where, op = f"node {shown(stored['name'])}", stored["op"]
    if not isinstance(op, str) or op not in OPERATIONS:
        raise InputError(f"{where} has operation {shown(op)}", allowed=", ".join(OPERATIONS))
    check(stored, _node_schema(op), where)
    del stored["op"]
    kinds = get_type_hints(OPERATIONS[op])
    return OPERATIONS[op](**{name: _attribute(value, kinds.get(name)) for name, value in stored.items()})


def _attribute(value: Any, kind: Any) -> Any:
    """A node's field, from what :func:`_plain` made of it."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    return tuple(value) if isinstance(value, list) else value


def _type(name: str, fields: dict[str, Any]) -> TensorType:
    exponents = fields["exponent"]
    if any(abs(exponent) > LARGEST_EXPONENT for exponent in exponents):
        raise InputError(
            f"tensor '{name}' has exponents up to {max(exponents, key=abs)}",
            allowed=f"-{LARGEST_EXPONENT} to {LARGEST_EXPONENT}",
        )
    shape = tuple(fields["shape"])
    if min(shape, default=1) < 0 or math.prod(shape) > TENSOR_SIZE_LIMIT:
        raise InputError(
            f"tensor '{name}' has shape {shape}", allowed=f"at most {TENSOR_SIZE_LIMIT} elements"
        )
    return TensorType(shape, parse_format(fields["format"]), Exponent(tuple(exponents), fields["axis"]))


def _encoding(fields: dict[str, Any]) -> InputEncoding:
    format = fields.get("format")
    changed = {
        "rounding": Rounding(fields["rounding"]),
        "format": format and _table_format(format),
        "before": tuple(_input_step(step) for step in fields.get("before", ())),
    }
    return InputEncoding(**{**fields, **changed})


def _input_step(fields: dict[str, Any]) -> InputStep:
    options = {name: _tuples(_with_infinity(value)) for name, value in fields["attributes"]}
    operands = _tuples(_with_infinity(fields["operands"]))
    return InputStep(str(fields["op"]), operands, tuple(sorted(options.items())))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _table_format(text: str) -> TableFormat:
    format = parse_format(text)
    if not isinstance(format, TableFormat):
        raise ValueError(f"an input is encoded in {format}, which lists no codes")
    return format


def _graph(stored: dict[str, Any], constants: dict[str, IntArray]) -> ExactGraph:
    encodings = {name: _encoding(fields) for name, fields in stored["input_encodings"].items()}
    scales = {
        name: OutputScale(tuple(fields["scale"]), tuple(fields["offset"]), fields.get("axis", 0))
        for name, fields in stored["output_scales"].items()
    }
    tensors = {name: _type(name, fields) for name, fields in stored["tensors"].items()}
    return ExactGraph(
        stored["name"],
        tuple(stored["inputs"]),
        tuple(stored["outputs"]),
        tensors,
        constants,
        [_node(node) for node in stored["nodes"]],
        encodings,
        scales,
        Postprocessing.from_mapping(stored["postprocessing"]) if "postprocessing" in stored else None,
        tuple(stored.get("output_names", ())),
    )
