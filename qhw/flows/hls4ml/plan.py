"""The layer list of a project: what hls4ml is given, and how the graph's tensors travel in it."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from qhw.errors import InputError, UnsupportedError
from qhw.flows.hls4ml.carry import (
    BRIDGE_BITS,
    CAST_ROUNDING,
    Carried,
    FixedType,
    Order,
    Stored,
    channels_last,
    fixed_type,
    listed,
    natural_order,
    nominal_exponent,
    shortest_period,
    to_float,
)
from qhw.flows.hls4ml.operands import operand_policy
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Overflow, Rounding, mantissa_bounds
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.infer import requant_bounds
from qhw.graph.ir import ExactGraph, Node

IoType = Literal["io_stream", "io_parallel"]

MAX_READERS = 7
"""How often hls4ml can copy one stream."""

LONGEST_NAME = 80
"""Characters of a layer's name: it becomes part of C++ identifiers, the graph's also of file names."""

MAX_LATENCY_WEIGHTS = 4096
"""Above this many weights a layer without reuse takes the Resource strategy: the Latency one unrolls them."""


@dataclass(frozen=True)
class LayerPlan:
    """One layer for hls4ml: its class, its inputs (layer names), its attributes, the type of each tensor.

    ``node`` is the graph node that it carries out (the last of them where a Requant was taken along).
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    types: Mapping[str, FixedType]
    node: str
    reuse_factor: int = 1
    strategy: str = "latency"


@dataclass
class Plan:
    """Everything that a project is written from.

    ``inputs``, ``outputs`` and ``traced`` say how the tensors travel that go in and out of a simulation.
    """

    name: str
    io_type: IoType
    graph: ExactGraph
    layers: list[LayerPlan] = field(default_factory=list)
    inputs: dict[str, Carried] = field(default_factory=dict)
    outputs: dict[str, Carried] = field(default_factory=dict)
    traced: dict[str, Carried] = field(default_factory=dict)
    unrolled_statements: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Kernel:
    """A call into the project's own header library (``hls/include/qhw``).

    ``constants`` and ``types`` (C++ text where they are no fixed-point types) become the members of its C++
    configuration; ``arrays`` what it stores.
    """

    function: str
    header: str
    constants: Mapping[str, int | str] = field(default_factory=dict)
    types: Mapping[str, FixedType | str] = field(default_factory=dict)
    arrays: Mapping[str, Stored] = field(default_factory=dict)


Mapper = Callable[["Planner", Any], None]
MAPPERS: dict[type[Node], Mapper] = {}
"""The mapper of every operation of the exact graph; filled by ``operations``."""


def maps(*operations: type[Node]) -> Callable[[Mapper], Mapper]:
    """Register a function as what carries out these operations."""

    def register(mapper: Mapper) -> Mapper:
        MAPPERS.update(dict.fromkeys(operations, mapper))
        return mapper

    return register


