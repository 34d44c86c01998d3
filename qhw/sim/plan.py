"""Turns an exact graph into fused steps, once; each step is a function of the tensors before it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qhw.formats.base import Format
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.builder import value_ranges
from qhw.graph.interpreter import run_node
from qhw.graph.ir import ExactGraph, Node
from qhw.sim.backends import Backend, Geometry, exact_float, product_bound
from qhw.sim.chain import Array, ChainStep, Interval, MultiplyAdd, fold, peak, steps_of, weighted_factors
from qhw.sim.elementwise import CompiledChain, NumpyChain
from qhw.sim.native import elementwise_kernel

Run = Callable[[Mapping[str, Array]], Array]

_LANES = {32: (1 << 31) - 2, 64: (1 << 63) - 2}


@dataclass(frozen=True)
class FusedStep:
    """One fused step: the tensor it writes, the tensors it reads, and the function."""

    output: str
    inputs: frozenset[str]
    run: Run


def carrier(format: Format) -> np.dtype[np.generic]:
    """The narrowest NumPy type that holds a format's mantissas; object beyond 64 bits."""
    low, high = format.mantissa_low, format.mantissa_high
    for kind in (np.uint8, np.int8, np.int16, np.int32, np.int64):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return np.dtype(kind)
    return np.dtype(object)


def _fits_int64(graph: ExactGraph, tensor: str) -> bool:
    return carrier(graph.tensors[tensor].format) != np.dtype(object)


@dataclass(frozen=True)
class _Link:
    """A chain step, and the interval known to hold after it, where its node ends there."""

    step: ChainStep
    interval: Interval | None


@dataclass
class _Chain:
    """A chain that is being built."""

    start: Interval
    output: str
    links: list[_Link] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)


