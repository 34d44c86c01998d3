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
from qhw.flows.mcu.instructions import MODEL_FILE, features, fit, predicted
from qhw.flows.mcu.kernels import SOURCES
from qhw.flows.mcu.project import KERNELS, TEST, read_description
from qhw.flows.mcu.toolchain import CORES, Core, compile_firmware, compile_objects
from qhw.formats.integer import Integer
from qhw.formats.modes import Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.resources import resource_dir

ROOT = Path(__file__).parent.parent
BOARDS = {"cortex-m7": "stm32h743", "cortex-m4": "stm32f412", "cortex-m33": "rp2350"}
NETWORKS = 24
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
    features: dict[str, float]
    instructions: int


class _Network:
    """A chain of random layers, as trained networks have them."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.wide = (12,) * 4 if seed % WIDE == 1 else ()
        self.builder = GraphBuilder(f"layers_{seed}")

    def below(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high))

    def one_of(self, *values: int) -> int:
        return int(self.random.choice(values))

    def weights(self, shape: tuple[int, ...], bits: int) -> str:
        high = 1 << (bits - 1)
        value = self.random.integers(-high, high, shape)
        return self.builder.constant("w", value, Integer(bits), 1 - bits)

    def rounded(self, x: str) -> str:
        """To 8, 4 or 2 bits, signed or not, by one of the usual roundings."""
        bits, kind = self.one_of(8, 8, 8, 4, 2, *self.wide), self.builder.type(x)
        exponent = max(kind.exponent.values) + max(kind.format.width - bits - 1, 0)
        mode = Rounding.RND_CONV if self.below(0, 2) else Rounding.RND
        return self.builder.requant("act", x, Integer(bits, bool(self.below(0, 2))), exponent, rounding=mode)

    def conv(self, x: str) -> str:
        channels, rows, _ = self.builder.type(x).shape
        kernel, stride = self.one_of(1, 3, 3, 5), self.one_of(1, 1, 2) if rows > 6 else 1
        depthwise = channels > 4 and self.below(0, 3) == 0
        filters = channels if depthwise else self.one_of(4, 8, 16, 24, 32)
        weight = self.weights(
            (filters, 1 if depthwise else channels, kernel, kernel), self.one_of(8, 8, 4, 2, *self.wide[2:])
        )
        pads = (kernel // 2,) * 4
        y = self.builder.conv(
            "conv", x, weight, strides=(stride, stride), pads=pads, groups=channels if depthwise else 1
        )
        if self.below(0, 2):
            multiplier = self.builder.constant("m", self.random.integers(32, 128, filters), Integer(8), -7)
            offset = self.builder.constant("o", self.random.integers(-99, 99, filters), Integer(8), -7)
            y = self.builder.affine("norm", y, multiplier, offset)
        return self.rounded(y)

    def residual(self, x: str) -> str:
        return self.rounded(self.builder.add("add", x, self.table(x)))

    def product(self, x: str) -> str:
        return self.rounded(self.builder.mul("mul", x, self.table(x)))

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
        if self.builder.type(x).shape[1] < 4:
            return self.rounded(x)
        if self.below(0, 2):
            return self.builder.max_pool("max", x, (2, 2), (2, 2), (0, 0, 0, 0), (1, 1))
        return self.rounded(self.builder.sum_pool("sum", x, (2, 2), (2, 2), (0, 0, 0, 0)))

    def moves(self, x: str) -> str:
        channels = self.builder.type(x).shape[0]
        first = self.builder.slice("front", x, 0, 0, max(1, channels // 2), 1)
        joined = self.builder.concat("both", [x, first], 0)
        return self.builder.pad("pad", joined, (0, 1, 1, 0, 1, 1), 0)

    def turned(self, x: str) -> str:
        y = self.builder.transpose("turn", x, (0, 2, 1))
        if self.builder.type(y).shape[1] < 8:
            return self.builder.upsample("up", y, (2, 2), False)
        return y

    def build(self) -> ExactGraph:
        side, channels = self.one_of(8, 12, 16), self.one_of(1, 3, 8)
        x = self.builder.input("image", (channels, side, side), Integer(8, False), -8)
        for _ in range(7):
            choices = (self.conv, self.conv, self.conv, self.residual, self.product, self.pool)
            more = (self.table, self.counted, self.moves, self.turned)
            choice = self.below(0, len(choices) + len(more))
            x = (*choices, *more)[choice](x)
        x = self.rounded(x)
        size = self.builder.type(x).size
        channels, rows, columns = self.builder.type(x).shape
        square = self.builder.matmul("product", x, self.weights((columns, 5), 8))
        flat = self.builder.reshape("flat", x, (size,))
        named = self.builder.matmul("classify", flat, self.weights((size, 10), 8))
        split = self.builder.reshape("split", x, (rows, channels * columns))
        return self.builder.finish([square, named, self.rounded(split)])


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
        yield Row(core.name, step.kernel, number, features(layout, step), counted)


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
        weights[core][kernel] = fit([row.features for row in fitted], [row.instructions for row in fitted])
        for row in group:
            if row.network % HELD_OUT == 0:
                said = predicted(weights[core][kernel], row.features)
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
