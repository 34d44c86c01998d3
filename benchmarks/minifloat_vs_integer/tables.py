"""The study's tables, from what was recorded."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from minifloat_vs_integer.cells import cell_key, cost_key
from minifloat_vs_integer.formats import BITS, KINDS, METHOD_FORMATS, Formats, same
from qhw.ptq.settings import names_in

Records = dict[str, dict[str, Any]]
Lines = list[str]

SEEDS = range(10)
"""Those that are looked for."""

USUAL = "power of two"


@dataclass(frozen=True)
class Judged:
    """How a network of the study is judged.

    Args:
        name, title: the network's.
        chosen_by: the figure by which a split of the bits is chosen: of samples that are held out.
        shown: that in the tables: of the test split, or what stands for it.
        samples: how many that is of.
        scales: of the priced formats, a key of ``SCALES``.
        methods: those by which formats were tried.
        main: that of figures in which several formats meet.
    """

    name: str
    title: str
    chosen_by: str
    shown: str
    samples: int
    scales: str = USUAL
    methods: tuple[str, ...] = ("none", "gpfq")
    main: str = "gpfq"


def noise(samples: int, *shares: float) -> float:
    """The half-width of a 95 % interval of the difference of two shares of so many samples each."""
    return 1.96 * math.sqrt(sum(share * (1 - share) for share in shares) / samples)


@dataclass(frozen=True)
class Row:
    """The best split of a kind's bits, with its figures on every seed."""

    kind: str
    bits: int
    formats: Formats
    held: float
    shown: tuple[float, ...]
    lut: float
    memory: float

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.shown)


class Cells:
    """What was recorded of a network."""

    def __init__(self, records: Records, judged: Judged) -> None:
        self.records, self.judged = records, judged

    def figures(self, formats: Formats, methods: str, which: str) -> list[float]:
        """A figure on every seed that has it."""
        cells = self.records.get("cells", {})
        found = [cells.get(cell_key(self.judged.name, seed, methods, formats)) for seed in SEEDS]
        return [cell[which] for cell in found if cell is not None]

    def costs(self, formats: Formats) -> dict[str, float]:
        """What formats cost; nothing where they were not priced."""
        found: dict[str, float] = self.records.get("costs", {}).get(cost_key(self.judged.name, formats), {})
        return found

    def best(self, kind: str, bits: int, methods: str, scales: str | None = None) -> Row | None:
        """The split of a kind's bits that is best by what is held out; None where nothing was measured."""
        found = []
        for formats in same(kind, bits, self.judged.scales if scales is None else scales):
            held = self.figures(formats, methods, self.judged.chosen_by)
            if held:
                costs = self.costs(formats)
                shown = tuple(self.figures(formats, methods, self.judged.shown))
                lut, memory = costs.get("lut", math.inf), costs.get("weight_bits", math.inf)
                found.append(Row(kind, bits, formats, statistics.fmean(held), shown, lut, memory))
        return max(found, key=lambda row: row.held, default=None)

    def every(self, kind: str, methods: str) -> list[Row]:
        """Each split of a kind's bits, as a row of its own."""
        found = []
        for bits in BITS:
            for formats in same(kind, bits, self.judged.scales):
                held, shown = (
                    self.figures(formats, methods, which)
                    for which in (self.judged.chosen_by, self.judged.shown)
                )
                costs = self.costs(formats)
                if held and costs:
                    lut, memory = costs["lut"], costs["weight_bits"]
                    found.append(Row(kind, bits, formats, statistics.fmean(held), tuple(shown), lut, memory))
        return found

    @cached_property
    def seeds(self) -> int:
        """Trained networks."""
        return max(
            (
                len(self.figures(f, m, self.judged.shown))
                for m in self.judged.methods
                for f in same("integer", 8, self.judged.scales)
            ),
            default=0,
        )


def percent(values: Iterable[float]) -> str:
    """The mean in percent, with the lowest and the highest of several."""
    listed = [100 * value for value in values]
    if not listed:
        return "–"
    mean = f"{statistics.fmean(listed):.1f}"
    return f"{mean} ({min(listed):.1f}–{max(listed):.1f})" if len(listed) > 1 else mean


