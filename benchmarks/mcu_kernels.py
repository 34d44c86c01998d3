"""Instructions per multiply-accumulate of the microcontroller kernels, exactly counted, beside CMSIS-NN's.

Every layer is compared with the exact graph first. Also what its hottest loop takes on a dual-issue Cortex-M7
by LLVM's model of that core. CMSIS-NN's sources are those in bakenn (``pip install --no-deps bakenn``).

    python benchmarks/mcu_kernels.py [--cores cortex-m7,cortex-m4]
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "flows" / "mcu"))

from kernel_cases import SOURCES, Case, compiled, conv_case, random_codes, run_cases

from qhw.errors import ToolMissingError
from qhw.flows.mcu.containers import Container, Map
from qhw.flows.mcu.dsp import fast_rounding, sum_bounds
from qhw.flows.mcu.kernels import conv_kernel
from qhw.flows.mcu.program import ConvLayer, ElementwiseLayer, Finish
from qhw.flows.mcu.toolchain import Core, Firmware, compile_firmware, core_named, run_firmware
from qhw.formats.integer import Integer
from qhw.formats.khot import KHot
from qhw.formats.modes import IntArray
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.resources import resource_dir

RESULT = Path(__file__).parent / "results" / "mcu_kernels.md"
CPI = (1.29, 1.60)
"""Cycles per instruction at one point of silicon: the range that cycles are modelled with."""


@dataclass(frozen=True)
class Shape:
    """A layer to measure: square maps, stride 1, padding that keeps the size."""

    title: str
    in_channels: int
    out_channels: int
    kernel: int
    side: int
    depthwise: bool = False


SHAPES = (
    Shape("3x3, 16x16x16 to 32", 16, 32, 3, 16),
    Shape("3x3, 8x8x64 to 64", 64, 64, 3, 8),
    Shape("3x3, 28x28x1 to 16", 1, 16, 3, 28),
    Shape("1x1, 16x16x16 to 32", 16, 32, 1, 16),
    Shape("1x1, 16x16x64 to 64", 64, 64, 1, 16),
    Shape("depthwise 3x3, 16x16x32", 32, 32, 3, 16, True),
    Shape("linear, 256 to 64", 256, 64, 1, 1),
)
BITS = ((8, 8), (4, 8), (4, 4), (2, 8), (2, 4), (2, 2))
"""Bits of weights and of activations."""


def layer_of(shape: Shape, weight_bits: int, bits: int, seed: int = 0) -> tuple[ConvLayer, IntArray]:
    """A layer as trained networks have it (bell-shaped weights, ReLU, batch norm), and its input."""
    random = np.random.default_rng(seed)
    x, weight, out = Container(bits, False), Container(weight_bits, True), Container(bits, False)
    groups = shape.in_channels if shape.depthwise else 1
    depth = shape.in_channels // groups
    spread = max(0.8, 2 ** (weight_bits - 1) / 3)
    size = (shape.out_channels, shape.kernel, shape.kernel, depth)
    weights = np.clip(np.rint(random.normal(0, spread, size)), weight.low, weight.high).astype(np.int64)
    multiplier = random.integers(64, 128, shape.out_channels)
    bias = random.integers(-x.high, x.high + 1, shape.out_channels)
    if shape.side == 1:
        multiplier[:] = 96  # CMSIS-NN's matrix product has one for all
    sums = math.sqrt(weights[0].size) * x.high / 2 * spread
    finish = Finish(
        out,
        "ROUND",
        rounding="RND_CONV",
        multiplier=tuple(map(int, multiplier)),
        addend=tuple(map(int, multiplier * bias)),
        shift=(max(2, round(math.log2(2 * sums * 96 / out.high))),),
        low=out.low,
        high=out.high,
    )
    pads = (shape.kernel // 2,) * 2
    layer = ConvLayer(x, weight, shape.in_channels, groups, (1, 1), (1, 1), pads, weights, False, finish)
    return layer, random_codes(random, x, (shape.in_channels, shape.side, shape.side))


def add_case() -> Case:
    """A residual addition, 16x16x32, of two maps with ReLU and exponents one apart."""
    random, shape, kind = np.random.default_rng(0), (32, 16, 16), Container(8, False)
    x, other = (random_codes(random, kind, shape) for _ in range(2))
    finish = Finish(kind, "ROUND", rounding="RND_CONV", shift=(2,), low=0, high=255)
    layer = ElementwiseLayer(kind, kind, 32, (1, 0), finish)
    builder = GraphBuilder("add")
    names = [builder.input(f"x{i}", shape, Integer(8, False), e) for i, e in enumerate((1, 0))]
    graph = builder.finish([builder.requant("out", builder.add("sum", *names), Integer(8, False), 2)])
    result = interpret(graph, {"x0": x[np.newaxis], "x1": other[np.newaxis]})["out"][0]
    return Case("qhw_add_dsp", layer, x, result, other)


def kernel_of(layer: ConvLayer) -> str:
    return conv_kernel(layer).function


def per_mac(firmware: Firmware, folder: Path, cases: Sequence[Case]) -> list[float]:
    """Instructions per multiply-accumulate; raises AssertionError where a code is not the exact graph's."""
    found = []
    for case, ran in zip(cases, run_cases(firmware, folder, cases), strict=True):
        assert ran.in_bounds
        np.testing.assert_array_equal(ran.out, case.expected)
        found.append(ran.instructions / case.macs)
    return found


