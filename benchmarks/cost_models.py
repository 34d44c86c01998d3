"""The published error of the cost models: cost_models/README.md and its plots, from the committed sets.

Every figure follows from cost_models/<family>/measured.csv, but for the counts of the noise row and of the
anchor table, which Yosys measures once: they are kept in benchmarks/results/cost_models.json, and measured
again where a circuit, the tool or the script has changed.

    python benchmarks/cost_models.py [--jobs 2] [--no-synthesis] [--families F ...]
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
from PIL import Image
from sklearn.ensemble import GradientBoostingRegressor

from qhw import rtl
from qhw.cost.calibration import catalogue, measured, model_file
from qhw.cost.calibration.accuracy import UnitErrors
from qhw.cost.calibration.fit import Spread, predicted_lut
from qhw.cost.calibration.measured import Row
from qhw.cost.calibration.model_file import FittedFamily
from qhw.cost.oracle.netlist import Counts
from qhw.cost.oracle.synth import FAMILIES, MAPPER, Circuit, SynthesisResult, Yosys, measure
from qhw.cost.pricing import energy
from qhw.cost.pricing.calibrated import CostModel
from qhw.cost.pricing.hardware import Hardware
from qhw.cost.pricing.published import ebops, finn_element, finn_matrix_unit
from qhw.errors import QhwError
from qhw.formats import Binary, Format, Integer
from qhw.rtl import closed_forms

FOLDER = Path(__file__).parents[1] / "cost_models"
SYNTHESES = Path(__file__).parent / "results" / "cost_models.json"
README, PLOTS = FOLDER / "README.md", FOLDER / "plots"

Values = Mapping[str, int]
Estimator = Callable[[Values], float]


@dataclass(frozen=True)
class Target:
    """Allowed errors on designs that were not fitted: median and 95th percentile, in % or in LUT."""

    median: float
    p95: float
    percent: bool = True

    def __str__(self) -> str:
        return f"{self.median:g} / {self.p95:g}{' %' if self.percent else ' LUT'}"

    def is_met(self, errors: UnitErrors) -> bool:
        """Also where nothing was held out."""
        spread = errors.lut_percent if self.percent else errors.lut
        return not spread.count or (spread.median <= self.median and spread.p95 <= self.p95)


_INTEGER, _SHIFTING, _SMALL = Target(2, 8), Target(3, 10), Target(1, 3, percent=False)

TARGETS = {
    **dict.fromkeys(("integer_mac", "integer_dot", "packed_mac", "xnor_popcount", "threshold"), _INTEGER),
    **dict.fromkeys(("minifloat_mac", "minifloat_dot", "mixed_mac", "fixed_to_minifloat"), _SHIFTING),
    **dict.fromkeys(("khot_mac", "khot_minifloat_mac", "khot_constant_dot"), _SHIFTING),
    **dict.fromkeys(("requantize", "adder_tree"), _SMALL),
}
"""Set before anything was measured; memories, windows and pools have one for their memories alone."""

FF_SHARE_EXACT = 0.95


@dataclass(frozen=True)
class Family:
    """A family's measured set, and what is fitted to it."""

    name: str
    rows: tuple[Row, ...]

    @cached_property
    def model(self) -> FittedFamily:
        return model_file.fit_family(self.name, self.rows)

    @property
    def units(self) -> list[str]:
        return list(self.model.units)

    def fitted(self, unit: str) -> list[Row]:
        """Measured designs that were."""
        return [row for row in self.measured(unit) if row.split == "fit"]

    def unseen(self, unit: str) -> list[Row]:
        """Measured designs that were not fitted."""
        return [row for row in self.measured(unit) if row.split != "fit"]

    @cached_property
    def compared(self) -> list[Compared]:
        return compared(self)

    def measured(self, unit: str) -> list[Row]:
        return [row for row in self.rows if row.unit == unit and row.result.counts]

    def predicted(self, row: Row) -> float:
        """LUT."""
        weights = self.model.units[row.unit].weights
        return predicted_lut(closed_forms(row.unit, self.name), weights, row.values)


def families(names: Sequence[str] = FAMILIES) -> list[Family]:
    """Those that have a measured set."""
    paths = {name: measured.path_of(name) for name in names}
    return [Family(name, tuple(measured.read(path))) for name, path in paths.items() if path.exists()]


# Tables


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Markdown; every column but the first is aligned to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows, [""]]
    return [f"| {' | '.join(map(str, cells))} |" if len(cells) > 1 else "" for cells in lines]


def pair(spread: Spread) -> str:
    """Median / 95th percentile."""
    return f"{spread.median:.1f} / {spread.p95:.1f}" if spread.count else ""