def identifier(name: str) -> str:
    """A name as a lower-case C identifier that is no keyword: no accents, cut short where it is very long."""
    letters = (c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    text = re.sub(r"[^a-z0-9]+", "_", "".join(letters)).strip("_")[:LONGEST_NAME].strip("_")
    return f"l_{text}" if text else "l_unnamed"


class Planner:
    """Maps a graph node by node; the mappers of ``operations`` call its helpers."""

    def __init__(self, graph: ExactGraph, io_type: IoType, folding: Mapping[str, int]):
        self.graph = graph
        self.folding = folding
        self.plan = Plan(identifier(graph.name).replace("l_", "qhw_", 1), io_type, graph)
        self.carried: dict[str, Carried] = {}
        self.decoded: dict[str, Carried] = {}
        self.absorbed: set[str] = set()
        self.names: set[str] = set()

    def run(self) -> Plan:
        """The plan of the whole graph; UnsupportedError names what cannot be carried exactly."""
        for tensor in self.graph.inputs:
            self.input(tensor)
        for node in self.graph.nodes:
            if node.name not in self.absorbed:
                self.mapper(node)(self, node)
        self.separate_outputs()
        self.share_streams()
        return self.plan

    def mapper(self, node: Node) -> Mapper:
        if type(node) not in MAPPERS:
            known = ", ".join(sorted(operation.op for operation in MAPPERS))
            raise UnsupportedError(
                f"{self.where(node)}: the hls4ml flow has no such operation", allowed=known
            )
        return MAPPERS[type(node)]

    def where(self, node: Node) -> str:
        """A node for a message."""
        source = f" (from {node.source})" if node.source and node.source != node.name else ""
        return f"{node.op} '{node.name}'{source}"

    def input(self, tensor: str) -> None:
        kind = self.graph.tensors[tensor]
        type_ = fixed_type(kind, f"input '{tensor}'")
        self.check_bridge(type_, f"input '{tensor}'")
        order, dims = channels_last(kind.shape)
        name = self.unique(f"in_{tensor}")
        self.plan.layers.append(
            LayerPlan(name, "InputLayer", (), {"input_shape": list(dims)}, {"result": type_}, tensor)
        )
        self.carry(tensor, Carried(name, dims, order, type_, listed(kind)))
        self.plan.inputs[tensor] = self.carried[tensor]

    def check_bridge(self, type_: FixedType, where: str) -> None:
        if type_.bits > BRIDGE_BITS:
            raise UnsupportedError(
                f"{where} has {type_.bits} bits",
                allowed=f"up to {BRIDGE_BITS} bits: the C-simulation takes and returns float64",
                hint="end the network in a narrower format",
            )

    def unique(self, name: str) -> str:
        """A layer name that is free: hls4ml keeps precisions by lower-cased name."""
        name = identifier(name)
        numbered = (f"{name}_{i}" for i in itertools.count(2))
        taken = next(n for n in itertools.chain([name], numbered) if n not in self.names)
        self.names.add(taken)
        return taken

    def carry(self, tensor: str, carried: Carried) -> None:
        """Say how a graph tensor travels."""
        self.carried[tensor] = replace(carried, type=carried.type.plain())

    def emit(
        self,
        node: Node,
        kind: str,
        inputs: Sequence[str],
        result: FixedType,
        attributes: Mapping[str, Any],
        *,
        types: Mapping[str, FixedType] | None = None,
        suffix: str = "",
        **options: Any,
    ) -> str:
        """Append a layer; returns its name."""
        name = self.unique(node.name + suffix)
        all_types = {"result": result, **(types or {})}
        self.plan.layers.append(
            LayerPlan(name, kind, tuple(inputs), dict(attributes), all_types, node.name, **options)
        )
        return name

    def kernel(
        self,
        node: Node,
        x: Carried | Sequence[Carried],
        kernel: Kernel,
        out: Carried,
        *,
        suffix: str = "",
        **options: Any,
    ) -> Carried:
        """Append a layer of the project's own; ``out`` says everything but the layer's name."""
        read = [x] if isinstance(x, Carried) else x
        attributes: dict[str, Any] = {
            "function": kernel.function,
            "header": kernel.header,
            "constants": dict(kernel.constants),
            "cpp_types": {
                name: type_ if isinstance(type_, str) else type_.cpp() for name, type_ in kernel.types.items()
            },
            "arrays": list(kernel.arrays),
            "out_dims": list(out.dims),
        }
        for name, stored in kernel.arrays.items():
            attributes[f"{name}_data"] = to_float(stored.mantissas, stored.exponent, self.where(node))
        types = {name: stored.type for name, stored in kernel.arrays.items()}
        inputs = [carried.layer for carried in read]
        layer = self.emit(
            node, "QhwLayer", inputs, out.type, attributes, types=types, suffix=suffix, **options
        )
        return replace(out, layer=layer)

    def elementwise(
        self,
        node: Node,
        x: Carried,
        operation: str,
        type_: FixedType,
        parameters: Mapping[str, Stored] | None = None,
        *,
        constants: Mapping[str, int | str] | None = None,
        types: Mapping[str, FixedType | str] | None = None,
        header: str = "qhw/elementwise.h",
        format: TableFormat | None = None,
        suffix: str = "",
    ) -> Carried:
        """Append an element-wise kernel; parameters are given for every element as it travels.

        ``format`` is the result's, where that travels as codes.
        """
        parameters = parameters or {}
        period = max((shortest_period(p.mantissas, 1, x.dims[-1]) for p in parameters.values()), default=1)
        kernel = Kernel(
            f"qhw::each<qhw::{operation}_op, {{input_t}}, {{output_t}}, {{config}}>",
            header,
            {"n_in": x.size, "n_param": period, **(constants or {})},
            types or {},
            {name: replace(p, mantissas=np.resize(p.mantissas, period)) for name, p in parameters.items()},
        )
        return self.kernel(node, x, kernel, replace(x, type=type_, format=format), suffix=suffix)

    def finish(self, tensor: str, carried: Carried) -> None:
        """Say how a computed tensor travels; narrow ones can be traced."""
        self.carry(tensor, carried)
        if carried.type.bits <= BRIDGE_BITS:
            self.plan.traced[tensor] = self.carried[tensor]

    def exact(self, node: Node) -> FixedType:
        """The type that holds a node's result exactly."""
        return fixed_type(self.graph.tensors[node.output], self.where(node))

    def operand(self, node: Node, index: int) -> Carried:
        """A computed operand of a node, as mantissas: codes are decoded, once for all that need it."""
        x, tensor = self.travelling(node, index), node.inputs[index]
        if x.format is None:
            return x
        if tensor not in self.decoded:
            kind = self.graph.tensors[tensor]
            held = Integer.holding(kind.format.mantissa_low, kind.format.mantissa_high)
            exact = FixedType(held.bits, held.is_signed, nominal_exponent(kind.exponent))
            types = {"x_format": operand_policy(x.format)}
            self.decoded[tensor] = self.elementwise(
                node, x, "decode", exact, types=types, header="qhw/convert.h", suffix=f"_{tensor}_decoded"
            )
        return self.decoded[tensor]

    def travelling(self, node: Node, index: int) -> Carried:
        """A computed operand of a node as it travels; refused by name where it is a constant."""
        tensor = node.inputs[index]
        if tensor in self.graph.constants:
            raise UnsupportedError(
                f"{self.where(node)}: operand {index} ('{tensor}') is a constant, which the hls4ml flow "
                "cannot take there"
            )
        return self.carried[tensor]

    def constant(self, node: Node, index: int) -> IntArray:
        """A constant operand of a node; refused by name where it is computed."""
        tensor = node.inputs[index]
        if tensor not in self.graph.constants:
            raise UnsupportedError(
                f"{self.where(node)}: operand {index} ('{tensor}') is computed; "
                "the hls4ml flow needs a constant"
            )
        return self.graph.constants[tensor]

    def exponents(self, tensor: str) -> IntArray:
        """A tensor's exponents, flat: one, or one per index of its axis."""
        return np.array(self.graph.tensors[tensor].exponent.values, dtype=np.int64)

    def element_exponents(self, tensor: str, shape: tuple[int, ...]) -> IntArray:
        """A tensor's exponents for every element of ``shape`` (which it broadcasts to), row-major."""
        kind = self.graph.tensors[tensor]
        exponent = kind.exponent.broadcast(len(kind.shape))
        return np.broadcast_to(exponent, shape).reshape(-1)

    def arranged(self, node: Node, x: Carried, order: Order, dims: tuple[int, ...]) -> Carried:
        """The tensor in that order and shape; a layer that moves its elements is appended if need be."""
        if x.arranged(order, dims):
            return x
        out = replace(x, layer="", dims=dims, order=order)
        return self.gather(node, x, x.places()[order], out, suffix="_order")

    def gather(
        self, node: Node, x: Carried, index: IntArray, out: Carried, *, value: int = 0, suffix: str = ""
    ) -> Carried:
        """Append a layer that moves mantissas: element i comes from ``index[i]``, ``x.size`` is padding."""
        kernel = Kernel(
            "qhw::gather<{input_t}, {output_t}, {config}>",
            "qhw/gather.h",
            {"n_in": x.size, "n_out": int(index.size), "value": value},
            arrays={"position": Stored(index, 0, FixedType(int(x.size).bit_length(), False, 0))},
        )
        return self.kernel(node, x, kernel, out, suffix=suffix)

    def channel_last(self, node: Node, index: int) -> Carried:
        """An operand with its channel last, as convolutions and pools need it; codes stay codes."""
        x = self.travelling(node, index)
        return self.arranged(node, x, *channels_last(self.graph.tensors[node.inputs[index]].shape))

    def following(self, node: Node) -> ir.Requant | None:
        """The Requant that alone reads a node's result."""
        consumers = self.graph.consumers(node.output)
        if len(consumers) != 1 or node.output in self.graph.outputs:
            return None
        return consumers[0] if isinstance(consumers[0], ir.Requant) else None

    def result(self, node: Node, exact: FixedType) -> tuple[str, FixedType]:
        """The tensor and type that a node's layer writes: a following Requant's, where a type says it all."""
        requant = self.following(node)
        if requant is None:
            return node.output, exact
        cast = self.cast_type(requant, exact)
        if cast is None or cast.overflow is Overflow.WRAP_SM:
            return node.output, exact
        self.absorbed.add(requant.name)
        return requant.output, cast

    def cast_type(self, node: ir.Requant, source: FixedType) -> FixedType | None:
        """The type whose modes do all that a Requant does; None where no type does."""
        kind = self.graph.tensors[node.output]
        if listed(kind) is not None:
            return None
        if not (kind.exponent.is_scalar and self.graph.tensors[node.inputs[0]].exponent.is_scalar):
            return None
        if source.exponent != nominal_exponent(self.graph.tensors[node.inputs[0]].exponent):
            return None
        target = fixed_type(kind, self.where(node))
        dropped = target.exponent - source.exponent
        if dropped >= source.bits:
            return None  # ap_fixed looks at bits beyond the source's, and its simulation stops there
        rounding = node.rounding if dropped > 0 else Rounding.TRN
        if rounding not in CAST_ROUNDING:
            return None
        if not node.overflow.saturates:
            return replace(target, rounding=rounding, overflow=node.overflow)
        bounds = requant_bounds(node, kind)
        modes = [node.overflow, *([Overflow.SAT_SYM] if node.overflow is Overflow.SAT else [])]
        for overflow in modes:
            if bounds == mantissa_bounds(target.bits, target.signed, overflow):
                return replace(target, rounding=rounding, overflow=overflow)
        return None

    def reuse(self, node: Node, n_in: int, n_out: int, legal: Sequence[int]) -> dict[str, Any]:
        """Reuse factor and strategy of a layer that multiplies; InputError where the factor is not legal."""
        factor = self.folding.get(node.name, 1)
        if factor not in legal:
            raise InputError(
                f"{self.where(node)}: reuse factor {factor} is not legal for {n_in} x {n_out} products",
                allowed=", ".join(map(str, legal)),
            )
        small = factor == 1 and n_in * n_out <= MAX_LATENCY_WEIGHTS
        return {"reuse_factor": factor, "strategy": "latency" if small else "resource"}

    def separate_outputs(self) -> None:
        """Give every graph output a layer of its own, which an input passed through has not."""
        seen = {carried.layer for carried in self.plan.inputs.values()}
        for tensor in self.graph.outputs:
            carried = self.carried[tensor]
            self.check_bridge(carried.type, f"output '{tensor}'")
            if carried.layer in seen:
                node = ir.Reshape(f"out_{tensor}", (tensor,), tensor)
                carried = self.gather(node, carried, natural_order((carried.size,)), carried)
            self.plan.outputs[tensor] = carried
            seen.add(carried.layer)

    def share_streams(self) -> None:
        """Let no stream be read more often than hls4ml can copy one: some readers have a copy of it."""
        layers, at = self.plan.layers, 0
        known = {c.layer: c for c in (*self.decoded.values(), *self.carried.values())}
        while self.plan.io_type == "io_stream" and at < len(layers):
            name = layers[at].name
            outputs = sum(carried.layer == name for carried in self.plan.outputs.values())
            readers = [
                (i, j) for i, to in enumerate(layers) for j, read in enumerate(to.inputs) if read == name
            ]
            if outputs + len(readers) > MAX_READERS:
                copied = self.copy(at, known[name], readers[MAX_READERS - 1 - outputs :])
                known[copied.layer] = copied
            at += 1

    def copy(self, at: int, x: Carried, readers: Sequence[tuple[int, int]]) -> Carried:
        """Insert a layer that repeats the one at ``at``; these readers (layer, input) take it from there."""
        layers, layer = self.plan.layers, self.plan.layers[at]
        copied = self.elementwise(ir.Reshape(f"{layer.node}_copy", (), ""), x, "keep", x.type)
        for i, j in readers:
            inputs = [copied.layer if k == j else read for k, read in enumerate(layers[i].inputs)]
            layers[i] = replace(layers[i], inputs=tuple(inputs))
        layers.insert(at + 1, replace(layers.pop(), node=layer.node))
        return copied
