"""From an exact graph to a program: operations are joined to what ends their sums, and each gets its kernel.

An operation that no kernel takes, or an exponent that varies where no kernel can follow, is refused here by
name, before anything is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qhw.errors import UnsupportedError
from qhw.flows.mcu import dsp
from qhw.flows.mcu.containers import Container, Map, map_of
from qhw.flows.mcu.kernels import conv_kernel
from qhw.flows.mcu.program import (
    Box,
    ConvLayer,
    CopyLayer,
    ElementwiseLayer,
    Finish,
    MatMulLayer,
    PoolLayer,
    Program,
    ReshapeLayer,
    Step,
    TransposeLayer,
    UpsampleLayer,
)
from qhw.formats.modes import IntArray, Overflow
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.builder import value_ranges
from qhw.graph.infer import requant_bounds
from qhw.graph.ir import ExactGraph, Node, TensorType
from qhw.graph.ops.base import Range

_INT32 = 1 << 31
_INT64 = 1 << 63
_MOST_MULTIPLIER = (1 << 31) - 1
_LONGEST_AXIS = 0xFFFF
CHANGES_VALUE = (ir.Affine, ir.Add, ir.Mul)
ENDS = (ir.Requant, ir.Threshold, ir.Table)


def plan_program(graph: ExactGraph) -> Program:
    """The program of a graph.

    Raises:
        UnsupportedError: an operation that no kernel carries out; named, with the layer that it came from.
    """
    return _Planner(graph, value_ranges(graph)).run(graph.outputs)


def plan_part(graph: ExactGraph, ranges: Mapping[str, Range], outputs: Sequence[str]) -> Program:
    """The steps of a part of a network, which depend on nothing outside of it.

    Args:
        graph: the part's nodes alone; its outputs are what others read.
        ranges: of its tensors.
        outputs: those of its tensors that are outputs of the network.

    Raises:
        UnsupportedError: as for a whole graph.
    """
    return _Planner(graph, dict(ranges)).run(outputs)


class _RefusedError(Exception):
    """Why a node cannot be carried out."""


@dataclass
class _Chain:
    """What happens to a sum behind the operation that forms it, as far as it is joined.

    Args:
        tensor: the tensor that the value is by now.
        multiplier, addend: ``value = sum * multiplier + addend``, Python integers, (1,) or (channels,).
    """

    tensor: str
    nodes: list[Node]
    multiplier: IntArray
    addend: IntArray


@dataclass
class _Planner:
    graph: ExactGraph
    ranges: dict[str, Range]
    maps: dict[str, Map] = field(default_factory=dict)
    constants: dict[str, tuple[Map, IntArray]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    done: set[str] = field(default_factory=set)

    def run(self, outputs: Sequence[str]) -> Program:
        graph = self.graph
        for name in graph.inputs:
            self.maps[name] = map_of(graph.tensors[name])
        for node in graph.nodes:
            if node.name in self.done:
                continue
            try:
                _RULES[type(node)](self, node)
            except (_RefusedError, UnsupportedError) as refused:
                raise _named(node, str(refused)) from None
        for output in outputs:
            self._own(output)
        stored = {*graph.inputs, *self.aliases, *(step.writes for step in self.steps)}
        return Program(
            graph.name,
            tuple(self.steps),
            {name: kind for name, kind in self.maps.items() if name in stored},
            self.constants,
            graph.inputs,
            graph.outputs,
            dict(self.aliases),
        )

    # --- tensors and ranges ---------------------------------------------------------------------

    def type(self, tensor: str) -> TensorType:
        return self.graph.tensors[tensor]

    def _root(self, tensor: str) -> str:
        while tensor in self.aliases:
            tensor = self.aliases[tensor]
        return tensor

    def map(self, tensor: str) -> Map:
        """A tensor as it lies in memory."""
        if tensor not in self.maps:
            self.maps[tensor] = map_of(self.type(tensor))
        return self.maps[tensor]

    def x(self, tensor: str) -> Map:
        """A map that is read: of a computed tensor, or of a constant, which then lies in flash."""
        if tensor in self.graph.constants and tensor not in self.constants:
            value = self.graph.constants[tensor]
            self.constants[tensor] = (map_of(self.type(tensor)), value)
        return self.constants[tensor][0] if tensor in self.constants else self.map(tensor)

    def exponent(self, tensor: str) -> int:
        """The one exponent of a tensor."""
        exponent = self.type(tensor).exponent
        if not exponent.is_scalar:
            raise _RefusedError(f"'{tensor}' has an exponent for each index of axis {exponent.axis}")
        return exponent.values[0]

    def exponents(self, tensor: str) -> IntArray:
        """A tensor's exponents, one or one per channel."""
        exponent = self.type(tensor).exponent
        if exponent.axis not in (None, 0):
            raise _RefusedError(f"'{tensor}' has an exponent for each index of axis {exponent.axis}")
        return np.array(exponent.values, dtype=object)

    def add(self, step: Step) -> None:
        for axis in self.map(step.writes).shape:
            if axis > _LONGEST_AXIS:
                raise _RefusedError(
                    f"an axis of '{step.writes}' has length {axis:,}, more than {_LONGEST_AXIS:,}"
                )
        self.steps.append(step)
        self.done.update(step.nodes)

    def _own(self, output: str) -> None:
        """An output lies in memory that the caller gives: what is only another name of a map is copied."""
        if output not in self.aliases and output not in self.graph.inputs:
            return
        source = self._root(output)
        self.aliases.pop(output, None)
        if output in self.graph.inputs:
            raise UnsupportedError(f"'{output}' is an input and an output of the network at once")
        self.aliases = {name: source if of == output else of for name, of in self.aliases.items()}
        self.steps = [
            replace(step, reads=tuple(source if name == output else name for name in step.reads))
            for step in self.steps
        ]
        layer = ReshapeLayer(self.x(source), self.map(output))
        self.steps.append(Step(f"{output}.output", (), "qhw_reshape", layer, (source,), output))

    # --- sums and their ends --------------------------------------------------------------------

    def chain(self, node: Node, multiplier: IntArray | None = None, addend: IntArray | None = None) -> _Chain:
        """A sum with what follows it and changes its value, joined as far as numbers allow."""
        one, zero = np.ones(1, dtype=object), np.zeros(1, dtype=object)
        if multiplier is not None and _largest(multiplier) > _MOST_MULTIPLIER:
            raise _RefusedError("its numbers are shifted by more than 30 bits")
        chain = _Chain(
            node.output,
            [node],
            one if multiplier is None else multiplier,
            zero if addend is None else addend,
        )
        while (reader := self._only_reader(chain.tensor)) is not None:
            if not isinstance(reader, CHANGES_VALUE):
                break
            joined = self._joined(chain, reader)
            if joined is None:
                break
            chain = joined
        return chain

    def _only_reader(self, tensor: str) -> Node | None:
        readers = self.graph.consumers(tensor)
        if len(readers) != 1 or tensor in self.graph.outputs or readers[0].inputs.count(tensor) != 1:
            return None
        return readers[0]

    def _joined(self, chain: _Chain, node: Node) -> _Chain | None:
        """The chain with one more operation; None where it is not one of a channel's constants."""
        try:
            factor, offset = self.linear(node, chain.tensor)
        except _RefusedError:
            return None
        multiplier = chain.multiplier * factor
        if _largest(multiplier) > _MOST_MULTIPLIER or _largest(offset) >= _INT64:
            return None
        low, high = self.ranges[node.output].bounds
        if min(low, -high) < -_INT64:
            return None
        addend = chain.addend * factor + offset
        return _Chain(node.output, [*chain.nodes, node], multiplier, addend)

    def linear(self, node: Node, x: str) -> tuple[IntArray, IntArray]:
        """``node = x * factor + offset``, per channel; raises _RefusedError where it is not so."""
        result = self.exponents(node.output)
        if isinstance(node, ir.Affine):
            factor = self.channel_constant(node.inputs[1], x)
            shift = self.exponents(x) + self.exponents(node.inputs[1]) - result
            offset = np.zeros(1, dtype=object)
            if len(node.inputs) > 2:
                offset = self.channel_constant(node.inputs[2], x)
                offset = offset * _factors(self.exponents(node.inputs[2]) - result)
            return factor * _factors(shift), offset
        other = node.inputs[1] if node.inputs[0] == x else node.inputs[0]
        constant = self.channel_constant(other, x)
        if isinstance(node, ir.Mul):
            return constant, np.zeros(1, dtype=object)
        own = _factors(self.exponents(x) - result)
        return own, constant * _factors(self._broadcast_exponents(other, x) - result)

    def _broadcast_exponents(self, constant: str, x: str) -> IntArray:
        """The exponents of a constant that broadcasts over x, per channel."""
        kind = self.type(constant)
        if kind.exponent.is_scalar:
            return np.array(kind.exponent.values, dtype=object)
        if (kind.exponent.axis or 0) + len(self.type(x).shape) - len(kind.shape) != 0:
            raise _RefusedError(f"'{constant}' has exponents along an axis that is no channel")
        return np.array(kind.exponent.values, dtype=object)

    def channel_constant(self, constant: str, x: str) -> IntArray:
        """A constant as one number, or one per channel of x; raises _RefusedError where it is more."""
        if constant not in self.graph.constants:
            raise _RefusedError(f"'{constant}' is computed")
        value = self.graph.constants[constant].astype(object)
        shape = self.type(x).shape
        if value.size == 1:
            return np.asarray(value.reshape(1))
        if value.ndim == 1 and value.size == (shape[0] if shape else 1) and self._by_channel(constant, x):
            return value
        padded = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
        if not shape or padded.size != padded.shape[0] or padded.shape[0] != shape[0]:
            raise _RefusedError(f"'{constant}' varies within a channel")
        return np.asarray(padded.reshape(-1))

    def _by_channel(self, constant: str, x: str) -> bool:
        """Whether a vector runs along the channels: an Affine's does, others run along the last axis."""
        readers = self.graph.consumers(constant)
        return all(isinstance(node, ir.Affine) for node in readers) or len(self.type(x).shape) == 1

    def finish(self, chain: _Chain) -> tuple[Finish, str, tuple[str, ...]]:
        """The end of a chain, the tensor that is stored, and the names of the chain's nodes."""
        end = self._only_reader(chain.tensor)
        nodes = [*chain.nodes]
        if isinstance(end, ENDS):
            try:
                finish = self.ended(chain, end)
                return finish, end.output, tuple(node.name for node in (*nodes, end))
            except (_RefusedError, UnsupportedError):
                pass  # the operation gets a step of its own, or is refused by its own name
        return self.kept(chain), chain.tensor, tuple(node.name for node in nodes)

    def _scaled(self, chain: _Chain) -> dict[str, tuple[int, ...] | None]:
        multiplier, addend = _short(chain.multiplier), _short(chain.addend)
        return {
            "multiplier": None if multiplier == (1,) else multiplier,
            "addend": None if addend == (0,) else addend,
        }

    def is_wide(self, chain: _Chain, shift: int = 0) -> bool:
        """Whether a chain's value, or that value shifted left, needs more than 32 bits.

        Raises:
            _RefusedError: it needs more than 64.
        """
        low, high = (bound << max(shift, 0) for bound in self.ranges[chain.tensor].bounds)
        beyond = max(high, -low - 1)
        # Numbers that meet v on its way are stored in the same type.
        beyond = max(beyond, _largest(chain.addend))
        if beyond >= _INT64:
            raise _RefusedError(f"'{chain.tensor}' needs more than 64 bits")
        return beyond >= _INT32

    def kept(self, chain: _Chain) -> Finish:
        out = self.map(chain.tensor).container
        return Finish(out, "KEEP", self.is_wide(chain) or out.bits == 64, **self._scaled(chain))  # type: ignore[arg-type]

    def ended(self, chain: _Chain, end: Node) -> Finish:
        """A chain that ends in a Requant, a Threshold or a Table."""
        scaled = self._scaled(chain)
        out = self.map(end.output).container
        if isinstance(end, ir.Requant):
            return self._rounded(chain, end, out, scaled)
        low, high = self.ranges[chain.tensor].bounds
        levels = self.graph.constants[end.inputs[-1]]
        if isinstance(end, ir.Table):
            return Finish(
                out,
                "LOOK_UP",
                self.is_wide(chain) or out.bits == 64,
                levels=levels,
                first=end.first,
                **scaled,  # type: ignore[arg-type]
            )
        thresholds = self.graph.constants[end.inputs[1]].astype(object)
        # A threshold that is never reached is as good as the first number beyond the range.
        thresholds = np.minimum(thresholds, high + 1)
        thresholds = np.maximum(thresholds, low)
        wide = self.is_wide(chain) or high + 1 >= _INT32 or out.bits == 64
        if high + 1 >= _INT64:
            raise _RefusedError(f"'{chain.tensor}' needs more than 63 bits")
        return Finish(out, "COUNT", wide, thresholds=thresholds, levels=levels, **scaled)  # type: ignore[arg-type]

    def _rounded(
        self, chain: _Chain, end: ir.Requant, out: Container, scaled: dict[str, tuple[int, ...] | None]
    ) -> Finish:
        kind = self.type(end.output)
        shift = self.exponents(end.output) - self.exponents(chain.tensor)
        if isinstance(kind.format, TableFormat):
            raise _RefusedError(
                f"the numbers of {kind.format} are not evenly spaced, and too many to compare with"
            )
        if kind.format.width > 64:
            raise _RefusedError(f"{kind.format} has more than 64 bits")
        wide = self.is_wide(chain, -int(min(shift)))
        low, high = self.ranges[chain.tensor].bounds
        most = max(high, -low - 1).bit_length()
        if max(shift) > (62 if wide else 30):
            wide = True
            # Beyond all bits of a number every further shift rounds alike.
            if most > 60:
                raise _RefusedError(f"'{chain.tensor}' is shifted by {max(shift)} bits")
            shift = np.minimum(shift, 62)
        bounds = (kind.format.mantissa_low, kind.format.mantissa_high)
        if end.overflow.saturates:
            bounds = requant_bounds(end, kind)
        overflow = "SAT" if end.overflow is Overflow.SAT_SYM else end.overflow.value
        wide = wide or out.bits == 64 or max(abs(b) for b in bounds) >= _INT32 or kind.format.width >= 32
        return Finish(
            out,
            "ROUND",
            wide,
            rounding=end.rounding.value,
            overflow=overflow,
            width=kind.format.width,
            shift=_short(shift),
            low=bounds[0],
            high=bounds[1],
            **scaled,  # type: ignore[arg-type]
        )

    # --- one rule per operation -----------------------------------------------------------------

    def conv(self, node: ir.Conv) -> None:
        x, weight = node.inputs[0], node.inputs[1]
        rank = len(self.type(x).shape) - 1
        value = self.graph.constants[weight]
        weights = value.transpose(0, *range(2, value.ndim), 1)
        if rank == 1:
            weights = weights[:, np.newaxis]
        self._convolution(
            node,
            x,
            weights,
            _two(node.strides, 1),
            _two(node.dilations, 1),
            _two(node.pads[:rank], 0),
            node.groups,
        )

    def _convolution(
        self,
        node: Node,
        x: str,
        weights: IntArray,
        strides: tuple[int, int],
        dilations: tuple[int, int],
        pads: tuple[int, int],
        groups: int,
        also: tuple[str, ...] = (),
    ) -> None:
        """A convolution of map ``x``; ``also`` are nodes in front of it that it carries out, too."""
        source, weight_kind = self.map(x), self.type(node.inputs[1])
        chain = self.chain(node, *self._bias(node))
        finish, out, nodes = self.finish(chain)
        wide = self.type(node.output).format.width > 32 and not self._sums_fit(x, weights)
        layer = ConvLayer(
            source.container,
            Container.of(weight_kind),
            source.channels,
            groups,
            strides,
            dilations,
            pads,
            weights,
            wide,
            finish,
        )
        kernel = conv_kernel(layer)
        self.map(out)
        self.add(Step(node.name, (*also, *nodes), kernel.function, layer, (x,), out, kernel.scratch(layer)))

    def _sums_fit(self, x: str, weights: IntArray) -> bool:
        """Whether 32 bits hold the sums of products; the bias, which may be far finer, comes after them."""
        low, high = self.ranges[x].including(0).bounds  # padding is 0
        rows = weights.astype(object).reshape(len(weights), -1)
        ends = rows * low, rows * high
        least, most = np.minimum(*ends).sum(axis=1), np.maximum(*ends).sum(axis=1)
        return bool(least.min() >= -_INT32 and most.max() < _INT32)

    def _bias(self, node: Node) -> tuple[IntArray, IntArray]:
        """Products aligned to the bias, and the bias, as a chain's multiplier and addend."""
        products = np.array(self.type(node.inputs[1]).exponent.values, dtype=object)
        products = products + self.exponent(node.inputs[0])
        if len(node.inputs) == 2:
            return np.ones(1, dtype=object), np.zeros(1, dtype=object)
        bias = np.array(self.type(node.inputs[2]).exponent.values, dtype=object)
        finest = np.minimum(products, bias)
        value = self.graph.constants[node.inputs[2]].astype(object).reshape(-1)
        return _factors(products - finest), value * _factors(bias - finest)

    def matmul(self, node: ir.MatMul) -> None:
        a, b = node.inputs[0], node.inputs[1]
        shape = self.type(a).shape
        if b in self.graph.constants and len(shape) == 1:
            self._linear(node, a)
            return
        self._matrices(node)

    def _linear(self, node: ir.MatMul, a: str) -> None:
        """A vector times constants: a convolution of one pixel, or of the map that was flattened."""
        value = self.graph.constants[node.inputs[1]]
        flattens = self._flattened(a)
        if flattens is None:
            weights = value.T[:, np.newaxis, np.newaxis, :]
            self._convolution(node, a, weights, (1, 1), (1, 1), (0, 0), 1)
            return
        before, source = flattens
        plane = self.map(source).plane
        weights = value.T.reshape(value.shape[1], -1, *plane).transpose(0, 2, 3, 1)
        self._convolution(node, source, weights, (1, 1), (1, 1), (0, 0), 1, before)

    def _flattened(self, tensor: str) -> tuple[tuple[str, ...], str] | None:
        """The map that a vector is, and the Reshape between them, whose vector nothing else reads."""
        made = self.graph.producer(tensor)
        if not isinstance(made, ir.Reshape) or self._only_reader(tensor) is None:
            return None
        source = made.inputs[0]
        if source in self.graph.constants or len(self.type(source).shape) > 3:
            return None
        # The Reshape was planned already: as another name of the same bytes, or as a step, taken back here.
        if tensor in self.aliases:
            del self.aliases[tensor]
        elif (
            self.steps and self.steps[-1].writes == tensor and isinstance(self.steps[-1].layer, ReshapeLayer)
        ):
            self.steps.pop()
        else:
            return None
        self.maps.pop(tensor, None)
        return (made.name,), source

    def _matrices(self, node: ir.MatMul) -> None:
        a, b = node.inputs[0], node.inputs[1]
        kinds = [self.type(a), self.type(b)]
        shapes = [kind.shape if len(kind.shape) > 1 else (1, *kind.shape) for kind in kinds]
        out_shape = self.type(node.output).shape
        batches = math.prod(out_shape[:-2]) if len(out_shape) > 2 else 1
        steps = []
        for shape in shapes:
            lead = math.prod(shape[:-2])
            if lead not in (1, batches):
                raise _RefusedError(
                    f"operands of shapes {shapes[0]} and {shapes[1]} broadcast along several axes"
                )
            steps.append(0 if lead == 1 else shape[-2] * shape[-1])
        bias = None
        right = b
        if len(node.inputs) > 2:
            scale, offset = self._bias(node)
            bias = tuple(int(v) for v in np.broadcast_to(offset, (out_shape[-1],)))
            if any(scale != 1):
                right = self._scaled_constant(node, b, scale)
        chain = self.chain(node)
        finish, out, nodes = self.finish(chain)
        if bias is not None and (max(map(abs, bias)) >= _INT32 and not finish.wide):
            finish = replace(finish, wide=True)
        layer = MatMulLayer(
            self.x(a),
            self.x(right),
            self.map(out),
            batches,
            shapes[0][-2],
            shapes[0][-1],
            out_shape[-1],
            steps[0],
            steps[1],
            bias,
            finish,
        )
        self.add(Step(node.name, nodes, "qhw_matmul", layer, (a, right), out))

    def _scaled_constant(self, node: Node, name: str, scale: IntArray) -> str:
        """A constant right operand whose columns are shifted to the exponent of the bias."""
        if name not in self.graph.constants:
            raise _RefusedError("its bias is finer than its products")
        value = self.graph.constants[name].astype(object) * scale
        scaled = f"{node.name}_scaled"
        container = Container.holding(int(value.min()), int(value.max()))
        self.constants[scaled] = (Map(value.shape, container), value)
        return scaled

    def add_(self, node: ir.Add) -> None:
        self._two_maps(node, "qhw_add")

    def mul(self, node: ir.Mul) -> None:
        self._two_maps(node, "qhw_mul")

    def _two_maps(self, node: Node, kernel: str) -> None:
        """A sum or product: with constants of a channel it is the end of a sum of one map."""
        for x in self.graph.activations(node):
            try:
                factor, offset = self.linear(node, x)
            except _RefusedError:
                continue
            if node.inputs.count(x) == 1 and _largest(factor) <= _MOST_MULTIPLIER:
                self._elementwise(self.chain(node, factor, offset), x)
                return
        names = [self._whole(name, node) for name in node.inputs]
        first, second = (self.x(name) for name in names)
        shifts = (0, 0)
        if isinstance(node, ir.Add):
            result = self.exponent(node.output)
            shifts = tuple(self.exponent(name) - result for name in node.inputs)  # type: ignore[assignment]
        if max(shifts) > 62:
            raise _RefusedError(f"its operands are shifted by {max(shifts)} bits")
        finish, out, nodes = self.finish(self.chain(node))
        layer = ElementwiseLayer(first.container, second.container, first.channels, shifts, finish)
        if isinstance(node, ir.Add) and dsp.takes_add(layer):
            kernel = "qhw_add_dsp"
        self.add(Step(node.name, nodes, kernel, layer, (names[0], names[1]), out))

    def _whole(self, name: str, node: Node) -> str:
        """An operand that has every element of the result: constants are repeated."""
        shape = self.type(node.output).shape
        if name not in self.graph.constants or self.type(name).shape == shape:
            return name
        value = self.graph.constants[name]
        whole = f"{node.name}_{name}"
        padded = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
        kind = TensorType(shape, self.type(name).format, self.type(name).exponent)
        self.constants[whole] = (map_of(kind), np.broadcast_to(padded, shape))
        return whole

    def affine(self, node: ir.Affine) -> None:
        factor, offset = self.linear(node, node.inputs[0])
        if _largest(factor) > _MOST_MULTIPLIER or _largest(offset) >= _INT64:
            raise _RefusedError("its numbers have more than 32 bits")
        self._elementwise(self.chain(node, factor, offset), node.inputs[0])

    def ends(self, node: Node) -> None:
        """A Requant, Threshold or Table that nothing was joined with."""
        x = node.inputs[0]
        chain = _Chain(x, [], np.ones(1, dtype=object), np.zeros(1, dtype=object))
        finish = self.ended(chain, node)
        source = self.x(x)
        layer = ElementwiseLayer(source.container, None, source.channels, (0, 0), finish)
        self.add(Step(node.name, (node.name,), "qhw_elementwise", layer, (x,), node.output))

    def _elementwise(self, chain: _Chain, x: str) -> None:
        finish, out, nodes = self.finish(chain)
        source = self.x(x)
        layer = ElementwiseLayer(source.container, None, source.channels, (0, 0), finish)
        self.add(Step(chain.nodes[0].name, nodes, "qhw_elementwise", layer, (x,), out))

    def max_pool(self, node: ir.MaxPool) -> None:
        self._pool(node, "qhw_max_pool", node.kernel, node.strides, node.dilations, node.pads)

    def sum_pool(self, node: ir.SumPool) -> None:
        ones = (1,) * len(node.kernel)
        self._pool(node, "qhw_sum_pool", node.kernel, node.strides, ones, node.pads)

    def _pool(
        self,
        node: Node,
        kernel: str,
        window: tuple[int, ...],
        strides: tuple[int, ...],
        dilations: tuple[int, ...],
        pads: tuple[int, ...],
    ) -> None:
        (x,) = node.inputs
        source = self.x(x)
        finish, out, nodes = self.finish(self.chain(node))
        layer = PoolLayer(
            source.container,
            source.channels,
            self.map(out).plane,
            _two(window, 1),
            _two(strides, 1),
            _two(dilations, 1),
            _two(pads[: len(window)], 0),
            False,
            finish,
        )
        self.add(Step(node.name, nodes, kernel, layer, (x,), out))

    def reduce(self, node: ir.ReduceSum | ir.ReduceMax) -> None:
        (x,) = node.inputs
        source, shape = self.x(x), self.type(x).shape
        if len(shape) > 3:
            raise _RefusedError(f"it reduces a tensor of {len(shape)} axes")
        spatial = [axis for axis in range(1, len(shape)) if axis in node.axes]
        window = _two([n if axis in spatial else 1 for axis, n in enumerate(shape) if axis], 1)
        across = 0 in node.axes and bool(shape)
        whole = tuple(1 if axis in node.axes else n for axis, n in enumerate(shape))
        kernel = "qhw_sum_pool" if isinstance(node, ir.ReduceSum) else "qhw_max_pool"
        kept = Map(whole, self.map(node.output).container)
        stays = node.keepdims or kept.channels == self.map(node.output).channels
        if stays:
            finish, out, nodes = self.finish(self.chain(node))
        else:
            chain = _Chain(node.output, [node], np.ones(1, dtype=object), np.zeros(1, dtype=object))
            finish, out, nodes = self.kept(chain), f"{node.output}_kept", (node.name,)
            self.maps[out] = kept
        layer = PoolLayer(
            source.container, source.channels, kept.plane, window, window, (1, 1), (0, 0), across, finish
        )
        self.add(Step(node.name, nodes, kernel, layer, (x,), out))
        if not stays:
            self._reshaped(f"{node.name}_shape", (), out, node.output)

    def reshape(self, node: ir.Reshape) -> None:
        self._reshaped(node.name, (node.name,), node.inputs[0], node.output)

    def _reshaped(self, name: str, nodes: tuple[str, ...], x: str, out: str) -> None:
        source, result = self.x(x), self.map(out)
        if x not in self.constants and source.lies_like(result):
            self.aliases[out] = x
            self.done.update(nodes)
            return
        self.add(Step(name, nodes, "qhw_reshape", ReshapeLayer(source, result), (x,), out))

    def transpose(self, node: ir.Transpose) -> None:
        (x,) = node.inputs
        source, shape = self.x(x), self.type(x).shape
        if len(shape) > 4:
            raise _RefusedError(f"it turns a tensor of {len(shape)} axes")
        each = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        strides = tuple(each[axis] for axis in node.perm)
        layer = TransposeLayer(source, self.map(node.output), strides)
        self.add(Step(node.name, (node.name,), "qhw_transpose", layer, (x,), node.output))

    def concat(self, node: ir.Concat) -> None:
        out = self.map(node.output)
        axis, at, boxes = self._axis(node.axis, len(out.shape)), 0, []
        for name in node.inputs:
            source = self.x(name)
            size = (*source.plane, source.channels)
            to = [0, 0, 0]
            to[axis] = at
            boxes.append(Box(size, source, out, to=(to[0], to[1], to[2])))
            at += size[axis]
        layer = CopyLayer(tuple(boxes), out, _cleared(out))
        self.add(Step(node.name, (node.name,), "qhw_copy", layer, node.inputs, node.output))

    def slice(self, node: ir.Slice) -> None:
        source, out = self.x(node.inputs[0]), self.map(node.output)
        axis = self._axis(node.axis, len(out.shape))
        start, step = [0, 0, 0], [1, 1, 1]
        start[axis], step[axis] = node.start, node.step
        box = Box(
            (*out.plane, out.channels),
            source,
            out,
            (start[0], start[1], start[2]),
            (step[0], step[1], step[2]),
        )
        self._copied(node, box, None)

    def pad(self, node: ir.Pad) -> None:
        source, out = self.x(node.inputs[0]), self.map(node.output)
        rank = len(out.shape)
        to = [0, 0, 0]
        for axis in range(rank):
            to[self._axis(axis, rank)] = node.pads[axis]
        box = Box((*source.plane, source.channels), source, out, to=(to[0], to[1], to[2]))
        self._copied(node, box, node.value)

    def _copied(self, node: Node, box: Box, fill: int | None) -> None:
        layer = CopyLayer((box,), box.out, _cleared(box.out) if fill is None else fill)
        self.add(Step(node.name, (node.name,), "qhw_copy", layer, node.inputs[:1], node.output))

    def _axis(self, axis: int, rank: int) -> int:
        """The place of a tensor's axis in (row, column, channel)."""
        if rank > 3:
            raise _RefusedError(f"it moves parts of a tensor of {rank} axes")
        return 2 if axis == 0 else axis - 1 if rank == 3 else 1

    def upsample(self, node: ir.Upsample) -> None:
        source, out = self.x(node.inputs[0]), self.map(node.output)
        factors = _two(node.factors, 1)
        if len(out.shape) > 3:
            raise _RefusedError(f"it enlarges a tensor of {len(out.shape)} axes")
        if node.zeros:
            box = Box((*source.plane, source.channels), source, out, to_step=factors)
            self._copied(node, box, 0)
            return
        layer = UpsampleLayer(source, factors)
        self.add(Step(node.name, (node.name,), "qhw_upsample", layer, node.inputs, node.output))