def share(part: float) -> str:
    """A share as a percentage, never rounded up to 100 %."""
    return "" if math.isnan(part) else f"{math.floor(1000 * part) / 10:g} %"


def sets_table(found: Sequence[Family]) -> list[str]:
    heads = (
        "family",
        "designs",
        "fitted",
        "held out",
        "held-out formats",
        "out of time or memory",
        "measured with",
    )
    return table(heads, (_set_of(family) for family in found))


def _set_of(family: Family) -> list[object]:
    split = [row.split for row in family.rows]
    counts = [split.count(name) for name in ("fit", "held-out", "held-out format")]
    failed = sum(bool(row.result.failure) for row in family.rows)
    return [family.name, len(split), *counts, failed, ", ".join(family.model.tools)]


def lut_table(family: Family) -> list[str]:
    heads = (
        *("unit", "fitted", "held out", "%", "LUT", "held-out formats", "%", "LUT"),
        *("target", "met"),
    )
    return table(heads, (_lut_of(family, unit) for unit in family.units))


def _lut_of(family: Family, unit: str) -> list[object]:
    fitted, target = family.model.units[unit], TARGETS.get(unit)
    both = (fitted.held_out, fitted.held_out_formats)
    cells = [cell for e in both for cell in (e.designs or "", pair(e.lut_percent), pair(e.lut))]
    met = _yes(_is_met(family, unit)) if target else ""
    return [f"`{unit}`", fitted.fitted, *cells, target or "", met]


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"


def summary_table(found: Sequence[Family]) -> list[str]:
    heads = (
        *("family", "designs never fitted", "LUT targets met", "missed by"),
        *("FF exact", "DSP exact", "BRAM and URAM exact"),
    )
    return table(heads, (_summary_of(family) for family in found))


def _summary_of(family: Family) -> list[object]:
    aimed = [unit for unit in family.units if unit in TARGETS]
    missed = [f"`{unit}`" for unit in aimed if not _is_met(family, unit)]
    each = [(len(family.unseen(unit)), _errors_of(family, unit)) for unit in family.units]
    total = sum(count for count, _ in each)

    def overall(part: Callable[[UnitErrors], float]) -> str:
        return share(sum(count * part(errors) for count, errors in each if count) / max(total, 1))

    shares = [overall(part) for part in (_FF_EXACT, _DSP_EXACT, _MEMORY_EXACT)]
    return [
        family.name,
        total,
        f"{len(aimed) - len(missed)} of {len(aimed)}",
        ", ".join(missed) or "none",
        *shares,
    ]


_FF_EXACT, _DSP_EXACT, _MEMORY_EXACT = map(attrgetter, ("ff_exact", "dsp_exact", "memory_exact"))


def _errors_of(family: Family, unit: str) -> UnitErrors:
    """On every design that was not fitted."""
    weights = family.model.units[unit].weights
    return UnitErrors.of(closed_forms(unit, family.name), weights, family.unseen(unit), family.name)


def _is_met(family: Family, unit: str) -> bool:
    fitted = family.model.units[unit]
    return all(TARGETS[unit].is_met(errors) for errors in (fitted.held_out, fitted.held_out_formats))


def exact_table(family: Family) -> list[str]:
    heads = (
        *("unit", "designs", "FF exact", "FF worst", "beyond max(2, 5 %)", "DSP exact"),
        *("BRAM and URAM exact", "met"),
    )
    return table(heads, (_exact_of(family, unit) for unit in family.units))


def _exact_of(family: Family, unit: str) -> list[object]:
    rows, model = family.unseen(unit), closed_forms(unit, family.name)
    errors = _errors_of(family, unit)
    worst = max((abs(model.flip_flops(row.values) - row.counts.ff) for row in rows), default=0)
    ff_met = errors.ff_exact >= FF_SHARE_EXACT and not errors.ff_beyond
    met = not rows or (ff_met and errors.dsp_exact == errors.memory_exact == 1)
    shares = [share(part) for part in (errors.ff_exact, errors.dsp_exact, errors.memory_exact)]
    return [
        f"`{unit}`",
        len(rows),
        shares[0],
        worst,
        errors.ff_beyond,
        *shares[1:],
        _yes(met),
    ]


# What others would say on the same designs


def _products(values: Values) -> int:
    return values.get("L", 1)


def _a_bits(values: Values) -> int:
    """Bits of the stored number: a minifloat's sign, exponent and mantissa."""
    return values["WA"] if "WA" in values else 1 + values["EA"] + values["MA"]


def _b_bits(values: Values) -> int:
    return values["WB"] if "WB" in values else 1 + values["EB"] + values["MB"]


def _ebops(values: Values) -> float:
    return float(ebops(_a_bits(values), _b_bits(values), _products(values)))


