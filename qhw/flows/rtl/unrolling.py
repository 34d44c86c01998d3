"""Layers that are unrolled, all products at once, as a graph of additions; and what they cost.

An unrolled layer takes a whole vector, or all of a window, in a clock cycle: it is the folding by all outputs
and all inputs. There is no queue in front of it: it waits together with what it reads from.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from qhw.cost.pricing import rules
from qhw.cost.pricing.architecture import Architecture, Fold, LayerRule, LayerUsage, Site
from qhw.cost.pricing.published import signed_digits
from qhw.cost.pricing.usage import Amount, Usage
from qhw.errors import InputError, UnsupportedError, closest
from qhw.flows.rtl.template import PeSimd, divisors, matrix_of
from qhw.formats.base import Format
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node, TensorType
from qhw.rtl.shared.adder_graph import MOST_WEIGHT_BITS, AdderGraph, Counts, adder_graph
from qhw.rtl.shared.memories import BLOCK_RAM, LUT_MEMORY, SHIFT_REGISTER

NONE, AUTO, ALL = "none", "auto", "all"

ADDITIONS = {"few": 4, "many": 1}
"""Additions that follow each other in a clock cycle, by the option ``registers``."""

MOST_DIGITS = 20_000
"""Signed digits of a matrix up to which it is tried without being named: seconds of solving."""

_MOST_STREAM_BITS = 1 << 14
"""Bits of a word that an unrolled layer takes, without being named."""


def with_unrolled(architecture: Architecture, graph: ExactGraph, chosen: str) -> Architecture:
    """The architecture in which some layers of a graph are unrolled.

    Args:
        chosen: ``none``; ``auto``: each layer may be, as the folding's program chooses; ``all`` that are
            small enough; or the names of nodes, with commas between them.

    Raises:
        InputError: a name that is no node's.
        UnsupportedError: a node that cannot be unrolled; by name.
    """
    if chosen == NONE:
        return architecture
    forced = _named(graph, chosen)
    allowed = forced or {node.name for node in graph.nodes if _is_small(graph, node)}
    if chosen == ALL:
        forced = allowed
    additions = additions_of(architecture)
    found = {
        name: partial(_rule, rule, allowed, additions)
        for name, rule in architecture.rules.items()
        if name in _UNROLLED
    }
    return replace(
        architecture,
        rules={**architecture.rules, **found},
        streams=partial(_streams, architecture.streams, allowed),
        legal_folding=partial(_legal, architecture, allowed, forced),
        options={**architecture.options, "unrolled": tuple(sorted(allowed))},
    )


def _named(graph: ExactGraph, chosen: str) -> set[str]:
    if chosen in (AUTO, ALL):
        return set()
    names, nodes = [name.strip() for name in chosen.split(",")], {node.name: node for node in graph.nodes}
    for name in names:
        if name not in nodes:
            raise InputError(
                f"unrolled names {name!r}, which is no node of the graph",
                allowed=f"{NONE}, {AUTO}, {ALL}, or nodes with commas between them",
                hint=closest(name, nodes),
            )
        if why := why_not(graph, nodes[name]):
            raise UnsupportedError(f"{nodes[name].op} '{name}' cannot be unrolled: {why}")
    return set(names)


_UNROLLED = ("MatMul", "Conv", "Affine")


def why_not(graph: ExactGraph, node: Node) -> str:
    """Why a node cannot be unrolled; empty where it can."""
    if node.op not in _UNROLLED or not graph.tensors[node.output].shape:
        return f"it is none of {', '.join(_UNROLLED)}"
    if node.inputs[1] not in graph.constants:
        return "its matrix is computed"
    if isinstance(node, ir.MatMul) and graph.constants[node.inputs[1]].ndim != 2:
        return "its right operand is no matrix"
    if not graph.tensors[node.inputs[0]].exponent.is_scalar and not isinstance(node, ir.Affine):
        return "its input has an exponent per channel"
    widest = int(np.abs(weights_of(graph, node)).max()).bit_length()
    if not 0 < widest <= MOST_WEIGHT_BITS:
        return f"its weights have {widest} bits, and 1 to {MOST_WEIGHT_BITS} are taken"
    return ""


def _is_small(graph: ExactGraph, node: Node) -> bool:
    """Whether a node is tried without being named."""
    if why_not(graph, node):
        return False
    x = graph.tensors[node.inputs[0]]
    matrix = weights_of(graph, node)
    bits = len(matrix) * x.format.operand().width
    return bits <= _MOST_STREAM_BITS and int(signed_digits(matrix[matrix != 0]).sum()) <= MOST_DIGITS


def is_unrolled(architecture: Architecture, graph: ExactGraph, node: Node, fold: PeSimd) -> bool:
    """Whether a node is unrolled at a folding."""
    return _is_whole(graph, node, fold, architecture.options.get("unrolled", ()))


def _is_whole(graph: ExactGraph, node: Node, fold: PeSimd, allowed: Collection[str]) -> bool:
    return node.name in allowed and fold == whole(graph, node)


def whole(graph: ExactGraph, node: Node) -> PeSimd:
    """The folding that is none: all outputs, all inputs."""
    matrix = matrix_of(graph, node)
    if matrix is None:
        return PeSimd(graph.tensors[node.output].shape[0])
    return PeSimd(matrix.outputs, matrix.inputs)


def weights_of(graph: ExactGraph, node: Node) -> IntArray:
    """The matrix of a node, shape (inputs, outputs), at the exponents of its result.

    The inputs of a Conv are the pixels of a window, all channels of one together; its groups are blocks.
    That of an Affine is a diagonal.
    """
    value, places = graph.constants[node.inputs[1]].astype(object), _places(graph, node, 1)
    if isinstance(node, ir.MatMul):
        return value << places
    if isinstance(node, ir.Affine):
        channels = graph.tensors[node.output].shape[0]
        return np.diag(np.broadcast_to(value.reshape(-1) << places, channels))
    assert isinstance(node, ir.Conv)
    filters, depth = value.shape[:2]
    taps, each = math.prod(value.shape[2:]), filters // node.groups
    found = np.zeros((taps, node.groups, depth, node.groups, each), dtype=object)
    blocks = value.reshape(node.groups, each, depth, taps)
    for group in range(node.groups):
        found[:, group, :, group, :] = blocks[group].transpose(2, 1, 0)
    return found.reshape(taps * node.groups * depth, filters) << places


def offsets_of(graph: ExactGraph, node: Node) -> IntArray | None:
    """What is added to each output, at the exponents of the result; None where that is nothing."""
    if len(node.inputs) < 3:
        return None
    outputs = whole(graph, node).pe
    offsets = graph.constants[node.inputs[2]].reshape(-1).astype(object) << _places(graph, node, 2)
    return np.broadcast_to(offsets, outputs) if offsets.any() else None


def _places(graph: ExactGraph, node: Node, index: int) -> IntArray:
    """How far products, or what is added, are shifted to the result's exponents, output by output."""
    x, other, out = (graph.tensors[name] for name in (node.inputs[0], node.inputs[index], node.output))
    own, result = (np.asarray(kind.exponent.values, dtype=object).reshape(-1) for kind in (other, out))
    given = np.asarray(x.exponent.values, dtype=object).reshape(-1) if index == 1 else 0
    return np.asarray(own + given - result)