_RULES: dict[type[Node], Callable[..., None]] = {
    ir.Conv: _Planner.conv,
    ir.MatMul: _Planner.matmul,
    ir.Add: _Planner.add_,
    ir.Mul: _Planner.mul,
    ir.Affine: _Planner.affine,
    ir.Requant: _Planner.ends,
    ir.Threshold: _Planner.ends,
    ir.Table: _Planner.ends,
    ir.MaxPool: _Planner.max_pool,
    ir.SumPool: _Planner.sum_pool,
    ir.ReduceSum: _Planner.reduce,
    ir.ReduceMax: _Planner.reduce,
    ir.Reshape: _Planner.reshape,
    ir.Transpose: _Planner.transpose,
    ir.Concat: _Planner.concat,
    ir.Slice: _Planner.slice,
    ir.Pad: _Planner.pad,
    ir.Upsample: _Planner.upsample,
}


def _named(node: Node, why: str) -> UnsupportedError:
    source = f" (from {node.source})" if node.source and node.source != node.name else ""
    return UnsupportedError(
        f"The mcu flow has no kernel for {node.op} '{node.name}'{source}: {why}",
        hint="give that layer other formats, or use a flow that builds a circuit",
    )


def _cleared(out: Map) -> int | None:
    """Parts of bytes are copied into bytes that are cleared, so that their spare bits are 0."""
    return 0 if out.container.bits < 8 else None


def _largest(values: IntArray) -> int:
    return max(abs(int(value)) for value in values.flat)


def _factors(shift: IntArray) -> IntArray:
    """``2**shift`` of shifts that are not negative."""
    return np.array([1 << int(bits) for bits in shift], dtype=object)


def _short(values: IntArray) -> tuple[int, ...]:
    """Numbers, or one for all of them where they are equal."""
    numbers = tuple(int(value) for value in values)
    return numbers[:1] if len(set(numbers)) == 1 else numbers


def _two(values: tuple[int, ...] | list[int], missing: int) -> tuple[int, int]:
    """A number for rows and columns; a tensor with one spatial axis has one row."""
    if len(values) > 2:
        raise _RefusedError("it has more than two spatial axes")
    padded = (*([missing] * (2 - len(values))), *values)
    return padded[0], padded[1]
