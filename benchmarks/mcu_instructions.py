"""Counts the instructions of firmware kernels in QEMU, and fits the model of ``qhw cost --flow mcu``.

    python benchmarks/mcu_instructions.py [--check]

Networks of random layers are compiled for each core and run once; every step gives one row. Each fifth
network is held out of the fit. Writes ``mcu/instructions.json`` and
``benchmarks/results/mcu_instructions.md``; ``--check`` only says whether both are what would be written.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qhw.boards import load_board
from qhw.flows.base import default_vectors
from qhw.flows.mcu import McuFlow
from qhw.flows.mcu.design import layout_of
from qhw.flows.mcu.execution import execute
from qhw.flows.mcu.instructions import MODEL_FILE, fit, predicted
from qhw.flows.mcu.kernels import SOURCES
from qhw.flows.mcu.project import KERNELS, TEST, read_description
from qhw.flows.mcu.toolchain import CORES, Core, compile_firmware, compile_objects
from qhw.flows.mcu.work import loops_of, work_of
from qhw.formats.integer import Integer
from qhw.formats.modes import Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.resources import resource_dir

ROOT = Path(__file__).parent.parent
BOARDS = {"cortex-m7": "stm32h743", "cortex-m4": "stm32f412", "cortex-m33": "rp2350"}
NETWORKS = 60
STEPS = 48
"""Random layers of a network, and what belongs to them."""

LARGEST = 1 << 20
"""Multiplications of 64 channels of 1 x 1 taps that a layer may take; of more taps, as many more."""

WIDE = 3
"""One network in so many has results and weights of 12 bits, too, which portable kernels carry out."""

HELD_OUT = 5
"""One network in so many is held out."""


@dataclass(frozen=True)
class Row:
    """One step of one network on one core."""

    core: str
    kernel: str
    network: int
    work: dict[str, float]
    instructions: int


class _Network:
    """Random layers, each of the input or of what another one gives, in all shapes that kernels branch on."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.builder = GraphBuilder(f"layers_{seed}")
        self.wide = seed % WIDE == 1

    def below(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high))

    def one_of(self, *values: int) -> int:
        return int(self.random.choice(values))

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def weights(self, shape: tuple[int, ...], bits: int) -> str:
        high = 1 << (bits - 1)
        return self.builder.constant("w", self.random.integers(-high, high, shape), Integer(bits), 1 - bits)

    def rounded(self, x: str, bits: int = 0) -> str:
        """To 16, 8, 4 or 2 bits, signed or not, by one of the usual roundings."""
        bits, kind = bits or self.one_of(8, 8, 8, 8, 4, 2, 16, *(12,) * self.wide), self.builder.type(x)
        exponent = max(kind.exponent.values) + max(kind.format.width - bits - 1, 0)
        mode = Rounding.RND if self.chance(0.3) else Rounding.RND_CONV
        return self.builder.requant("act", x, Integer(bits, self.chance(0.5)), exponent, rounding=mode)

    def conv(self, x: str) -> str:
        channels, rows, columns = self.builder.type(x).shape
        groups, filters = 1, self.one_of(1, 3, 4, 8, 10, 16, 24, 32, 64)
        if self.chance(0.4) and channels > 1:
            groups = filters = channels
        elif channels % 2 == 0 and self.chance(0.1):
            groups, filters = 2, 2 * self.below(1, 12)
        square = self.one_of(1, 1, 3, 3, 3, 5)
        kernel = (square, square) if self.chance(0.8) else (self.below(1, 7), self.below(1, 5))
        dilations = (1, 1) if self.chance(0.85) else (self.one_of(1, 2), self.one_of(1, 2))
        strides = (1, 1) if self.chance(0.6) else (self.one_of(1, 2), 2)
        same = self.chance(0.7)
        pads = [
            dilation * (size // 2) if same else 0 for size, dilation in zip(kernel, dilations, strict=True)
        ]
        reach = [dilation * (size - 1) + 1 for size, dilation in zip(kernel, dilations, strict=True)]
        if any(n + 2 * pad < size for n, pad, size in zip((rows, columns), pads, reach, strict=True)):
            kernel, dilations, pads = (1, 1), (1, 1), [0, 0]
        bits = self.one_of(8, 8, 8, 4, 2, *(12, 12) * self.wide)
        weight = self.weights((filters, channels // groups, *kernel), bits)
        y = self.builder.conv(
            "conv", x, weight, strides=strides, pads=(*pads, *pads), dilations=dilations, groups=groups
        )
        return self.normed(y, filters)

    def normed(self, x: str, filters: int) -> str:
        """With a batch norm or not, rounded, looked up, compared, or as it is."""
        if self.chance(0.6):
            multiplier = self.builder.constant("m", self.random.integers(32, 128, filters), Integer(8), -7)
            exponent = max(self.builder.type(x).exponent.values) - self.one_of(0, 0, 12)  # finer: 64 bits
            offset = self.builder.constant("o", self.random.integers(-99, 99, filters), Integer(8), exponent)
            x = self.builder.affine("norm", x, multiplier, offset)
        if self.chance(0.1):
            return self.counted(x)
        return x if self.chance(0.05) and self.builder.type(x).format.width <= 32 else self.rounded(x)

    def linear(self, x: str) -> str:
        size, filters = self.builder.type(x).size, self.one_of(1, 8, 10, 32, 100)
        flat = self.builder.reshape("flat", x, (size,))
        y = self.builder.matmul("linear", flat, self.weights((size, filters), self.one_of(8, 8, 4, 2)))
        return self.builder.reshape("column", self.normed(y, filters), (filters, 1, 1))

    def residual(self, x: str) -> str:
        bits = 8 if self.chance(0.7) else 0
        return self.rounded(self.builder.add("add", self.rounded(x, bits), self.rounded(x, bits)), bits)

    def product(self, x: str) -> str:
        return self.rounded(self.builder.mul("mul", self.rounded(x), self.rounded(x)))

    def table(self, x: str) -> str:
        low, high = self.builder.ranges[x].bounds
        if high - low > 4096:
            return self.rounded(x)
        values = self.builder.constant("table", self.random.integers(-128, 128, (1, high - low + 1)))
        return self.builder.table("lookup", x, values, low, Integer(8), -4)

    def counted(self, x: str) -> str:
        low, high = self.builder.ranges[x].bounds
        count = self.one_of(3, 7, 15)
        steps = max(1, (high - low) // (count + 1))
        thresholds = self.builder.constant("t", low + steps * (1 + np.arange(count))[np.newaxis])
        levels = self.builder.constant("v", np.arange(count + 1)[np.newaxis])
        return self.builder.threshold("count", x, thresholds, levels, Integer(4, False))

    def pool(self, x: str) -> str:
        _, rows, columns = self.builder.type(x).shape
        kernel = (min(self.one_of(2, 2, 3), rows), min(self.one_of(2, 2, 3), columns))
        if self.chance(0.3):
            kernel = (rows, columns)
        strides = kernel if self.chance(0.7) else (1, 1)
        pads = (0, 0, 0, 0) if self.chance(0.7) else (1, 1, 0, 0)
        pads = pads if min(kernel) > 1 else (0, 0, 0, 0)
        if self.chance(0.5):
            return self.builder.max_pool("max", x, kernel, strides, pads, (1, 1))
        total = self.builder.sum_pool("sum", x, kernel, strides, pads)
        return self.rounded(total) if self.chance(0.8) else total

    def moves(self, x: str) -> str:
        channels = self.builder.type(x).shape[0]
        first = self.builder.slice("front", x, 0, 0, self.below(1, channels + 1), 1)
        if self.chance(0.3):
            return first
        joined = self.builder.concat("both", [x, first], 0)
        return self.builder.pad("pad", joined, (0, 1, 1, 0, 1, 1), 0) if self.chance(0.5) else joined

    def turned(self, x: str) -> str:
        channels, rows, columns = self.builder.type(x).shape
        if rows * columns <= 64 and self.chance(0.5):
            return self.builder.upsample("up", x, (2, self.one_of(1, 2)), False)
        if self.chance(0.5):
            return self.builder.transpose("turn", x, (0, 2, 1))
        return self.builder.reshape("shaped", x, (rows, channels, columns))

    def matrices(self, x: str) -> str:
        columns = self.builder.type(x).shape[2]
        return self.rounded(self.builder.matmul("product", x, self.weights((columns, self.below(1, 9)), 8)))

    def build(self) -> ExactGraph:
        side, channels = self.one_of(6, 10, 16, 20), self.one_of(1, 3, 4, 8)
        image = self.builder.input("image", (channels, side, side), Integer(8, False), -8)
        kinds = (self.conv, self.linear, self.residual, self.product, self.table, self.counted, self.pool)
        kinds = (*kinds, self.moves, self.turned, self.matrices, self.rounded)
        shares = np.array([20, 3, 3, 2, 1, 1, 4, 2, 2, 1, 1])
        made = [
            image,
            self.rounded(self.builder.conv("stem", image, self.weights((16, channels, 1, 1), 8)), 8),
        ]
        for _ in range(STEPS):
            x = made[self.below(0, len(made))]
            if self.builder.type(x).size * 64 > LARGEST or self.builder.type(x).format.width > 16:
                continue
            made.append(kinds[int(self.random.choice(len(kinds), p=shares / shares.sum()))](x))
        return self.builder.finish(made[1:])


def measure(core: Core, objects: list[Path], number: int) -> Iterator[Row]:
    """The steps of one random network on a core, whose kernels are compiled already."""
    flow = McuFlow(patches="none")
    design = flow.prepare(_Network(number).build(), load_board(BOARDS[core.name]))
    layout, vectors = layout_of(design), default_vectors(design.graph, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        flow.write(design, folder, vectors=vectors)
        description = read_description(folder)
        firmware = compile_firmware(
            [folder / "model.c", folder / TEST / "harness.c", *objects],
            Path(name) / "observed.elf",
            core,
            includes=[folder, folder / KERNELS],
            defines=["QHW_OBSERVE"],
        )
        found, counts = execute(
            firmware,
            vectors,
            (description.inputs, description.outputs),
            description.sizes,
            [step.observed for step in description.steps],
            timeout=120,
        )
    for name, expected in interpret(design.graph, vectors, keep="all").items():
        if name in found and not np.array_equal(found[name], expected):
            raise SystemExit(f"network {number} differs at {name}")
    for step, counted in zip(layout.program.steps, counts.steps, strict=True):
        yield Row(core.name, loops_of(step.kernel), number, work_of(layout, step), counted)


def measured(core: Core) -> Iterator[Row]:
    """The steps of all networks on a core."""
    sources = [resource_dir("mcu") / "src" / name for name in SOURCES]
    with tempfile.TemporaryDirectory() as folder:
        objects = compile_objects(sources, Path(folder), core)
        for number in range(NETWORKS):
            yield from measure(core, objects, number)


def model(rows: list[Row]) -> tuple[dict[str, object], list[tuple[Row, float]]]:
    """The fitted model, and what it says of the rows that were held out."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.core, row.kernel].append(row)
    weights: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    told = []
    for (core, kernel), group in sorted(groups.items()):
        fitted = [row for row in group if row.network % HELD_OUT] or group
        weights[core][kernel] = fit([row.work for row in fitted], [row.instructions for row in fitted])
        for row in group:
            if row.network % HELD_OUT == 0:
                said = predicted(weights[core][kernel], row.work)
                told.append((row, said / row.instructions - 1))
    errors = np.abs([error for _, error in told])
    held_out = {
        "median": round(float(np.median(errors)), 4),
        "p95": round(float(np.quantile(errors, 0.95)), 4),
    }
    return {"held_out": held_out, "weights": {core: dict(found) for core, found in weights.items()}}, told


def page(rows: list[Row], found: dict[str, object], told: list[tuple[Row, float]]) -> str:
    """The results as Markdown."""
    held = found["held_out"]
    assert isinstance(held, dict)
    lines = [
        "# Instructions of firmware kernels",
        "",
        f"Counted by QEMU 7.2 (`-icount`), arm-none-eabi-gcc -O2; {len(rows):,} steps of {NETWORKS} random "
        f"networks on {len(BOARDS)} cores. The model is a sum of weights; of the networks held out "
        f"({len(told)} steps) its "
        f"median error is {held['median']:.1%}, the 95th percentile {held['p95']:.1%}. Written by "
        "`benchmarks/mcu_instructions.py`.",
        "",
        "| core | kernel | steps | instructions | largest error held out |",
        "|---|---|---|---|---|",
    ]
    weights = found["weights"]
    assert isinstance(weights, dict)
    for core, kernels in weights.items():
        for kernel, each in kernels.items():
            count = sum(1 for row in rows if (row.core, row.kernel) == (core, kernel))
            errors = [abs(error) for row, error in told if (row.core, row.kernel) == (core, kernel)]
            figures = ", ".join(f"{weight:,.1f} per {name}" for name, weight in each.items() if weight)
            worst = f"{max(errors):.1%}" if errors else "none held out"
            lines.append(f"| {core} | {kernel} | {count} | {figures} | {worst} |")
    return "\n".join([*lines, ""])


def main() -> None:
    rows = [row for core in BOARDS for row in measured(CORES[core])]
    found, told = model(rows)
    written = {
        ROOT / "mcu" / MODEL_FILE: json.dumps(found, indent=1, sort_keys=True) + "\n",
        ROOT / "benchmarks" / "results" / "mcu_instructions.md": page(rows, found, told),
    }
    if "--check" in sys.argv[1:]:
        stale = [path.name for path, text in written.items() if path.read_text() != text]
        raise SystemExit(f"not as measured: {', '.join(stale)}" if stale else 0)
    for path, text in written.items():
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
