"""Three complete small layers synthesised as one, against the rtl template and their units added up.

python benchmarks/layer_rollup.py [--families ultrascale-plus,7series] [--jobs 2]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from qhw.cost.calibration.calibrate import cache_folder
from qhw.cost.calibration.layers import FoldedLayer, Part
from qhw.cost.calibration.reference_layers import other_foldings, reference_layers
from qhw.cost.oracle.netlist import Counts
from qhw.cost.oracle.synth import Circuit, SynthesisResult, Yosys, measure
from qhw.cost.pricing.calibrated import cost_model
from qhw.cost.pricing.costing import Costing
from qhw.flows.rtl.template import ARCHITECTURE, PeSimd
from qhw.rtl import UNITS

RESULT = Path(__file__).parent / "results" / "layer_rollup.md"
RESOURCES = ("lut", "ff", "dsp", "bram18")


def whole(layer: FoldedLayer) -> Circuit:
    """Everything in one flat netlist."""
    unit = layer.as_unit()
    return Circuit(unit.top, unit.files, text=layer.verilog(), memories=True, vendor_cells=True)


def alone(part: Part) -> Circuit:
    unit = UNITS[part.unit]
    values = tuple(part.values.items())
    return Circuit(unit.top, unit.files, values, memories=unit.memories, vendor_cells=_in_dsp(part))


def _in_dsp(part: Part) -> bool:
    return part.values.get("MULTIPLIER", 0) > 0


def synthesised(family: str, designs: list[Circuit], jobs: int) -> list[Counts]:
    """Synthesised counts of each design; stops at the first that the tool refuses."""
    found: dict[int, Counts] = {}
    for index, result in measure(Yosys(family), designs, jobs=jobs, cache=cache_folder() / "synthesis"):
        if not isinstance(result, SynthesisResult) or result.counts is None:
            raise SystemExit(f"{designs[index]}: {result}")
        found[index] = result.counts
    return [found[index] for index in range(len(designs))]


def predicted(family: str, layer: FoldedLayer) -> dict[str, int]:
    """What `qhw cost --flow rtl` says of the layer and the rounding behind it."""
    costing = Costing.of(layer.graph, family, ARCHITECTURE)
    folds = PeSimd(layer.pe, layer.simd), PeSimd(layer.pe)
    costs = [costing.layers(node, [fold])[0] for node, fold in zip(layer.graph.nodes, folds, strict=True)]
    return {name: sum(getattr(cost, name) for cost in costs) for name in RESOURCES}


def difference(given: float, counted: float) -> str:
    if not counted:
        return "equal" if given == counted else f"{given:+.0f}"
    return f"{given / counted - 1:+.1%}"


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def totals(family: str, layer: FoldedLayer, parts: Mapping[str, Part], counts: list[Counts]) -> Iterator[str]:
    """Predicted, the units' own counts added up, and the layer synthesised as one."""
    one, *each = counts
    foreseen, rows = predicted(family, layer), []
    for name in RESOURCES:
        whole_count = getattr(one, name)
        added = sum(part.count * getattr(c, name) for part, c in zip(parts.values(), each, strict=True))
        numbers = [str(foreseen[name]), str(added), str(whole_count)]
        rows.append(
            [name.upper(), *numbers, difference(foreseen[name], whole_count), difference(added, whole_count)]
        )
    head = [
        "",
        "predicted",
        "units added up",
        "synthesised as one",
        "predicted, difference",
        "units, difference",
    ]
    yield from table(head, rows)


def by_part(family: str, parts: Mapping[str, Part], counts: list[Counts]) -> Iterator[str]:
    """Each unit by its model and as synthesised alone."""
    model, rows = cost_model(family), []
    for (what, part), count in zip(parts.items(), counts, strict=True):
        usage = model.usage(part.unit, **part.values)
        values = " ".join(f"{name}={value}" for name, value in part.values.items())
        numbers = [f"{usage.lut:.1f}", str(count.lut), f"{usage.ff:.0f}", str(count.ff)]
        rows.append([what, f"{part.count} x {part.unit} {values}", *numbers])
    yield from table(["part", "unit", "LUT, model", "LUT, alone", "FF, model", "FF, alone"], rows)


WHY = {
    "convolution": """\
Both dot products hold the same inputs: their registers (4 lanes of 4 bits) and the delays of the signal that
starts a sum (4) are there once. The template knows that, units added up do not. The one flip-flop that it
lacks is that signal's, beside the memory of the weights.
""",
    "depthwise": """\
Each dot product has channels of its own, in registers of its DSP slice: only the delays of the signal that
starts a sum (3) are there once. The LUTs predicted too many are mostly the window's addresses, whose
constants happen to be simple here: that unit's own error.
""",
    "linear": """\
The four dot products hold the same inputs (8 lanes of 6 bits) and delays (8), kept once: 3 x 56 flip-flops.
What takes the inputs' exponents apart is there once too. Rounding to a minifloat takes two edges more than
the five that the template's control reaches over: 4 flip-flops.
""",
}
"""What makes a layer differ from its units added up, and from its prediction."""

INTRODUCTION = """\
Each layer is emitted from the units (`qhw/cost/calibration/layers.py`), simulated by Verilator equal to the
exact graph on 24 images, every code (`tests/cost/calibration/test_layers.py`), and synthesised by Yosys as
one flat design.
`predicted` is what the rtl template says of the layer, its stream and the rounding behind it; `units added
up` are the same units, each synthesised alone. Weights are written at the start, so that no tool sees
constants. The layers have the template's architecture; they are not what FINN itself emits.
"""

OTHERS = """\
### The same layers folded otherwise, on {family}

Nothing was corrected after these were looked at.
"""

LEARNT = """\
What these layers taught the template: the counters and the handshake (`layer_control`), the window's
addresses and the memory that repeats a vector (`window_buffer`), what dot products with the same inputs
share, and streams as wide as a fold of a pixel. Without them it was off by up to 13 % of LUT and 25 % of
flip-flops.
"""


def others(family: str, jobs: int) -> Iterator[str]:
    layers, rows = other_foldings(family), []
    for layer, counts in zip(layers, synthesised(family, list(map(whole, layers)), jobs), strict=True):
        foreseen, row = predicted(family, layer), [layer.graph.name, f"{layer.pe}, {layer.simd}"]
        for name in RESOURCES:
            one = getattr(counts, name)
            row.append(f"{foreseen[name]} / {one}" + (f" ({foreseen[name] / one - 1:+.1%})" if one else ""))
        rows.append(row)
    yield OTHERS.format(family=family)
    head = [f"{name.upper()} predicted / synthesised" for name in RESOURCES]
    yield from table(["layer", "PE, SIMD", *head], rows)


def report(family: str, jobs: int) -> Iterator[str]:
    for name, layer in reference_layers(family).items():
        parts = layer.parts
        counts = synthesised(family, [whole(layer), *map(alone, parts.values())], jobs)
        yield f"### {name}, PE {layer.pe}, SIMD {layer.simd}, on {family}\n"
        yield from totals(family, layer, parts, counts)
        yield WHY[layer.graph.name]
        yield from by_part(family, parts, counts[1:])
    yield from others(family, jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", default="ultrascale-plus,7series")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    lines = [line for family in options.families.split(",") for line in report(family, options.jobs)]
    text = "\n".join([INTRODUCTION, *lines, LEARNT])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