# --- the peer ------------------------------------------------------------------------------------


def cmsis_folder() -> Path:
    """Where CMSIS-NN's sources are."""
    found = importlib.util.find_spec("bakenn")
    if found is None or not found.submodule_search_locations:
        raise ToolMissingError("CMSIS-NN's sources are missing", hint="pip install --no-deps bakenn")
    return Path(found.submodule_search_locations[0]) / "backend" / "cmsis_nn" / "vendor" / "cmsis_nn"


def cmsis_record(case: Case) -> bytes:
    """A layer as CMSIS-NN takes it: unsigned codes become signed bytes with a zero point of -128."""
    layer, finish = case.layer, case.layer.finish
    assert isinstance(layer, ConvLayer)
    assert finish.multiplier is not None
    assert finish.addend is not None
    kind = 1 if layer.is_depthwise else 2 if case.x.shape[1:] == (1, 1) else 0
    weights = layer.weights[..., 0].transpose(1, 2, 0) if kind == 1 else layer.weights
    multiplier = np.array(finish.multiplier, dtype=np.int64)
    exponent = np.ceil(np.log2(multiplier + 1)).astype(np.int64)
    head = [
        kind,
        *case.x.shape[1:],
        layer.in_channels,
        layer.out_channels,
        *layer.kernel,
        *layer.pads,
        128,
        -128,
    ]
    arrays = [
        Map(case.x.shape, Container(8, True)).pack(case.x[np.newaxis] - 128),
        weights.astype("i1"),
        (np.array(finish.addend) // multiplier).astype("<i4"),
        (multiplier << (31 - exponent)).astype("<i4"),
        (exponent - finish.shift[0]).astype("<i4"),
    ]
    return struct.pack(f"<{len(head)}i", *head) + b"".join(array.tobytes() for array in arrays)


def cmsis(folder: Path, core: Core, cases: Sequence[Case]) -> list[tuple[float, float]]:
    """Of each case: instructions per multiply-accumulate; the part of the codes that differs."""
    sources = cmsis_folder()
    files = [Path(__file__).with_name("mcu_cmsis.c"), *sorted((sources / "Source").rglob("*.c"))]
    firmware = compile_firmware(
        files, folder / "cmsis.elf", core, includes=[sources / "Include", Path(__file__).parent]
    )
    (folder / "layers.bin").write_bytes(b"".join(map(cmsis_record, cases)))
    run_firmware(firmware, folder)
    results, at, found = (folder / "results.bin").read_bytes(), 0, []
    for case in cases:
        ticks, status = struct.unpack_from("<II", results, at)
        assert status == 0
        out_map = Map(case.expected.shape, Container(8, True))
        memory = np.frombuffer(results, np.uint8, out_map.bytes, at + 8)
        at += 8 + out_map.bytes
        out = out_map.unpack(memory[np.newaxis])[0] + 128
        difference = np.abs(out - case.expected)
        assert difference.max() <= 1, "CMSIS-NN was given another layer"
        found.append((core.instructions(ticks) / case.macs, float((difference > 0).mean())))
    return found


# --- weights with few ones -------------------------------------------------------------------------


def khot_layer(format: KHot) -> tuple[ConvLayer, IntArray]:
    """The first of SHAPES with weights of a k-hot format, the nearest to bell-shaped ones; and its input."""
    layer, x = layer_of(SHAPES[0], format.width, 8)
    nearest = np.abs(layer.weights[..., np.newaxis] - format.numbers).argmin(axis=-1)
    return replace(layer, weights=format.numbers[nearest]), x


def terms(weights: IntArray) -> IntArray:
    """(powers of two from 1 on; sign: + and -; *shape): which terms weights are the sums of."""
    powers = range(max(1, int(np.abs(weights).max()).bit_length()))
    return np.array([[(np.abs(weights) >> p & 1) * (sign * weights > 0) for sign in (1, -1)] for p in powers])


def khot_weights(layer: ConvLayer) -> bytes:
    """Weights and roundings as ``mcu_khot.c`` takes them."""
    numbers = []
    for channel in layer.weights:
        ones = terms(channel.reshape(-1))
        powers = [p for p in reversed(range(len(ones))) if ones[p].any() or p == 0]
        numbers.append(len(powers))
        for power, before in zip(powers, [powers[0], *powers[:-1]], strict=True):
            numbers.append(before - power)
            for taps in ones[power]:
                places = np.flatnonzero(taps)
                assert len(places) * layer.x.high < 1 << 15, "16 bits hold the sum of no more taps"
                numbers += [len(places), *(16 * places)]
    stream = np.array(numbers, dtype="<u2").tobytes()
    stream += bytes(-len(stream) % 4)
    rounding = fast_rounding(layer.finish, *sum_bounds(layer))
    assert rounding is not None
    return struct.pack("<IHH", 8 + len(stream), rounding.ties_to_even, 0) + stream + rounding.pack().tobytes()


def by_shifts(folder: Path, core: Core, cases: Sequence[Case]) -> list[float]:
    """Instructions per multiply-accumulate without multiplying; AssertionError where a code is not exact."""
    sources = [Path(__file__).with_name("mcu_khot.c")]
    sources += [resource_dir("mcu") / "src" / name for name in SOURCES]
    firmware = compile_firmware(sources, folder / "khot.elf", core)
    found = []
    for case in cases:
        assert isinstance(case.layer, ConvLayer)
        weights = khot_weights(case.layer)
        head = [*case.x.shape[1:], case.layer.in_channels, case.layer.out_channels, case.layer.kernel[0]]
        head += [case.layer.pads[0], len(weights)]
        pixels = Map(case.x.shape, case.layer.x).pack(case.x[np.newaxis]).tobytes()
        (folder / "layers.bin").write_bytes(struct.pack("<7i", *head) + pixels + weights)
        run_firmware(firmware, folder)
        results = (folder / "results.bin").read_bytes()
        out = np.frombuffer(results, np.uint8, offset=4)[np.newaxis]
        np.testing.assert_array_equal(
            Map(case.expected.shape, case.layer.finish.out).unpack(out)[0], case.expected
        )
        found.append(core.instructions(struct.unpack_from("<I", results)[0]) / case.macs)
    return found


# --- the model of a dual-issue core --------------------------------------------------------------


def hottest_loop(program: Path, function: str, operation: str = "smla") -> list[str]:
    """The instructions of the loop of a function that has an operation most often."""
    command = ["arm-none-eabi-objdump", "-d", "--no-show-raw-insn", f"--disassemble={function}", str(program)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = re.findall(r"^\s*([0-9a-f]+):\s+(.*?)\s*(?:[@;].*)?$", told, re.MULTILINE)
    places = {int(at, 16): i for i, (at, _) in enumerate(lines)}
    loops = []
    for i, (at, text) in enumerate(lines):
        jump = re.match(r"b\w\w(?:\.[nw])?\s+([0-9a-f]+) <", text)
        if jump and int(jump[1], 16) <= int(at, 16) and int(jump[1], 16) in places:
            body = [text for _, text in lines[places[int(jump[1], 16)] : i]]
            if not any(re.match(r"b[lx. ]", text) for text in body):
                loops.append(body)
    return max(loops, key=lambda body: (multiplied(body, operation) / len(body), len(body)))


def multiplied(loop: Sequence[str], operation: str = "smla") -> int:
    """Instructions that multiply and accumulate, or have another operation."""
    return sum(operation in text for text in loop)


def cycles_of(loop: Sequence[str]) -> float:
    """Cycles of one pass through a loop, by llvm-mca's model of a Cortex-M7."""
    lines = [re.sub(r"^(\w+)\.[nw]\b", r"\1", text) for text in loop]  # which llvm-mca does not take
    command = [_mca(), "-mtriple=thumbv7em-none-eabihf", "-mcpu=cortex-m7", "-iterations=100"]
    told = subprocess.run(command, input="\n".join(lines) + "\n", check=True, capture_output=True, text=True)
    found = re.search(r"Total Cycles:\s+(\d+)", told.stdout)
    assert found
    return int(found[1]) / 100


def _mca() -> str:
    found = shutil.which("llvm-mca-19") or shutil.which("llvm-mca")
    if found is None:
        raise ToolMissingError("llvm-mca is missing", hint="install it (Debian: apt-get install llvm)")
    return found


KHOTS = (KHot(2, 1), KHot(3, 1), KHot(4, 1), KHot(4, 2), KHot(8, 1), KHot(8, 2))
"""Weights with few ones that are measured."""

# --- the tables ----------------------------------------------------------------------------------

LOOPS = (("qhw_dot_8", "8 bits", 2), ("qhw_dot_4", "4 bits", 2), ("qhw_dot_2", "2 bits", 4))
"""Functions of ``mcu/src/qhw_dot_dsp.c``, their weights, and products per instruction that multiplies."""


def table(folder: Path, core: Core) -> list[str]:
    """Instructions per multiply-accumulate on a core."""
    cases = [
        [conv_case(*layer_of(shape, *bits), kernel_of(layer_of(shape, *bits)[0])) for bits in BITS]
        for shape in SHAPES
    ]
    firmware = compiled(folder, core)
    found = per_mac(firmware, folder, [case for row in cases for case in row])
    portable = per_mac(firmware, folder, [replace(row[0], kernel=_portable(row[0])) for row in cases])
    peers = cmsis(folder, core, [row[0] for row in cases])
    added = per_mac(firmware, folder, [add_case(), replace(add_case(), kernel="qhw_add")])
    lines = [f"## {core.title}", "", "| layer | CMSIS-NN, 8 bits | portable C, 8 bits | "]
    lines[-1] += " | ".join(f"W{w}A{a}" for w, a in BITS) + " | CMSIS-NN / W8A8 |"
    lines.append("|---|" + "---|" * (len(BITS) + 3))
    for i, shape in enumerate(SHAPES):
        ours = found[i * len(BITS) : (i + 1) * len(BITS)]
        figures = " | ".join(f"{value:.2f}" for value in ours)
        peer = peers[i][0]
        lines.append(f"| {shape.title} | {peer:.2f} | {portable[i]:.2f} | {figures} | {peer / ours[0]:.2f} |")
    lines += [
        "",
        f"Residual addition of bytes: {added[0]:.1f} instructions per element, {added[1]:.1f} in portable C. "
        f"CMSIS-NN rounds {min(p[1] for p in peers):.2%} to {max(p[1] for p in peers):.2%} of these layers' "
        "codes otherwise than the exact graph (by 1).",
        "",
    ]
    lines += khot_table(folder, core, firmware)
    if core.name == "cortex-m7":
        lines += modelled(firmware, [found[i] for i in (0, 1, 5)], peers[0][0])
    return lines


def khot_table(folder: Path, core: Core, firmware: Firmware) -> list[str]:
    """k-hot weights by the kernels that multiply, and by shifts and additions alone."""
    layers = [khot_layer(format) for format in KHOTS]
    cases = [conv_case(layer, x, kernel_of(layer)) for layer, x in layers]
    multiplying, shifting = per_mac(firmware, folder, cases), by_shifts(folder, core, cases)
    lines = [
        f"### Weights with few ones, {SHAPES[0].title}, inputs of 8 bits",
        "",
        "By shifts: `benchmarks/mcu_khot.c` adds up the taps with the same power of two, two sums of 16 bits "
        "per register, for 8 pixels at a time, and shifts these sums; a weight of 0 takes nothing.",
        "",
        "| weights | ones per weight | zeros | kernel that multiplies | instructions per MAC | by shifts | "
        "bytes of weights | by shifts |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for format, (layer, _), ours, shifts in zip(KHOTS, layers, multiplying, shifting, strict=True):
        ones, zeros = terms(layer.weights).sum() / layer.weights.size, np.mean(layer.weights == 0)
        sizes = f"{len(conv_kernel(layer).pack(layer)):,} | {len(khot_weights(layer)):,}"
        figures = f"{ours:.2f} | {shifts:.2f} | {sizes}"
        lines.append(f"| `{format}` | {ones:.2f} | {zeros:.0%} | `{kernel_of(layer)}` | {figures} |")
    pairs = list(zip(KHOTS, multiplying, shifting, strict=True))
    fewer = [f"`{format}`" for format, ours, shifts in pairs if shifts < ours]
    lines += ["", f"Shifts take fewer instructions for: {', '.join(fewer) or 'none'}."]
    if core.name == "cortex-m7":
        lines.append(khot_cycles(firmware, folder / "khot.elf", [layer for layer, _ in layers]))
    return [*lines, ""]


def khot_cycles(firmware: Firmware, shifts: Path, layers: Sequence[ConvLayer]) -> str:
    """What cycles may come of it, loop against loop."""
    loop = hottest_loop(shifts, "sums_of", "add16")
    each = cycles_of(loop) / (2 * multiplied(loop, "add16"))
    told, faster = [], []
    for format, layer in zip(KHOTS, layers, strict=True):
        function, _, products = next(entry for entry in LOOPS if entry[0][-1] == kernel_of(layer)[-1])
        dot = hottest_loop(firmware.program, function)
        known = cycles_of(dot) / (products * multiplied(dot))
        takes = each * terms(layer.weights).sum() / layer.weights.size
        told.append(f"`{format}` {takes:.2f} ({known:.2f})")
        faster += [f"`{format}`"] if takes < known else []
    return (
        "An instruction that loads the four words of a tap counts as one, but takes several cycles. Cycles "
        "per MAC of the loops alone, by llvm-mca's dual-issue Cortex-M7 (of the kernel that multiplies): "
        f"{', '.join(told)}. Shifts take fewer cycles for: {', '.join(faster) or 'none'}."
    )


def modelled(firmware: Firmware, ours: Sequence[float], peer: float) -> list[str]:
    """What cycles may come of it."""
    lines = ["### Cycles, modelled", ""]
    for (function, weights, products), figure in zip(LOOPS, ours, strict=True):
        loop = hottest_loop(firmware.program, function)
        macs = products * multiplied(loop)
        cycles = cycles_of(loop) / macs
        lines.append(
            f"- weights of {weights}: the loop {(len(loop) + 1) / macs:.2f} instructions per MAC, "
            f"{cycles:.2f} cycles by llvm-mca's dual-issue Cortex-M7; the whole layer (3x3, 16x16x16 to 32) "
            f"{figure:.2f} instructions, {_cycles(figure)} at {CPI[0]} to {CPI[1]} cycles per instruction."
        )
    lines += [
        f"- CMSIS-NN, the same layer: {peer:.2f} instructions, {_cycles(peer)}.",
        "- Measured on silicon elsewhere: X-CUBE-AI 9 takes 0.91 cycles per MAC for the whole of ResNet8 "
        "(MLPerf Tiny v1.2, closed, NUCLEO-H7A3, 40.8 ms at 280 MHz, 12.5 M MAC).",
        "",
        f"The {CPI[0]} to {CPI[1]} cycles per instruction are those of other code at one point of silicon; "
        "the loop's cycles are a model of the pipeline, with memory that never waits. Neither is measured.",
        "",
    ]
    return lines


def _cycles(instructions: float) -> str:
    return f"{instructions * CPI[0]:.2f} to {instructions * CPI[1]:.2f} cycles"


def _portable(case: Case) -> str:
    return "qhw_depthwise" if case.kernel == "qhw_depthwise_dsp" else "qhw_conv"


def main() -> None:
    """Measure on each core and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", default="cortex-m7,cortex-m4", help="with commas between")
    given = parser.parse_args()
    lines = [
        "# Kernels for microcontrollers: instructions per multiply-accumulate",
        "",
        "Counted exactly by QEMU (`-icount`), arm-none-eabi-gcc -O2, everything included: gathering the "
        "taps, sums, batch norm, rounding to even, packing. Every code was compared with the exact graph. "
        "WxAy: weights of x bits, inputs and outputs of y bits, unsigned. CMSIS-NN 4.0.0 is compiled with "
        "the same compiler and options. Multiplications with padding count. Written by "
        "`benchmarks/mcu_kernels.py`.",
        "",
    ]
    for name in given.cores.split(","):
        with tempfile.TemporaryDirectory() as folder:
            lines += table(Path(folder), core_named(name))
    RESULT.write_text("\n".join(lines).rstrip() + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