def _finn(values: Values) -> float:
    return float(finn_element(values["WA"], values["WB"], _products(values), values["A"]))


def _finn_xnor(values: Values) -> float:
    return float(finn_element(1, 1, values["L"], values["A"]))


def _finn_threshold(values: Values) -> float:
    """One comparator for each threshold, of as many LUT as the number has bits."""
    return 1.1 * values["T"] * values["A"]


FINN: Mapping[str, Estimator] = {
    "integer_mac": _finn,
    "integer_dot": _finn,
    "xnor_popcount": _finn_xnor,
    "threshold": _finn_threshold,
}
"""FINN-R's processing element, without the 300 LUT of a whole matrix unit's control."""

EBOPS: Mapping[str, Estimator] = {
    **dict.fromkeys(("integer_mac", "integer_dot", "minifloat_mac", "minifloat_dot", "mixed_mac"), _ebops),
    **dict.fromkeys(("khot_mac", "khot_minifloat_mac"), _ebops),
    "xnor_popcount": lambda values: float(values["L"]),
}
"""Bits times bits; a minifloat's bits are all of its bits, as qonnx prices an FP8 number like an INT8 one."""


TREES, TREE_DEPTH, LEARNING_RATE, TREE_ROWS = 300, 3, 0.1, 0.6


def learned(rows: Sequence[Row]) -> Estimator:
    """Gradient boosting on the raw parameters, fitted to the logarithm of the LUT counts."""
    regressor = GradientBoostingRegressor(
        n_estimators=TREES,
        learning_rate=LEARNING_RATE,
        max_depth=TREE_DEPTH,
        subsample=TREE_ROWS,
        random_state=0,
    )
    regressor.fit([list(row.values.values()) for row in rows], [math.log1p(row.counts.lut) for row in rows])
    return lambda values: float(np.expm1(regressor.predict([list(values.values())])[0]))


def estimators(family: Family, unit: str) -> dict[str, Estimator]:
    """Those that price a unit at all, ours first."""
    weights, model = family.model.units[unit].weights, closed_forms(unit, family.name)
    known = {"FINN": FINN.get(unit), "EBOPs": EBOPS.get(unit), "learned": learned(family.fitted(unit))}
    ours: dict[str, Estimator] = {"qhw": lambda values: predicted_lut(model, weights, values)}
    return ours | {name: estimator for name, estimator in known.items() if estimator}


@dataclass(frozen=True)
class Compared:
    """Relative errors, in %, of each estimator on one unit's designs that nothing was fitted to."""

    unit: str
    percent: Mapping[str, list[float]]


def compared(family: Family) -> list[Compared]:
    """Designs that multiply in DSP slices are left out: the formulas price LUTs that multiply."""
    found = []
    for unit in family.units:
        rows = [row for row in family.unseen(unit) if not row.values.get("MULTIPLIER")]
        if rows:
            found.append(Compared(unit, {n: _percent(e, rows) for n, e in estimators(family, unit).items()}))
    return found


def _percent(estimator: Estimator, rows: Sequence[Row]) -> list[float]:
    return [100 * (estimator(row.values) - row.counts.lut) / max(row.counts.lut, 1) for row in rows]


ESTIMATORS = ("qhw", "FINN", "EBOPs", "learned")


def compared_table(found: Sequence[Compared]) -> list[str]:
    def cells(one: Compared) -> list[object]:
        told = [pair(Spread.of(one.percent[name])) if name in one.percent else "" for name in ESTIMATORS]
        return [f"`{one.unit}`", len(one.percent["qhw"]), *told]

    return table(("unit", "designs", *ESTIMATORS), map(cells, found))


# What Yosys measures besides: the same circuit under other names, and the published one


SCRAMBLES = (1, 2, 3, 4, 5)
NOISE_FAMILY = ANCHOR_FAMILY = "ultrascale-plus"
NOISE_EACH = 2
"""Designs of each unit."""


def noise_designs() -> list[Circuit]:
    """The first designs in the catalogue's order that are fitted and multiply in LUTs."""
    chosen: list[Circuit] = []
    for unit in TARGETS:
        points = catalogue.points(NOISE_FAMILY, [unit])
        in_luts = [p for p in points if p.split == "fit" and not dict(p.parameters).get("MULTIPLIER")]
        chosen += [point.circuit for point in in_luts[:NOISE_EACH]]
    return chosen


PUBLISHED_SIZES = (2, 4, 8, 16, 32, 64)
"""PE = SIMD."""

ACCUMULATOR_BITS = 16
"""Accumulator width of the published units: assumed, worth 1 % of our counts at 16 lanes, less beyond."""