def points(values: Sequence[float]) -> str:
    """A difference in points, with the lowest and the highest of several."""
    if not values:
        return "–"
    listed = [100 * value for value in values]
    mean = f"{statistics.fmean(listed):+.1f}"
    return f"{mean} ({min(listed):+.1f} to {max(listed):+.1f})" if len(listed) > 1 else mean


def table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> Lines:
    """A Markdown table; columns behind the first few are numbers."""
    rule = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)] + [""]


def by_bits(cells: Cells) -> Lines:
    """Accuracy by kind and bits, the same for weights and results."""
    judged, rows = cells.judged, []
    for bits in BITS:
        for kind in KINDS:
            found = {methods: cells.best(kind, bits, methods) for methods in judged.methods}
            last = next((found[m] for m in reversed(judged.methods) if found[m] is not None), None)
            if last is None:
                continue
            costs = (
                (f"{last.memory / 1000:,.0f}", f"{last.lut:,.0f}") if math.isfinite(last.lut) else ("–", "–")
            )
            figures = [
                "–"
                if row is None
                else percent(row.shown) + (f" `{row.formats.weights}`" if row.formats != last.formats else "")
                for row in found.values()
            ]
            rows.append([str(bits), kind, f"`{last.formats.weights}`", *costs, *figures])
    titles = [f"{methods}, %" for methods in judged.methods]
    return table(["bits", "kind", "best split", "weights, kbit", "LUT", *titles], rows, 3)


def splits(cells: Cells) -> Lines:
    """Every split of a minifloat's bits."""
    methods = cells.judged.main
    rows = [
        [str(row.bits), f"`{row.formats.weights}`", percent(row.shown), f"{row.lut:,.0f}"]
        for row in cells.every("minifloat", methods)
    ]
    return table(["bits", "format", f"{methods}, %", "LUT"], rows, 2)


def within(rows: Sequence[Row], cost: Callable[[Row], float], limit: float) -> Row | None:
    """Of the rows of no more cost the best by what is held out."""
    return max((row for row in rows if cost(row) <= limit), key=lambda row: row.held, default=None)


def at_equal(cells: Cells, title: str, cost: Callable[[Row], float]) -> Lines:
    """For each integer the best minifloat and the best k-hot weights of no more cost."""
    methods = cells.judged.main
    integers, *others = (cells.every(kind, methods) for kind in KINDS)
    rows = []
    for integer in integers:
        row = [f"{cost(integer):,.0f}"]
        best_integer = within(integers, cost, cost(integer))
        for found in (best_integer, *(within(other, cost, cost(integer)) for other in others)):
            row.append("–" if found is None else f"{percent(found.shown)} `{found.formats.weights}`")
        rows.append(row)
    return table([title, "integer", "minifloat", "k-hot weights"], rows)


@dataclass(frozen=True)
class Difference:
    """By how much one row is better than another.

    Args:
        values: on every seed.
        noise: what a difference on one seed may be by chance.
    """

    values: tuple[float, ...]
    noise: float

    def __str__(self) -> str:
        """In points; in bold where every seed's is beyond the noise, to one side."""
        is_seen = min(self.values) > self.noise or max(self.values) < -self.noise
        return f"**{points(self.values)}**" if is_seen else points(self.values)


def differences(cells: Cells, kind: str, methods: str, scales: str) -> dict[int, Difference]:
    """By bits, a kind's best split less the integer."""
    found = {}
    for bits in BITS:
        one, integer = (cells.best(k, bits, methods, scales) for k in (kind, "integer"))
        if one is not None and integer is not None and len(one.shown) == len(integer.shown):
            values = tuple(a - b for a, b in zip(one.shown, integer.shown, strict=True))
            found[bits] = Difference(values, noise(cells.judged.samples, one.mean, integer.mean))
    return found


def claim(studied: Sequence[Cells], kind: str) -> Lines:
    """A kind less integers of as many bits, on every network."""
    rows = []
    for cells in studied:
        judged = cells.judged
        for scales in dict.fromkeys((judged.scales, "free per channel")):
            for methods in judged.methods:
                found = differences(cells, kind, methods, scales)
                if found:
                    shown = [str(found.get(bits, "–")) for bits in BITS]
                    rows.append([judged.name, scales, methods, *shown])
    return table(["network", "scales", "methods", *(f"{bits} bits" for bits in BITS)], rows, 3)


