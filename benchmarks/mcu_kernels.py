"""Instructions per multiply-accumulate of the microcontroller kernels, exactly counted by QEMU, beside CMSIS-NN's.

Every layer is compared with the exact graph first. Also what its hottest loop takes on a dual-issue Cortex-M7 by LLVM's
model of that core. CMSIS-NN's sources are those in bakenn (``pip install --no-deps bakenn``).

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

from kernel_cases import Case, compiled, conv_case, random_codes, run_cases  # noqa: E402
from qhw.errors import ToolMissingError  # noqa: E402
from qhw.flows.mcu import dsp  # noqa: E402
from qhw.flows.mcu.containers import Container, Map  # noqa: E402
from qhw.flows.mcu.kernels import conv_kernel  # noqa: E402
from qhw.flows.mcu.program import ConvLayer, ElementwiseLayer, Finish  # noqa: E402
from qhw.flows.mcu.toolchain import CORES, Core, Firmware, compile_firmware, run_firmware  # noqa: E402
from qhw.formats.modes import IntArray  # noqa: E402
from qhw.graph.builder import GraphBuilder  # noqa: E402
from qhw.graph.interpreter import interpret  # noqa: E402

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
    """A layer as a trained network has it: bell-shaped weights, ReLU outputs, batch norm per channel; and its input."""
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
    layer = ConvLayer(
        x, weight, shape.in_channels, groups, (1, 1), (1, 1), pads, weights, False, finish
    )
    return layer, random_codes(random, x, (shape.in_channels, shape.side, shape.side))


def add_case() -> Case:
    """A residual addition, 16x16x32, of two maps with ReLU and exponents one apart."""
    random, shape, kind = np.random.default_rng(0), (32, 16, 16), Container(8, False)
    x, other = (random_codes(random, kind, shape) for _ in range(2))
    finish = Finish(kind, "ROUND", rounding="RND_CONV", shift=(2,), low=0, high=255)
    layer = ElementwiseLayer(kind, kind, 32, (1, 0), finish)
    builder = GraphBuilder("add")
    from qhw.formats.integer import Integer

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
    head = [kind, *case.x.shape[1:], layer.in_channels, layer.out_channels, *layer.kernel, *layer.pads, 128, -128]
    arrays = [
        Map(case.x.shape, Container(8, True)).pack(case.x[np.newaxis] - 128),
        weights.astype("i1"),
        (np.array(finish.addend) // multiplier).astype("<i4"),
        (multiplier << (31 - exponent)).astype("<i4"),
        (exponent - finish.shift[0]).astype("<i4"),
    ]
    return struct.pack(f"<{len(head)}i", *head) + b"".join(array.tobytes() for array in arrays)


def cmsis(folder: Path, core: Core, cases: Sequence[Case]) -> list[tuple[float, float]]:
    """Of each case: instructions per multiply-accumulate, and the part of the codes that differs from the exact graph."""
    sources = cmsis_folder()
    files = [Path(__file__).with_name("mcu_cmsis.c"), *sorted((sources / "Source").rglob("*.c"))]
    firmware = compile_firmware(files, folder / "cmsis.elf", core, includes=[sources / "Include", Path(__file__).parent])
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


# --- the model of a dual-issue core --------------------------------------------------------------


def hottest_loop(program: Path, function: str) -> list[str]:
    """The instructions of the loop of a function that multiplies most."""
    told = subprocess.run(
        ["arm-none-eabi-objdump", "-d", "--no-show-raw-insn", f"--disassemble={function}", str(program)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = re.findall(r"^\s*([0-9a-f]+):\s+(.*?)\s*(?:[@;].*)?$", told, re.MULTILINE)
    places = {int(at, 16): i for i, (at, _) in enumerate(lines)}
    loops = []
    for i, (at, text) in enumerate(lines):
        jump = re.match(r"b\w\w(?:\.[nw])?\s+([0-9a-f]+) <", text)
        if jump and int(jump[1], 16) <= int(at, 16) and int(jump[1], 16) in places:
            body = [text.replace("\t", " ") for _, text in lines[places[int(jump[1], 16)] : i]]
            if not any(re.match(r"b[lx. ]", text) for text in body):
                loops.append(body)
    return max(loops, key=lambda body: (sum("smla" in text for text in body) / len(body), len(body)))


def cycles_of(loop: Sequence[str]) -> float:
    """Cycles of one pass through a loop, by llvm-mca's model of a Cortex-M7."""
    told = subprocess.run(
        ["llvm-mca", "-mtriple=thumbv7em-none-eabihf", "-mcpu=cortex-m7", "-iterations=100"],
        input="\n".join(loop) + "\n",
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", told)[1]) / 100  # type: ignore[index]
