"""Random layers for kernels of microcontrollers, what they must give, and a firmware that runs them."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qhw.flows.mcu import dsp
from qhw.flows.mcu.containers import Bytes, Container, Map
from qhw.flows.mcu.kernels import by_channel, by_tap
from qhw.flows.mcu.program import ConvLayer, ElementwiseLayer, Finish
from qhw.flows.mcu.toolchain import Core, Firmware, compile_firmware, run_firmware
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.resources import resource_dir

ROUNDINGS = ("RND", "RND_ZERO", "RND_MIN_INF", "RND_INF", "RND_CONV", "TRN", "TRN_ZERO", "CEIL", "UP")
KINDS = ("KEEP", "ROUND", "COUNT", "LOOK_UP")
KERNELS = (
    "qhw_conv",
    "qhw_depthwise",
    "qhw_conv_dsp8",
    "qhw_conv_dsp4",
    "qhw_conv_dsp2",
    "qhw_depthwise_dsp",
)
ADDS = ("qhw_add", "qhw_add_dsp")
SOURCES = ("qhw_conv.c", "qhw_elementwise.c", "qhw_finish.c", *dsp.SOURCES)


@dataclass(frozen=True)
class Case:
    """A layer with an input and what it must give.

    Args:
        x, other, expected: mantissas (channels, rows, columns); other: of an addition.
    """

    kernel: str
    layer: ConvLayer | ElementwiseLayer
    x: IntArray
    expected: IntArray
    other: IntArray | None = None

    @property
    def macs(self) -> int:
        rows = math.prod(self.expected.shape[1:])
        return rows * (self.layer.weights.size if isinstance(self.layer, ConvLayer) else self.layer.channels)


@dataclass(frozen=True)
class Ran:
    """What a firmware gave for a case; instructions are 0 on the host."""

    out: IntArray
    instructions: int
    in_bounds: bool


def graph_of(layer: ConvLayer, shape: tuple[int, ...]) -> ExactGraph:
    """The layer as an exact graph; exponents are 0 but the result's, which is the shift."""
    builder, finish = GraphBuilder("layer"), layer.finish
    x = builder.input("x", shape, Integer(layer.x.bits, layer.x.is_signed), 0)
    weight = builder.constant("w", layer.weights.transpose(0, 3, 1, 2), Integer(layer.weight.bits), 0)
    out = builder.conv(
        "conv",
        x,
        weight,
        strides=layer.strides,
        pads=(*layer.pads, *layer.pads),
        dilations=layer.dilations,
        groups=layer.groups,
    )
    if finish.multiplier is not None and finish.addend is not None:
        constants = []
        for name, values in (("m", finish.multiplier), ("a", finish.addend)):
            array = np.array(values if len(values) > 1 else values[0])
            constants.append(builder.constant(name, array, Integer(33), 0))
        out = builder.affine("affine", out, *constants)
    if finish.kind == "ROUND":
        out = builder.requant(
            "out",
            out,
            Integer(finish.out.bits, finish.out.is_signed),
            finish.shift[0],
            rounding=Rounding(finish.rounding),
            low=finish.low,
            high=finish.high,
        )
    if finish.kind == "COUNT":
        levels = finish.levels
        assert finish.thresholds is not None
        assert levels is not None
        t = builder.constant("t", finish.thresholds, Integer(33), 0)
        kind = Integer(finish.out.bits, finish.out.is_signed)
        out = builder.threshold("out", out, t, builder.constant("l", levels, kind, 0), kind)
    return builder.finish([out])


def expected(layer: ConvLayer, x: IntArray) -> IntArray:
    """By the exact graph's interpreter."""
    graph = graph_of(layer, x.shape)
    return interpret(graph, {"x": x[np.newaxis]})[graph.outputs[0]][0]


def random_codes(random: np.random.Generator, container: Container, shape: Sequence[int]) -> IntArray:
    """Uniform codes, or only the ends of the range, where sums are largest."""
    if random.random() < 0.25:
        return random.choice([container.low, container.high], size=shape).astype(np.int64)
    return random.integers(container.low, container.high + 1, size=shape)