def method_seeds(cells: Cells) -> int:
    """Seeds on which some other method than the usual ones was tried."""
    return len(cells.figures(METHOD_FORMATS[0], "gptq", cells.judged.shown))


def method_table(cells: Cells) -> Lines:
    """Every method on some formats, the best mean on the samples held out first."""
    seeds = method_seeds(cells)
    if not seeds:
        return []
    names = ["none", *names_in("methods")]
    wanted = [
        f if cells.judged.scales == USUAL else Formats(f.weights, f.activations, cells.judged.scales)
        for f in METHOD_FORMATS
    ]
    rows = []
    for name in names:
        if all(cells.figures(f, name, cells.judged.shown) for f in wanted):
            held, shown, seconds = (
                [statistics.fmean(cells.figures(f, name, which)[:seeds]) for f in wanted]
                for which in (cells.judged.chosen_by, cells.judged.shown, "seconds")
            )
            texts = [name, *(f"{100 * value:.1f}" for value in shown), f"{statistics.median(seconds):.1f}"]
            rows.append((statistics.fmean(held), texts))
    titles = [
        f"`{f.weights}`" if f.weights == f.activations else f"`{f.weights}`, `{f.activations}`"
        for f in wanted
    ]
    ordered = [row for _, row in sorted(rows, key=lambda item: -item[0])]
    return table(["methods", *titles, "s"], ordered)


# --- fronts

Point = dict[str, Any]


def best_within(found: Sequence[Point], cost: float) -> Point | None:
    """Of the points of no more cost, that best on the samples held out; of equals the cheaper."""
    affordable = [point for point in found if point["cost"] <= cost]
    return max(affordable, key=lambda point: (point["held"], -point["cost"]), default=None)


def cheapest(found: Sequence[Point], held: float) -> Point | None:
    """The cheapest point that is as good on the samples held out."""
    good = [point for point in found if point["held"] >= held]
    return min(good, key=lambda point: point["cost"], default=None)


def kept(found: Sequence[Point]) -> list[Point]:
    """The points that none beats on the samples held out, cheapest first."""
    best, result = -math.inf, []
    for point in sorted(found, key=lambda point: (point["cost"], -point["held"])):
        if point["held"] > best:
            best = point["held"]
            result.append(point)
    return result


@dataclass(frozen=True)
class Gain:
    """What one front adds to another, at each of the other's points.

    Args:
        accuracy: on the test split, at no more LUT; by the other's points, of all seeds.
        lut: how much more LUT no lower accuracy on the samples held out takes, as a part; negative: less.
    """

    accuracy: tuple[float, ...]
    lut: tuple[float, ...]


def gain(pairs: Iterable[tuple[Sequence[Point], Sequence[Point]]]) -> Gain:
    """What fronts add to others, pair by pair (one seed each)."""
    accuracy, lut = [], []
    for ours, theirs in pairs:
        for point in kept(theirs):
            better, cheaper = best_within(ours, point["cost"]), cheapest(ours, point["held"])
            if better is not None:
                accuracy.append(better["test"] - point["test"])
            if cheaper is not None:
                lut.append(cheaper["cost"] / point["cost"] - 1)
    return Gain(tuple(accuracy), tuple(lut))


def spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Median and range."""
    if not values:
        return "no pair"
    shown = statistics.median(values), min(values), max(values)
    return f"{form(shown[0])} ({form(shown[1])} to {form(shown[2])}), {len(values)} points"


def told(found: Gain) -> tuple[str, str]:
    """Both gains in words."""
    return (
        spread(found.accuracy, lambda v: f"{100 * v:+.1f}"),
        spread(found.lut, lambda v: f"{100 * v:+.0f} %"),
    )


def formats_of(point: Point) -> str:
    """A point's formats: of weights, then of results, in the network's order."""
    found: dict[str, list[str]] = {"weights": [], "activations": []}
    for name, text in point["formats"].items():
        if name.rpartition(".")[2] in found:
            found[name.rpartition(".")[2]].append(text)
    parts = [
        texts[0]
        if len(set(texts)) == 1
        else " ".join(
            text.replace("fixed<", "").replace(">", "") if text.startswith("fixed") else text
            for text in texts
        )
        for texts in found.values()
    ]
    return f"`{parts[0]}` · `{parts[1]}`"