WIDE_SUM_ELEMENT = """
module wide_sum_element (
    input clk, enable, first,
    input [{lanes}*4-1:0] a, b,
    output reg [{bits}-1:0] sum
);
    reg [{lanes}*4-1:0] a_1, b_1;
    reg signed [{bits}-1:0] total, total_2;
    reg enable_1, first_1, first_2;
    integer i;
    always @* begin
        total = 0;
        for (i = 0; i < {lanes}; i = i + 1) total = total + $signed(a_1[4*i+:4]) * $signed(b_1[4*i+:4]);
    end
    always @(posedge clk) begin
        {{a_1, b_1, total_2}} <= {{a, b, total}};
        {{enable_1, first_1, first_2}} <= {{enable, first, first_1}};
        if (enable_1) sum <= (first_2 ? {bits}'d0 : sum) + total_2;
    end
endmodule
"""
"""Products are summed up in the accumulator's width, with no register between."""


def element(lanes: int) -> Circuit:
    """An element of a 4x4-bit matrix-vector unit, as this project builds it."""
    unit = rtl.unit_named("integer_dot")
    values = {"WA": 4, "WB": 4, "SA": 1, "SB": 1, "L": lanes, "A": ACCUMULATOR_BITS, "MULTIPLIER": 0}
    return Circuit(unit.top, tuple(unit.files), tuple(values.items()))


def wide_sum_element(lanes: int) -> Circuit:
    text = WIDE_SUM_ELEMENT.format(lanes=lanes, bits=ACCUMULATOR_BITS)
    return Circuit("wide_sum_element", (), (("L", lanes),), text=text)


def syntheses() -> dict[str, tuple[Yosys, Circuit]]:
    """What is measured besides the sets, by its name."""
    plain = Yosys(NOISE_FAMILY)
    wanted = {_label(design): (plain, design) for design in noise_designs()}
    for seed in SCRAMBLES:
        wanted |= {
            _label(design, seed): (Yosys(NOISE_FAMILY, scramble=seed), design) for design in noise_designs()
        }
    anchors = [make(lanes) for make in (element, wide_sum_element) for lanes in PUBLISHED_SIZES]
    return wanted | {_label(design): (Yosys(ANCHOR_FAMILY), design) for design in anchors}


def _label(design: Circuit, scramble: int | None = None) -> str:
    return f"{design}" if scramble is None else f"{design}, names {scramble}"


Measured = dict[str, SynthesisResult]


def kept_syntheses() -> Measured:
    """Those of the last run."""
    if not SYNTHESES.exists():
        return {}
    return {
        label: SynthesisResult.from_json(data) for label, data in json.loads(SYNTHESES.read_text()).items()
    }


def synthesise(jobs: int) -> Measured:
    """Measure what is missing or has changed, and keep it."""
    kept, wanted = kept_syntheses(), syntheses()
    found = {
        label: kept[label]
        for label, (o, d) in wanted.items()
        if label in kept and kept[label].key == o.key(d)
    }
    for oracle in {oracle for oracle, _ in wanted.values()}:
        todo = [label for label, (o, _) in wanted.items() if o == oracle and label not in found]
        for index, result in measure(oracle, [wanted[label][1] for label in todo], jobs=jobs):
            if isinstance(result, QhwError):
                raise result
            found[todo[index]] = result
            print(f"measured {todo[index]}")
    ordered = {label: found[label].to_json() for label in wanted}
    SYNTHESES.parent.mkdir(exist_ok=True)
    SYNTHESES.write_text(json.dumps(ordered, indent=1) + "\n")
    return found


def counts_of(results: Measured, label: str) -> Counts:
    counts = results[label].counts
    assert counts is not None, f"{label} was not measured to its end"
    return counts


def noise_section(results: Measured) -> list[str]:
    luts = {design: _under_names(results, design, "lut") for design in noise_designs()}
    raw = [_under_names(results, design, "lut_raw") for design in luts]
    percent = np.array([_deviations(counts) for counts in luts.values()])
    heads = ("design", "LUT", "renamed", "largest deviation")
    return [
        "## Noise: the same circuit under other names",
        "",
        f"{len(luts)} designs on {NOISE_FAMILY}, each synthesised again {len(SCRAMBLES)} times with every "
        "wire and cell renamed at random: what a count owes to names no model can avoid. LUT moved in "
        f"{np.count_nonzero(percent.max(axis=1))} designs; deviation from the count under its own names: "
        f"**median {np.median(percent):.1f} %, 95th percentile {np.percentile(percent, 95):.1f} %, "
        f"largest {percent.max():.1f} %**. The raw count, where the two functions of a carry position "
        f"count singly, moves by up to {np.max([_deviations(counts) for counts in raw]):.0f} %.",
        "",
        *table(heads, ([f"`{design}`", *_noise_of(counts)] for design, counts in luts.items())),
    ]