@dataclass
class ExecutionPlanner:
    """Plans one graph for one backend; ``keep`` names tensors that must be written, not fused away."""

    graph: ExactGraph
    backend: Backend
    keep: Collection[str]
    threads: int
    intervals: dict[str, Interval] = field(init=False)

    def __post_init__(self) -> None:
        self.intervals = {name: r.bounds for name, r in value_ranges(self.graph).items()}
        self._consumers: dict[str, list[Node]] = {}
        for node in self.graph.nodes:
            for name in dict.fromkeys(node.inputs):
                self._consumers.setdefault(name, []).append(node)
        self._wanted_types: dict[str, np.dtype[np.generic]] = {}
        self._products = {n.name: p for n in self.graph.nodes if (p := self._prepare_products(n)) is not None}
        self._kernel = elementwise_kernel()

    def plan(self) -> list[FusedStep]:
        """Fused steps in an order that can be run."""
        steps: list[FusedStep] = []
        available, done = set(self.graph.inputs), set[str]()
        for node in self.graph.nodes:
            if node.name in done:
                continue
            nodes, chain = self._grow(node, available)
            steps.append(self._step(node, nodes, chain))
            done.update(n.name for n in nodes)
            available.add(nodes[-1].output)
        return steps

    def type_of(self, tensor: str) -> np.dtype[np.generic]:
        """The type that a tensor is kept in: what its product reads, else the narrowest."""
        return self._wanted_types.get(tensor, carrier(self.graph.tensors[tensor].format))

    def _grow(self, first: Node, available: Collection[str]) -> tuple[list[Node], _Chain | None]:
        """The longest run of nodes from ``first`` that one chain can execute."""
        chain = self._start(first)
        if chain is None:
            return [first], None
        nodes, current = [first], first
        while (following := self._only_consumer(current)) is not None:
            others = {*self.graph.activations(following)} - {current.output}
            extended = self._extended(chain, following, current.output) if others <= {*available} else None
            if extended is None:
                break
            chain, current = extended, following
            nodes.append(current)
        return nodes, chain

    def _only_consumer(self, node: Node) -> Node | None:
        readers = self._consumers.get(node.output, [])
        free = node.output not in self.keep and node.output not in self.graph.outputs
        if not free or len(readers) != 1 or isinstance(readers[0], ir.Conv | ir.MatMul | ir.SumPool):
            return None
        return readers[0]

    def _start(self, node: Node) -> _Chain | None:
        if node.name in self._products:
            bound = self._products[node.name].bound
            return self._extended(_Chain((-bound, bound), node.output), node, None)
        if isinstance(node, ir.Conv | ir.MatMul | ir.SumPool):
            return None
        main = next(self.graph.activations(node), None)
        return self._extended(_Chain(self.intervals[main], node.output), node, main) if main else None

    def _extended(self, chain: _Chain, node: Node, main: str | None) -> _Chain | None:
        """The chain with a node appended, if its steps exist and 63 bits hold all their numbers."""
        steps = steps_of(self.graph, node, main)
        if steps is None or not _fits_int64(self.graph, node.output):
            return None
        links = chain.links + [_Link(s, None) for s in steps]
        if steps:
            links[-1] = _Link(steps[-1], self.intervals[node.output])
        reads = chain.reads | ({*self.graph.activations(node)} - {main} if main is not None else set())
        extended = _Chain(chain.start, node.output, _folded(links), reads)
        return extended if self._peak(extended) <= _LANES[64] else None

    def _peak(self, chain: _Chain) -> int:
        """The largest magnitude that any step of a chain forms."""
        interval, top = chain.start, max(map(abs, chain.start))
        for link in chain.links:
            interval, formed = peak(link.step, interval, self.intervals)
            interval = interval if link.interval is None else link.interval
            top = max(top, formed, *map(abs, interval))
        return top

    def _step(self, first: Node, nodes: list[Node], chain: _Chain | None) -> FusedStep:
        if chain is None:
            return self._unfused(first)
        output = nodes[-1].output
        run = self._chain_function(chain, self.type_of(output), self.graph.tensors[output].shape[0])
        product = self._products.get(first.name)
        main = first.inputs[0] if product else next(self.graph.activations(first))
        inputs = frozenset(chain.reads | ({*self.graph.activations(first)} if product else {main}))

        def fused(tensors: Mapping[str, Array]) -> Array:
            return run(product.run(tensors), tensors, True) if product else run(tensors[main], tensors)

        return FusedStep(output, inputs, fused)

    def _chain_function(
        self, chain: _Chain, result: np.dtype[np.generic], channels: int
    ) -> CompiledChain | NumpyChain:
        steps = [link.step for link in chain.links]
        if self._kernel is None:
            return NumpyChain(steps, result)
        bits = 32 if self._peak(chain) <= _LANES[32] else 64
        return CompiledChain(self._kernel, steps, channels, bits, result, ResultBuffer(result), self.threads)

    def _unfused(self, node: Node) -> FusedStep:
        graph, result = self.graph, self.type_of(node.output)
        inputs = frozenset(graph.activations(node))
        if node.moves_codes and inputs == {*node.inputs}:
            types, out = [graph.tensors[i] for i in node.inputs], graph.tensors[node.output]
            return FusedStep(node.output, inputs, lambda t: node.run([t[i] for i in node.inputs], types, out))

        def interpreted(tensors: Mapping[str, Array]) -> Array:
            return run_node(graph, node, {i: integers(tensors[i]) for i in inputs}).astype(result)

        return FusedStep(node.output, inputs, interpreted)

    def _prepare_products(self, node: Node) -> _Products | None:
        match node:
            case ir.Conv():
                return self._prepare_conv(node, self.graph.constants[node.inputs[1]])
            case ir.SumPool() if len(node.kernel) <= 2:
                channels = self.graph.tensors[node.output].shape[0]
                return self._prepare_conv(*_as_conv(node, channels))
            case ir.MatMul():
                return self._prepare_matmul(node)
        return None

    def _prepare_conv(self, node: ir.Conv, weight: IntArray) -> _Products | None:
        x = node.inputs[0]
        if x in self.graph.constants:
            return None
        line = weight.ndim == 3
        geometry = _geometry(node, weight.shape[2:])
        prepared = self.backend.prepare_conv(
            weight[:, :, np.newaxis] if line else weight, geometry, self.intervals[x]
        )
        if prepared is None:
            return None
        conv, kind = prepared
        self._wanted_types.setdefault(x, kind)

        def run(tensors: Mapping[str, Array]) -> Array:
            batch = tensors[x]
            return conv(batch[:, :, np.newaxis])[:, :, 0] if line else conv(batch)

        return _Products(product_bound(weight, self.intervals[x]), run)

    def _prepare_matmul(self, node: ir.MatMul) -> _Products | None:
        a, b = node.inputs[:2]
        columns = self.graph.constants.get(b)
        if columns is not None and columns.ndim == 2:
            bound = product_bound(columns.T, self.intervals[a])
        else:
            sides = (max(1, *map(abs, self.intervals[name])) for name in (a, b))
            bound = int(np.prod([self.graph.tensors[a].shape[-1], *sides], dtype=object))
        kind = exact_float(bound)
        if kind is None:
            return None
        products = _Products(bound, self._matmul_function(node, kind))
        if len(self.graph.tensors[node.output].shape) == 1 or len(node.inputs) == 2:
            return products
        return _with_bias(products, *weighted_factors(self.graph, node))

    def _matmul_function(self, node: ir.MatMul, kind: np.dtype[np.floating]) -> Run:
        a, b = node.inputs[:2]
        vector = len(self.graph.tensors[a].shape) == 1
        held = {
            i: self.graph.constants[i][np.newaxis].astype(kind) for i in (a, b) if i in self.graph.constants
        }

        def run(tensors: Mapping[str, Array]) -> Array:
            left, right = (held[i] if i in held else tensors[i] for i in (a, b))
            products = self.backend.matmul(left[:, np.newaxis] if vector else left, right, kind)
            return products[:, 0] if vector else products

        return run