def random_finish(random: np.random.Generator, channels: int, spread: float, out: Container) -> Finish:
    """A rounding (mostly), thresholds, or the sum itself; spread: how large sums are."""
    kind = random.choice(["ROUND"] * 6 + ["COUNT", "KEEP"])
    if kind == "KEEP":
        return Finish(Container(32, True))
    if kind == "COUNT" and out.bits <= 8:
        count = (1 << out.bits) - 1
        steps = random.integers(1, max(2, int(4 * spread / count)), size=(channels, count))
        thresholds = np.cumsum(steps, axis=1) - steps.sum(axis=1, keepdims=True) // 2
        levels = np.arange(out.low, out.high + 1)[np.newaxis]
        return Finish(out, "COUNT", thresholds=thresholds, levels=levels)
    shift = int(random.integers(3, 20))
    size = channels if random.random() < 0.8 else 1
    # One code is about spread / out.high sums, so results saturate sometimes; small multipliers give ties.
    gain = min(max(1.0, (1 << shift) * out.high / spread), 2.0**30)
    multiplier = (
        random.integers(-int(gain) - 1, int(gain) + 2, size) if random.random() < 0.8 else np.ones(size, int)
    )
    limit = 1 << min(shift + out.bits, 29)
    addend = random.integers(-limit, limit, size)
    low, high = (
        (out.low, out.high) if random.random() < 0.7 else sorted(random.integers(out.low, out.high + 1, 2))
    )
    return Finish(
        out,
        "ROUND",
        wide=True,
        rounding=str(random.choice([*ROUNDINGS, *["RND_CONV"] * 9])),
        multiplier=tuple(map(int, multiplier)),
        addend=tuple(map(int, addend)),
        shift=(shift,),
        low=int(low),
        high=int(high),
    )


def random_conv(
    random: np.random.Generator, depthwise: bool = False
) -> tuple[ConvLayer, tuple[int, int, int]]:
    """A convolution and the shape of its input."""
    bits = [int(random.choice(widths)) for widths in ([2, 4, 8], [2, 4, 8], [2, 4, 8, 16])]
    x = Container(bits[0], bool(random.integers(2)))
    weight = Container(bits[1], True)
    out = Container(bits[2], bool(random.integers(2)))
    plain = (
        depthwise and random.random() < 0.5
    )  # 3 x 3, stride 1: a way of its own through strips of 16 columns
    kernel = np.array([3, 3]) if plain else random.integers(1, 5, 2)
    if depthwise:
        groups = channels = out_channels = 4 * int(random.integers(1, 6))
    else:
        groups = int(random.choice([1, 1, 1, 2, 3]))
        channels, out_channels = groups * int(random.integers(1, 20)), groups * int(random.integers(1, 12))
    depth = channels // groups
    weights = random_codes(random, weight, (out_channels, *kernel, depth))
    spread = math.sqrt(depth * kernel.prod()) * max(1, x.high) * max(1, weight.high)
    dilations = np.array([1, 1]) if plain else random.choice([1, 1, 1, 2, 3], 2)
    strides = np.array([1, 1]) if plain else random.integers(1, 4, 2)
    pads = random.integers(0, 3, 2)
    least = np.maximum(1, dilations * (kernel - 1) + 1 - 2 * pads)
    rows, columns = least + random.integers(0, 40 if plain else 7, 2)
    layer = ConvLayer(
        x,
        weight,
        channels,
        groups,
        (int(strides[0]), int(strides[1])),
        (int(dilations[0]), int(dilations[1])),
        (int(pads[0]), int(pads[1])),
        weights,
        False,
        random_finish(random, out_channels, spread, out),
    )
    return layer, (channels, int(rows), int(columns))


def conv_case(layer: ConvLayer, x: IntArray, kernel: str) -> Case:
    return Case(kernel, layer, x, expected(layer, x))


def random_add(random: np.random.Generator, shape: tuple[int, int, int] | None = None) -> Case:
    """A residual addition of maps of bytes that qhw_add_dsp takes, in the exact graph's words."""
    drawn = 4 * int(random.integers(1, 8)), *(int(n) for n in random.integers(1, 6, 2))
    channels, rows, columns = shape or drawn
    kinds = [Container(8, bool(random.integers(2))) for _ in range(2)]
    out = Container(8, bool(random.integers(2)))
    shifts, shift = random.integers(0, 5, 2), int(random.integers(-2, 8))
    shifts -= shifts.min()
    modes = ROUNDINGS if not out.is_signed else ("RND", "RND_MIN_INF", "RND_CONV", "TRN", "CEIL")
    rounding = str(random.choice(modes))
    builder = GraphBuilder("add")
    names = [
        builder.input(f"x{i}", (channels, rows, columns), Integer(8, kind.is_signed), int(s))
        for i, (kind, s) in enumerate(zip(kinds, shifts, strict=True))
    ]
    total = builder.add("sum", *names)
    builder.requant("out", total, Integer(8, out.is_signed), shift, rounding=Rounding(rounding))
    graph = builder.finish(["out"])
    x, other = (random_codes(random, kind, (channels, rows, columns)) for kind in kinds)
    result = interpret(graph, {"x0": x[np.newaxis], "x1": other[np.newaxis]})["out"][0]
    finish = Finish(out, "ROUND", rounding=rounding, shift=(shift,), low=out.low, high=out.high)
    layer = ElementwiseLayer(kinds[0], kinds[1], channels, (int(shifts[0]), int(shifts[1])), finish)
    return Case("qhw_add_dsp", layer, x, result, other)


def _numbers(values: Sequence[int] | IntArray | None, kind: str) -> bytes:
    return b"" if values is None else np.asarray(values).astype(kind).tobytes()