def _under_names(results: Measured, design: Circuit, field: str) -> list[int]:
    """Under its own names first."""
    labels = [_label(design), *(_label(design, seed) for seed in SCRAMBLES)]
    return [getattr(counts_of(results, label), field) for label in labels]


def _deviations(counts: Sequence[int]) -> list[float]:
    """In %, from the first."""
    return [abs(100 * (other / counts[0] - 1)) for other in counts[1:]]


def _noise_of(counts: Sequence[int]) -> list[object]:
    return [counts[0], f"{min(counts[1:])}-{max(counts[1:])}", f"{max(_deviations(counts)):.1f} %"]


# Published counts


@dataclass(frozen=True)
class Anchor:
    """A published matrix-vector unit of Vivado 2020.1 on an xczu3eg, PE = SIMD = ``size``.

    Args:
        rtl, hls: LUT of the RTL and of the HLS one, where there is a figure.
    """

    kind: str
    size: int
    rtl: int
    hls: int | None = None

    @property
    def operands(self) -> tuple[Format, Format]:
        """Activations and weights."""
        formats: dict[str, tuple[Format, Format]] = {
            "4 x 4 bit": (Integer(4), Integer(4)),
            "binary weights": (Integer(4), Binary()),
            "XNOR": (Binary(), Binary()),
        }
        return formats[self.kind]

    @property
    def bits(self) -> tuple[int, int]:
        a, b = self.operands
        return (1 if isinstance(a, Binary) else a.width), (1 if isinstance(b, Binary) else b.width)


_LARGE = PUBLISHED_SIZES[2:]

ANCHORS = (
    *(Anchor("4 x 4 bit", 2, 181), Anchor("4 x 4 bit", 4, 502)),
    *(Anchor("4 x 4 bit", 8, 1851, 2023), Anchor("4 x 4 bit", 16, 7439, 7445)),
    *(Anchor("4 x 4 bit", 32, 29198, 28032), Anchor("4 x 4 bit", 64, 113166, 108772)),
    *(Anchor("binary weights", n, lut) for n, lut in zip(_LARGE, (839, 2438, 10698, 43876), strict=True)),
    *(Anchor("XNOR", n, lut) for n, lut in zip(_LARGE, (265, 761, 2569, 11762), strict=True)),
)
ANCHOR_TARGET = 15
"""Percent, of integer dot products."""


def anchor_section(family: Family, results: Measured) -> list[str]:
    heads = (
        *("unit", "PE = SIMD", "Vivado, RTL", "Vivado, HLS", "qhw", "qhw, synthesised"),
        *("wide sums, synthesised", "FINN", "EBOPs", f"qhw within {ANCHOR_TARGET} %"),
    )
    model = CostModel(family.name, {name: unit.weights for name, unit in family.model.units.items()})
    rows = [_anchor_row(Hardware(model, "lut"), results, anchor) for anchor in ANCHORS]
    told = [row[-1] for row in rows if row[-1]]
    return [
        ANCHOR_TEXT,
        *table(heads, rows),
        f"Within {ANCHOR_TARGET} %: {told.count(_yes(True))} of {len(told)} integer dot products.",
        "",
    ]


def _anchor_row(hardware: Hardware, results: Measured, anchor: Anchor) -> list[object]:
    size = anchor.size
    own = float(hardware.dots(*anchor.operands, size, size, ACCUMULATOR_BITS).lut)
    is_integer = anchor.kind == "4 x 4 bit"
    synthesised = [
        size * counts_of(results, _label(make(size))).lut if is_integer else None
        for make in (element, wide_sum_element)
    ]
    finn = float(finn_matrix_unit(*anchor.bits, size, size, ACCUMULATOR_BITS))
    others = [own, *synthesised, finn, float(ebops(*anchor.bits, size * size))]
    met = abs(own / anchor.rtl - 1) * 100 <= ANCHOR_TARGET
    told = _yes(met) if is_integer else ""
    against = [_against(anchor.rtl, lut) for lut in others]
    return [anchor.kind, size, anchor.rtl, anchor.hls or "", *against, told]


def _against(published: int, lut: float | None) -> str:
    return "" if lut is None else f"{lut:.0f} ({100 * (lut / published - 1):+.1f} %)"