@dataclass(frozen=True, eq=False)
class Unrolled:
    """An unrolled product: its additions, and one more of what is added to each output, if anything is.

    Args:
        width: bits of an output.
        offsets: what is added, output by output.
    """

    made: AdderGraph
    width: int
    offsets: IntArray | None

    @property
    def depth(self) -> int:
        """Clock edges from the inputs to the outputs."""
        return self.made.read - (self.offsets is None)

    def counts(self) -> Counts:
        """What the circuit takes, the control of its pipeline included: a flip-flop for each of its edges."""
        counts, depth = self.made.counts(), self.depth
        luts = registers = 0
        for output, offset in zip(
            self.made.outputs, () if self.offsets is None else self.offsets, strict=False
        ):
            # Low bits of a sum that are always 0 become those of what is added.
            constant = next((place for place, bit in enumerate(output.bits) if bit is not None), self.width)
            zeros = (int(offset) & -int(offset)).bit_length() - 1 if offset else self.width
            luts += self.width - max(constant, zeros)
            registers += self.width - constant if offset else sum(bit is not None for bit in output.bits)
        return Counts(
            counts.luts + luts,
            counts.lut4s + luts,
            counts.registers + registers + depth,
            counts.shifted_registers + registers + depth,
            counts.shift_luts,
        )


def additions_of(architecture: Architecture) -> int:
    """Additions from register to register of an unrolled layer."""
    return ADDITIONS[str(architecture.options["registers"])]


def unrolled(graph: ExactGraph, node: Node, additions: int) -> Unrolled:
    """The additions of a node, so many in a clock cycle."""
    low, high = number_range(graph.tensors[node.inputs[0]].format)
    width, offsets = graph.tensors[node.output].format.width, offsets_of(graph, node)
    made = adder_graph(weights_of(graph, node), low, high, additions, offset=offsets is not None)
    return Unrolled(made, width, offsets)


def number_range(format: Format) -> tuple[int, int]:
    """The lowest and the highest integer that a format's codes stand for."""
    if isinstance(format, TableFormat):
        return int(min(format.numbers)), int(max(format.numbers))
    return int(format.mantissa_low), int(format.mantissa_high)