@dataclass(frozen=True)
class _Products:
    """The multiply-accumulate part of a Conv or MatMul: floats that hold exact integers below ``bound``."""

    bound: int
    run: Run


def _with_bias(products: _Products, multiplier: IntArray, bias: IntArray) -> _Products | None:
    """Products aligned and biased along the last axis, which is not the channel of a chain."""
    bound = int(np.max(np.abs(multiplier) * products.bound + np.abs(bias)))
    if bound > _LANES[64]:
        return None
    factors, offsets = multiplier.astype(np.int64), bias.astype(np.int64)
    return _Products(bound, lambda tensors: products.run(tensors).astype(np.int64) * factors + offsets)


class ResultBuffer:
    """Memory of one result, used again in every run (fresh pages would cost as much as the arithmetic)."""

    def __init__(self, kind: np.dtype[np.generic]):
        self._flat: NDArray[np.generic] = np.empty(0, dtype=kind)

    def __call__(self, shape: tuple[int, ...]) -> Array:
        size = int(np.prod(shape, dtype=np.int64))
        if self._flat.size < size:
            self._flat = np.empty(size, dtype=self._flat.dtype)
        return self._flat[:size].reshape(shape)


def integers(x: Array) -> IntArray:
    """A tensor as the interpreter holds it: int64, or Python integers."""
    return x if x.dtype == object else x.astype(np.int64)


def thread_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _folded(links: list[_Link]) -> list[_Link]:
    """Neighbouring MultiplyAdd steps joined; what is known after the second holds after both."""
    folded: list[_Link] = []
    for link in links:
        if folded and isinstance(link.step, MultiplyAdd) and isinstance(folded[-1].step, MultiplyAdd):
            folded[-1] = _Link(fold([folded[-1].step, link.step])[0], link.interval)
        else:
            folded.append(link)
    return folded


def _as_conv(node: ir.SumPool, channels: int) -> tuple[ir.Conv, IntArray]:
    """A sum over windows as a depthwise convolution with ones."""
    conv = ir.Conv(
        node.name,
        node.inputs,
        node.output,
        strides=node.strides,
        pads=node.pads,
        dilations=(1,) * len(node.kernel),
        groups=channels,
    )
    return conv, np.ones((channels, 1, *node.kernel), dtype=np.int64)


def _geometry(node: ir.Conv, kernel: Sequence[int]) -> Geometry:
    """A convolution over one or two axes as one over two; a line becomes an image of height 1."""
    strides, dilations, pads = node.strides, node.dilations, node.pads
    if len(strides) == 1:
        strides, dilations, pads = (1, *strides), (1, *dilations), (0, pads[0], 0, pads[1])
    # A kernel of length 1 has no dilation, whatever the file says.
    dh, dw = (d if k > 1 else 1 for d, k in zip(dilations, (1, *kernel)[-2:], strict=True))
    top, left, bottom, right = pads
    return Geometry((strides[0], strides[1]), (top, left, bottom, right), (dh, dw), node.groups)