ANCHOR_TEXT = f"""\
## Anchors: published counts of a vendor's tool

A matrix-vector unit on an xczu3eg, out of context, Vivado 2020.1 (Alam et al., arXiv 2201.11409, and
Doc/results.ipynb of github.com/asadalam/FINN_MatrixVector_RTL); that the sizes are PE = SIMD is our
reading of it. In brackets: against the published RTL. Target: `qhw` within {ANCHOR_TARGET} % for integer
dot products.

- `qhw` is what the model says of PE dot products of SIMD signed numbers with accumulators of
  {ACCUMULATOR_BITS} bits (assumed), in LUTs, without input buffer, control and weights.
- *synthesised* is PE times one such element through Yosys: what the closed form stands for.
- *wide sums, synthesised* is PE times another element through Yosys, of our own writing, whose products
  are summed in the accumulator's width with no register between, in the manner of the published unit. It
  tells the error of the oracle from a difference of circuits.
- FINN is its formula of a whole unit with the same accumulator; EBOPs count as LUT.
"""


# The document


def text(found: Sequence[Family], results: Measured) -> str:
    """cost_models/README.md."""
    lines = [INTRODUCTION, *sets_table(found), *summary_table(found), COUNTS]
    for family in found:
        lines += family_section(family)
    lines += noise_section(results)
    lines += [line for f in found if f.name == ANCHOR_FAMILY for line in anchor_section(f, results)]
    lines += [LIMITS, *ranges_table(found)]
    return "\n".join(lines).rstrip() + "\n"


def family_section(family: Family) -> list[str]:
    return [
        f"## {family.name}",
        "",
        "LUT: median / 95th percentile of the absolute error on designs that were never fitted.",
        "",
        *lut_table(family),
        f"![Predicted against measured LUT on {family.name}](plots/{family.name}.png)",
        "",
        "Flip-flops, DSP slices and memories, on the same designs; their closed forms have no fitted weight.",
        "",
        *exact_table(family),
        "Other estimators on the same designs, median / 95th percentile of |error| in %; empty where "
        "there is no formula for the unit.",
        "",
        *compared_table(family.compared),
        f"![Errors of each estimator on {family.name}](plots/{family.name}-estimators.png)",
        "",
        *clock_section(family),
    ]


def clock_section(family: Family) -> list[str]:
    """Where a tool placed and routed the designs."""
    clocks = {
        unit: [row.result.fmax_mhz for row in family.measured(unit) if row.result.fmax_mhz]
        for unit in family.units
    }
    rows = [
        [f"`{unit}`", len(mhz), *(f"{f(mhz):.0f}" for f in (min, np.median, max))]
        for unit, mhz in clocks.items()
        if mhz
    ]
    if not rows:
        return []
    lead = "Clock after place and route (nextpnr, one design alone on a device), MHz; measured, not modelled."
    return [lead, "", *table(("unit", "designs", "least", "median", "most"), rows)]


def ranges_table(found: Sequence[Family]) -> list[str]:
    """The parameters' ranges, over every design that was to be measured."""
    units = dict.fromkeys(unit for family in found for unit in family.units)

    def told(unit: str) -> str:
        rows = [row.values for family in found for row in family.rows if row.unit == unit]
        return ", ".join(
            f"{name} {_range([row[name] for row in rows])}" for name in rows[0] if name not in _NO_RANGE
        )

    return table(("unit", "parameters"), ([f"`{unit}`", told(unit)] for unit in units))


_NO_RANGE = ("MULTIPLIER", "SEED")


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low}-{high}"


_HELD_OUT_FORMATS = " or ".join(f"E{e}M{m}" for e, m in sorted(catalogue.HELD_OUT_FORMATS))

INTRODUCTION = f"""\
# The cost models and their errors

What a unit takes of an FPGA, by closed forms that a person can read (`qhw/rtl/<unit>.py`), fitted to
circuits of the same unit that were synthesised without a vendor's tool. `benchmarks/cost_models.py`
writes this page from the measured sets; no measured figure in it was typed.

- `rtl/<unit>.v` holds a circuit, and `qhw/rtl/<unit>.py` what it computes, its closed forms, and the space
  that its designs are drawn from. Each was simulated with Verilator against `qhw.formats` without a
  difference.
- `<family>/measured.csv` holds one row for each synthesised design, with tool, version, mapper and a
  checksum. `qhw calibrate --family F` measures what is missing and goes on where it was interrupted;
  without the file it starts anew.
- `<family>/model.json` holds the fitted weights: LUT per counted bit of structure, none negative, of the
  least sum of squared relative errors. The same rows give the same bytes.
- The designs are a low-discrepancy sample of each unit's parameters. One in {catalogue.HELD_OUT_ONE_IN}
  is held out by a hash of the design, and so is every design with a number format {_HELD_OUT_FORMATS} in
  either operand. Neither is ever fitted. Features were chosen with the fitted rows alone, and frozen
  before the errors of the others were looked at; a handful of held-out requantisations had been seen while
  that circuit itself was still being changed.
"""