def window_style(pixels: int, shifts: bool) -> int:
    """How the rows of a window are kept: in shift registers where LUTs are such, else in a memory."""
    if shifts:
        return SHIFT_REGISTER
    return LUT_MEMORY if pixels <= 64 else BLOCK_RAM


def reach(node: ir.Conv, kernel: Sequence[int]) -> tuple[int, int]:
    """Pixels from a window's first to its last, down and along."""
    extent = [(size - 1) * dilation for size, dilation in zip(kernel, node.dilations, strict=True)]
    return (0, extent[0]) if len(extent) == 1 else (extent[0], extent[1])


# --- what it costs -------------------------------------------------------------------------------------


def _rule(
    rule: LayerRule, allowed: Collection[str], additions: int, site: Site, folds: Sequence[PeSimd]
) -> LayerUsage:
    """A node's resources, at each folding as it is built at it."""
    wholly = np.array([_is_whole(site.graph, site.node, fold, allowed) for fold in folds])
    if not wholly.any():
        return rule(site, folds)
    one = _unrolled(site, additions)
    folded = [fold for fold, is_one in zip(folds, wholly, strict=True) if not is_one]
    if not folded:
        return one
    others = rule(site, folded)

    def both(first: Amount, second: Amount) -> Amount:
        made = np.full(len(folds), first, dtype=np.float64)
        made[~wholly] = second
        return made

    usage = Usage(*(both(getattr(one.usage, name), getattr(others.usage, name)) for name in vars(one.usage)))
    figures = ("cycles", "fill", "memory_bits")
    return LayerUsage(usage, *(both(getattr(one, name), getattr(others, name)) for name in figures))


def usage_of(counts: Counts, shifts: bool) -> Usage:
    """The resources of additions; where LUTs are shift registers, as Xilinx's are, they have six inputs."""
    if shifts:
        return Usage(lut=float(counts.luts + counts.shift_luts), ff=float(counts.shifted_registers))
    return Usage(lut=float(counts.lut4s), ff=float(counts.registers))


def _unrolled(site: Site, additions: int) -> LayerUsage:
    graph, node = site.graph, site.node
    made, shifts = unrolled(graph, node, additions), site.hardware.fabric.lut_inputs == 6
    counts, outputs = made.counts(), len(made.made.outputs)
    usage = usage_of(counts, shifts)
    cycles, memory = site.output.size // outputs, 0.0
    if isinstance(node, ir.Conv):
        x = site.type(0)
        image = rules.padded_shape(x.shape[1:], node.pads)
        down, along = reach(node, site.type(1).shape[2:])
        cycles = math.prod(image)
        if down or along:
            usage += _window(site, x, down, along, image[-1], shifts)
        memory = rules.line_memory(site, x, down, image[-1])
    return LayerUsage(usage, cycles, made.depth + 2, memory)


def _window(site: Site, x: TensorType, down: int, along: int, columns: int, shifts: bool) -> Usage:
    """The pixels of a window in registers, and the rows behind them."""
    bits = x.shape[0] * x.format.operand().width
    if down == 0:
        return Usage(ff=float((along + 1) * bits))
    side = max(down, along) + 1
    values = {"K": side, "W": bits, "N": columns, "STYLE": window_style(columns, shifts)}
    return site.hardware.model.usage("line_buffer", **values)


def _streams(streams: LayerRule, allowed: Collection[str], site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    """The queues in front of a node; an unrolled one has none."""
    fed = streams(site, folds)
    queued = np.array([not _is_whole(site.graph, site.node, fold, allowed) for fold in folds])
    return LayerUsage(fed.usage.times(queued), fed.cycles, fed.fill, fed.memory_bits * queued)


def _legal(
    architecture: Architecture, allowed: Collection[str], forced: Collection[str], graph: ExactGraph
) -> dict[str, tuple[Fold, ...]]:
    legal = {name: tuple(folds) for name, folds in architecture.legal_folding(graph).items()}
    for node in graph.nodes:
        if node.name in forced:
            legal[node.name] = (whole(graph, node),)
        elif node.name in allowed:
            legal[node.name] = tuple(dict.fromkeys((*legal[node.name], whole(graph, node))))
        # Elements of a single channel go side by side too, so that a whole vector does.
        if isinstance(node, _ALONE) and graph.tensors[node.output].shape[:1] == (1,):
            legal[node.name] = tuple(PeSimd(pe) for pe in divisors(graph.tensors[node.output].size))
    return legal


_ALONE = (ir.Requant, ir.Threshold, ir.Table, ir.Reshape, ir.Transpose)