def _weights(case: Case) -> Bytes:
    layer = case.layer
    if isinstance(layer, ElementwiseLayer):
        return np.zeros(0, dtype=np.uint8)
    if case.kernel == "qhw_depthwise_dsp":
        return dsp.pack_depthwise(layer)
    if case.kernel.startswith("qhw_conv_dsp"):
        return dsp.pack_conv(layer)
    return by_tap(layer) if case.kernel == "qhw_depthwise" else by_channel(layer)


def _scratch(case: Case) -> int:
    layer = case.layer
    if isinstance(layer, ElementwiseLayer):
        return 0
    if case.kernel == "qhw_depthwise_dsp":
        return dsp.depthwise_scratch(layer)
    if case.kernel.startswith("qhw_conv_dsp"):
        return dsp.conv_scratch(layer)
    return 4 * layer.in_channels * math.prod(layer.kernel) + 4 * layer.groups * math.prod(layer.kernel) * 4


def record(case: Case) -> bytes:
    """A case as kernel_cases.c reads it."""
    layer, finish = case.layer, case.layer.finish
    conv, shifts, channels, other_signed = [0] * 14, (0, 0), 0, 0
    pads = (0, 0)
    if isinstance(layer, ConvLayer):
        conv = [layer.x.bits, layer.x.is_signed, layer.weight.bits, layer.weight.is_signed, layer.in_channels]
        conv += [layer.out_channels, layer.groups, *layer.kernel, *layer.strides, *layer.dilations, 0]
        pads = layer.pads
        number = KERNELS.index(case.kernel)
    else:
        conv[:2] = [layer.x.bits, layer.x.is_signed]
        shifts, channels, other_signed = (
            layer.shifts,
            layer.channels,
            bool(layer.other and layer.other.is_signed),
        )
        number = len(KERNELS) + ADDS.index(case.kernel)
    x_map, out_map = Map(case.x.shape, layer.x), Map(case.expected.shape, finish.out)
    wide = "<i8" if finish.wide else "<i4"
    count = 0 if finish.thresholds is None else finish.thresholds.shape[1]
    steps = [int(v is not None and len(v) > 1) for v in (finish.multiplier, finish.addend, finish.shift)]
    rows = [0 if a is None or len(a) == 1 else a.shape[1] for a in (finish.thresholds, finish.levels)]
    output = [finish.out.bits, finish.out.is_signed, KINDS.index(finish.kind), finish.wide]
    output += [
        ROUNDINGS.index(finish.rounding),
        0,
        finish.width,
        *steps,
        count,
        *rows,
        0,
        finish.low,
        finish.high,
        0,
        0,
    ]
    region = [*case.x.shape[1:], *case.expected.shape[1:], *pads, x_map.row_bytes, out_map.row_bytes]
    levels = (
        b""
        if finish.levels is None
        else Map((finish.levels.size,), finish.out).pack(finish.levels.reshape(1, -1)).tobytes()
    )
    arrays = [
        x_map.pack(case.x[np.newaxis]).tobytes(),
        b""
        if case.other is None
        else Map(case.other.shape, Container(8, False)).pack(case.other[np.newaxis]).tobytes(),
        _weights(case).tobytes(),
        _numbers(finish.multiplier, "<i4"),
        _numbers(finish.addend, wide),
        _numbers(finish.shift, "i1"),
        _numbers(finish.thresholds, wide),
        levels,
    ]
    head = [number, *shifts, channels, other_signed, x_map.row_bytes, *conv, *output, *region]
    head += [*map(len, arrays), _scratch(case), out_map.bytes]
    return struct.pack(f"<{len(head)}i", *map(int, head)) + b"".join(arrays)


def compiled(folder: Path, core: Core | None, **options: str) -> Firmware:
    """The firmware that runs cases."""
    sources = [Path(__file__).with_name("kernel_cases.c")]
    sources += [resource_dir("mcu") / "src" / name for name in SOURCES]
    return compile_firmware(sources, folder / "cases.elf", core, **options)


def run_cases(firmware: Firmware, folder: Path, cases: Sequence[Case]) -> list[Ran]:
    """Run all cases in one go."""
    (folder / "cases.bin").write_bytes(b"".join(map(record, cases)))
    run_firmware(firmware, folder)
    results, at, found = (folder / "results.bin").read_bytes(), 0, []
    for case in cases:
        ticks, in_bounds = struct.unpack_from("<II", results, at)
        out_map = Map(case.expected.shape, case.layer.finish.out)
        memory = np.frombuffer(results, np.uint8, out_map.bytes, at + 8)
        at += 8 + out_map.bytes
        instructions = firmware.core.instructions(ticks) if firmware.core else 0
        found.append(Ran(out_map.unpack(memory[np.newaxis])[0], instructions, bool(in_bounds)))
    assert at == len(results)
    return found


def with_kernel(case: Case, kernel: str) -> Case:
    """The same case by another kernel."""
    return replace(case, kernel=kernel)