COUNTS = f"""\
## What is counted

- `lut`, the count of all tables here, is the number of LUT sites where the two functions behind one
  position of a carry chain share a LUT6_2 if they have at most five inputs together (`carry`). `lut_raw`
  counts every function on its own. `lut_legal` also pairs other functions of up to five inputs that share
  one, by greedy matching: a bound on what a packer finds. LUTs that are memory or shift registers are in
  all three.
- On ecp5 nothing shares a site: a LUT4 counts 1 and a carry cell CCU2C 2, and the three are equal.
- `ff` counts flip-flops, the unit's input registers among them; `bram18` block RAMs of 18 Kb (RAMB36: 2;
  ecp5: DP16KD); `depth` LUTs and whole carry chains between two registers.
- The mapper is `{MAPPER}` in every row, chosen before the first measurement: abc covers logic for least
  depth and then recovers area, as a vendor's tool does where timing is met. abc9 with delays takes 5-30 %
  more on converters, requantisers and minifloat MACs.
- Multipliers become rows of paired partial products on carry chains (`mapping/mul_rows.v`, proven equal
  to the product): Yosys's own mapping takes about twice as many LUTs as a vendor's. DSP slices are
  instances, a choice of the unit.

The other estimators: FINN is the processing element of FINN-R's formula (arXiv 1809.04570), without the
300 LUT of a unit's control; it was fitted to Vivado HLS, not to this oracle. EBOPs (arXiv 2405.00645) are
bits times bits, taken as LUT, a minifloat's bits being all of its bits, as qonnx prices FP8 like INT8;
they leave sums out by definition. The learned one is scikit-learn's gradient boosting on the raw
parameters ({TREES} trees of depth {TREE_DEPTH}, rate {LEARNING_RATE}, {100 * TREE_ROWS:g} % of the rows each,
seed 0, the logarithm of the LUT count), fitted to the same rows as ours.
"""

LIMITS = f"""\
## Known limits

- **Yosys-calibrated, not Vivado.** The errors above are against Yosys's counts. How far those are from a
  vendor's shows in the anchor table alone, on one unit of one family. Where Vivado is on the PATH,
  `qhw calibrate --tool vivado` measures the same designs with it.
- A model speaks for the circuits in `rtl/`, pipelined as they are. Another structure of the same
  arithmetic takes another number of LUTs.
- Units are measured alone: nothing is shared or optimised across their borders, and wiring is free.
- There is no clock for the Xilinx families: Yosys does not place and route them. Logic depth is in every
  row.
- Energy is {energy.LABEL}:
  M. Horowitz, "Computing's energy problem", ISSCC 2014, figure 1.1.9, with
  integer operations as QKeras's qtools fitted them. It compares designs, and is not what an FPGA draws.
- In the estimate of a network, matrices of constants count as trees over shifted copies of the inputs.
  `constant_matrix` above is da4ml's solution, which shares sums among outputs.
- Beyond these ranges of parameters nothing was measured, and an estimate is an extrapolation:
"""


# Plots


_SPLITS = {"fit": "fitted", "held-out": "held out", "held-out format": "held-out format"}
_COLOURS = {"fitted": "#b8b8b8", "held out": "#d1480f", "held-out format": "#1f6fb4"}
_ESTIMATOR_COLOURS = {"qhw": "#d1480f", "FINN": "#1f6fb4", "EBOPs": "#2a9d5c", "learned": "#8a63b8"}
COLOURS = 64

_LEAST_LUT = 1.0
"""Drawn for designs that take less: a logarithm has no zero."""


def predicted_plot(family: Family) -> alt.ConcatChart:
    """Predicted against measured LUT, one panel for each unit."""
    points = [
        {
            "unit": row.unit,
            "measured": max(row.counts.lut, _LEAST_LUT),
            "predicted": max(family.predicted(row), _LEAST_LUT),
            "design": _SPLITS[row.split],
        }
        for split in _SPLITS
        for unit in family.units
        for row in family.measured(unit)
        if row.split == split
    ]
    panels = (_panel([point for point in points if point["unit"] == unit], unit) for unit in family.units)
    # With "flush", frames line up whatever the width of their labels.
    return alt.concat(*panels, columns=_PANELS_A_ROW, bounds="flush", spacing=_BETWEEN_PANELS).properties(
        title=alt.TitleParams(
            f"LUT on {family.name}: predicted (upright) against measured (across)",
            anchor="start",
            fontSize=17,
        )
    )


_PANELS_A_ROW, _BETWEEN_PANELS = 5, 52


def _panel(points: list[dict[str, Any]], unit: str) -> alt.LayerChart:
    values = [point[axis] for point in points for axis in ("measured", "predicted")]
    domain = [min(values) / 1.3, max(values) * 1.3]
    scale = alt.Scale(type="log", domain=domain, nice=False)
    axis = alt.Axis(values=_ticks(domain), format="~s", title=None, gridColor="#ececec")
    line = (
        alt.Chart(alt.Data(values=[{"x": end, "y": end} for end in domain]))
        .mark_line(color="#909090", strokeWidth=1)
        .encode(alt.X("x:Q", scale=scale), alt.Y("y:Q", scale=scale))
    )
    dots = (
        alt.Chart(alt.Data(values=points))
        .mark_circle(size=22, opacity=0.85)
        .encode(
            alt.X("measured:Q", scale=scale, axis=axis),
            alt.Y("predicted:Q", scale=scale, axis=axis),
            alt.Color(
                "design:N",
                scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
                legend=alt.Legend(orient="top", title=None),
            ),
        )
    )
    return (line + dots).properties(width=150, height=150, title=alt.TitleParams(unit, fontSize=13))


def _ticks(domain: Sequence[float]) -> list[float]:
    """Powers of ten; with 2 and 5 between where there are less than two decades."""
    low, high = (math.log10(end) for end in domain)
    factors = (1,) if high - low >= 2 else (1, 2, 5)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    return [tick for tick in ticks if domain[0] <= tick <= domain[1]]


_LEAST_PERCENT = 0.1


def estimator_plot(family: Family) -> alt.LayerChart:
    """|error| of each estimator on each unit: a dot at the median, a line to the 95th percentile."""
    rows: list[dict[str, Any]] = [
        {
            "unit": one.unit,
            "estimator": name,
            "median": max(spread.median, _LEAST_PERCENT),
            "p95": max(spread.p95, _LEAST_PERCENT),
        }
        for one in family.compared
        for name, errors in one.percent.items()
        for spread in [Spread.of(errors)]
    ]
    highest = max((row["p95"] for row in rows), default=1.0)
    scale = alt.Scale(type="log", domain=[_LEAST_PERCENT / 1.2, highest * 1.3], nice=False)
    ticks = [tick for tick in (0.1, 1, 10, 100, 1000, 10000) if tick <= highest * 1.3]
    axis = alt.Axis(values=ticks, format="~g", gridColor="#e4e4e4")
    title = "|error| in %: median (dot) to 95th percentile (end of the line); 0.1 also stands for less"
    base = alt.Chart(alt.Data(values=rows)).encode(
        alt.Y("unit:N", sort=[one.unit for one in family.compared], title=None, axis=alt.Axis(grid=True)),
        alt.YOffset("estimator:N", sort=list(ESTIMATORS)),
        alt.Color(
            "estimator:N",
            scale=alt.Scale(domain=list(ESTIMATORS), range=list(_ESTIMATOR_COLOURS.values())),
            legend=alt.Legend(orient="top", title=None),
        ),
    )
    lines = base.mark_rule(strokeWidth=2).encode(
        alt.X("median:Q", scale=scale, axis=axis, title=title), alt.X2("p95:Q")
    )
    dots = base.mark_circle(size=48, opacity=1).encode(alt.X("median:Q", scale=scale))
    return (lines + dots).properties(
        width=560,
        height=alt.Step(9),
        title=alt.TitleParams(
            f"LUT on {family.name}, designs that were never fitted", anchor="start", fontSize=16
        ),
    )


def save_plots(found: Sequence[Family]) -> None:
    """PNG files."""
    PLOTS.mkdir(exist_ok=True)
    for family in found:
        _save(predicted_plot(family), PLOTS / f"{family.name}.png")
        _save(estimator_plot(family), PLOTS / f"{family.name}-estimators.png")


def _save(chart: alt.ConcatChart | alt.LayerChart, path: Path) -> None:
    """With few colours, which take a tenth of the bytes."""
    shown = chart.configure_view(stroke="#cccccc").configure_axis(labelFontSize=11, titleFontSize=12)
    drawn = io.BytesIO()
    shown.configure_legend(labelFontSize=13, symbolSize=90).save(drawn, format="png", scale_factor=1.5)
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="syntheses at a time")
    parser.add_argument("--no-synthesis", action="store_true", help="take the kept ones as they are")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    options = parser.parse_args()
    results = kept_syntheses() if options.no_synthesis else synthesise(options.jobs)
    found = families(options.families)
    README.write_text(text(found, results), encoding="utf-8")
    save_plots(found)
    print(f"{README.name} and {2 * len(found)} plots of {', '.join(family.name for family in found)}")


if __name__ == "__main__":
    main()
