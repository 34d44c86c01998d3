"""README.md and its plots, from what was recorded."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from minifloat_vs_integer import efficientnet, hgq, plots, tables
from minifloat_vs_integer.cells import SAMPLES
from minifloat_vs_integer.fronts import METHODS, SEARCHES
from minifloat_vs_integer.networks import NETWORKS
from minifloat_vs_integer.tables import Cells, Judged, Lines, Records
from qhw.boards import load_board
from qhw.cost.pricing.estimate import LABEL

FOLDER = Path(__file__).parent
FINDINGS = FOLDER / "findings.md"
"""What was seen, in words: written by hand about the recorded figures."""

ONE_SHOT = FOLDER.parent / "results" / "one_shot_search.md"

MIXED = ("mixed", "mixed by TPE", "mixed integers")
"""Searches of mixed formats."""

TEST_SAMPLES = {"mlp": 3804, "depthwise": 10000, "resnet8": 10000}

INTRODUCTION = """# Minifloats against integers, on four networks

{findings}
## How it was measured

- Networks are trained in float, then quantised without training (`qhw ptq`, {samples} calibration samples,
  MSE calibration) with one format for all weights and one for all results. K-hot is of weights; results are
  then integers of as many bits. In every point the input has 8 bits, the network's own result 16, biases 16,
  constants of batch norm 8. Scales are powers of two per tensor unless a table says otherwise.
- About 2,000 samples of the training split are held out of training (`qhw search`'s rule). The split of a
  minifloat's bits into exponent and mantissa, and points of fronts, are chosen by those samples; the figures
  are top-1 on the whole test split. Splits tried have two bits of exponent or more: with one, a minifloat
  with subnormal numbers is an integer.
- With several seeds (each trains a network of its own) a cell is the mean, and in brackets the lowest and the
  highest. Two figures of a network that differ by less than the 95 % interval of the difference of two shares
  of 90 % (resnet8, depthwise: {fashion_noise:.1f} points; MLP: {tabular_noise:.1f}) are not told apart.
- LUT: the smallest design of the flow at the network's rate, multipliers in LUT: {label},
  with the published errors of its units ([cost_models](../../cost_models/README.md)). All points of a network
  have one rate, so LUT is compared at equal throughput. Costs are those of seed 0's weights.
- Weights, kbit: as designs store them (of k-hot numbers the shifts).

| network | data | trained | float, % | board, flow, rate |
|---|---|---|---:|---|
{networks}
"""


def studied(records: Records) -> list[Cells]:
    """What was recorded of each network."""
    own = [
        Judged(network.name, network.title, "held", "test", TEST_SAMPLES[network.name])
        for network in NETWORKS.values()
    ]
    lite = Judged(
        efficientnet.NAME,
        efficientnet.TITLE,
        "sqnr_distilled",
        "labelled",
        20,
        efficientnet.PER_CHANNEL,
        efficientnet.METHODS,
        efficientnet.METHODS[0],
    )
    return [cells for cells in (Cells(records, judged) for judged in (*own, lite)) if cells.seeds]


def network_rows(records: Records, found: Sequence[Cells]) -> str:
    """A row for each network."""
    rows = []
    for cells in found:
        name = cells.judged.name
        floats = [value for key, value in records.get("float", {}).items() if key.rpartition(" ")[0] == name]
        if name == efficientnet.NAME:
            data = (
                f"20 labelled images (foolbox), {efficientnet.JUDGED} distilled ones; "
                f"{efficientnet.CALIBRATED} other distilled ones to calibrate"
            )
            trained, target = "ImageNet weights of its package", efficientnet.TARGET
            shown = f"{100 * floats[0]['labelled']:.0f} of the 20 labels"
        else:
            network = NETWORKS[name]
            data = f"{network.title.partition(' on ')[2]}, {cells.judged.samples:,} test samples"
            trained = f"{network.training.float_epochs} epochs, {cells.seeds} seed{'s' * (cells.seeds > 1)}"
            target = network.target
            shown = tables.percent(value["test"] for value in floats)
        where = f"{load_board(target.board).title}, {target.flow}, {target.fps:,.0f}/s"
        rows.append(f"| {name} | {data} | {trained} | {shown} | {where} |")
    return "\n".join(rows)


def network_section(cells: Cells, records: Records) -> Lines:
    """The tables of one network."""
    judged = cells.judged
    lines = [f"## {judged.title}", ""]
    if judged.name == efficientnet.NAME:
        lines += [
            "How many of foolbox's 20 images get the class that the float network gives them; one is 5 %.",
            "That is agreement, no accuracy on ImageNet. Splits are chosen by the SQNR of the logits on",
            "distilled images (ZeroQ) other than those that were calibrated on. Scales of weights are powers",
            "of two per channel.",
            "",
        ]
    lines += ["Weights and results of as many bits:", "", *tables.by_bits(cells)]
    if judged.name == efficientnet.NAME:
        lines += ["The same by the SQNR of the logits on the 20 images, dB:", "", *sqnr_table(cells)]
    lines += [f"![accuracy against memory and LUT]({judged.name}.png)", ""]
    lines += ["The best of no more LUT than each integer (methods: " + judged.main + "):", ""]
    lines += tables.at_equal(cells, "LUT", lambda row: row.lut)
    lines += ["And of no more weight memory:", ""]
    lines += tables.at_equal(cells, "weights, bits", lambda row: row.memory)
    lines += ["Every split:", "", *tables.splits(cells)]
    methods = tables.method_table(cells)
    if methods:
        seeds = tables.method_seeds(cells)
        lines += [
            f"Every method ({seeds} seed{'s' * (seeds > 1)}), ordered by accuracy on the samples held out;"
        ]
        lines += ["seconds are the median of a point's, on a busy machine:", "", *methods]
    return lines + front_section(cells, records)


def sqnr_table(cells: Cells) -> Lines:
    """The error of logits, which tells apart what 20 images do not."""
    rows = []
    for bits in tables.BITS:
        row = [str(bits)]
        for methods in cells.judged.methods:
            for kind in tables.KINDS:
                best = cells.best(kind, bits, methods)
                found = [] if best is None else cells.figures(best.formats, methods, "sqnr_labelled")
                row.append(f"{statistics.fmean(found):.1f}" if found else "–")
        rows.append(row)
    titles = [f"{kind}, {methods}" for methods in cells.judged.methods for kind in tables.KINDS]
    return tables.table(["bits", *titles], rows)


def fronts_of(records: Records, group: str, network: str, name: str) -> list[list[tables.Point]]:
    """The fronts of every seed."""
    found = [records.get(group, {}).get(f"{network} {seed} {name}") for seed in tables.SEEDS]
    return [record["points"] for record in found if record is not None]


def uniform_cells(cells: Cells) -> list[list[tables.Point]]:
    """On every seed the points with as many bits for weights as for results, by the main methods."""
    main = cells.judged.main
    every = [row for kind in tables.KINDS for row in cells.every(kind, main)]
    return [
        [
            {
                "cost": row.lut,
                "held": cells.figures(row.formats, main, cells.judged.chosen_by)[seed],
                "test": row.shown[seed],
                "formats": {"all.weights": row.formats.weights, "all.activations": row.formats.activations},
            }
            for row in every
            if seed < len(row.shown)
        ]
        for seed in range(cells.seeds)
    ]


def front_section(cells: Cells, records: Records) -> Lines:
    """What mixed formats add."""
    name = cells.judged.name
    fronts = {search: fronts_of(records, "fronts", name, search) for search in SEARCHES}
    mixed = next((search for search in MIXED if fronts[search]), None)
    if mixed is None:
        return []
    record, count = records["fronts"][f"{name} 0 {mixed}"], len(fronts[mixed])
    compared = "every point with one format for all weights and one for all results (w≠a included)"
    if not fronts["uniform"]:
        fronts["uniform"] = uniform_cells(cells)[:count]
        compared = "the uniform points of the tables above"
    judged = f"as {method} leaves them" if (method := record.get("judged_by")) else "without any method"
    lines = [
        "### Mixed formats",
        "",
        f"`qhw search` ({SEARCHES[mixed][0]}) in its default space ({record['size']:.3g} points), "
        f"{record['evaluations']} evaluations ({record['seconds']:.0f} s on a busy machine), "
        f"against {compared}. The search judged points "
        f"{judged}; those of a front are quantised by {METHODS}, or left. "
        f"{count} seed{'s' * (count > 1)}. At each point of the front that is compared with:",
        "",
    ]
    rows = []
    pairs_of_names = [*((search, "uniform") for search in MIXED), ("mixed", "mixed integers")]
    for ours, theirs in pairs_of_names:
        for more in ("", ", no method"):
            pairs = list(zip(fronts.get(ours + more, []), fronts[theirs + more], strict=False))
            if pairs:
                rows.append([ours, theirs, more[2:] or METHODS, *tables.told(tables.gain(pairs))])
    header = ["front", "over", "methods", "accuracy at no more LUT, points", "LUT at no lower accuracy"]
    lines += tables.table(header, rows, 3)
    lines += [
        f"![fronts]({name}-fronts.png)",
        "",
        "Seed 0; formats of weights · of results (a number: bits of fixed point):",
        "",
    ]
    rows = []
    for search in ("uniform", mixed):
        for point in tables.kept(fronts[search][0]):
            figures = f"{100 * point['held']:.1f}", f"{100 * point['test']:.1f}"
            rows.append([search, tables.formats_of(point), f"{point['cost']:,.0f}", *figures])
    return [*lines, *tables.table(["front", "formats", "LUT", "held out, %", "test, %"], rows, 2)]


def one_shot_lines() -> Lines:
    """What `benchmarks/one_shot_search.py` found, line by line as it wrote it."""
    lines: Lines = []
    for line in ONE_SHOT.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            lines += [f"{line[3:]}:", ""]
        elif line.startswith("- ") and ("over uniform" in line or "over retraining" in line):
            lines.append(line)
        elif lines and not lines[-1].startswith("-") and not line:
            continue
        elif lines and lines[-1].startswith("- ") and not line:
            lines.append("")
    return lines


def hgq_section(records: Records) -> Lines:
    """Bit widths trained against EBOPs, against LUT, and uniform training."""
    name = hgq.NETWORK
    fronts = {run: fronts_of(records, "trained", name, run) for run in ("uniform", *hgq.SPACES, "HGQ")}
    if not all(fronts.values()):
        return []
    seeds = min(map(len, fronts.values()))
    lines = [
        f"{NETWORKS[name].title}, {seeds} seed{'s' * (seeds > 1)}; from the same float weights, "
        f"{hgq.EPOCHS} epochs each:",
        "",
        "- **HGQ**: one run of pquant-ml 0.1, with a width per tensor of weights and of what a layer reads;",
        f"  the weight of EBOPs in the loss rises from {hgq.BETA[0]:g} to {hgq.BETA[1]:g}; epochs are kept.",
        "  Its points are priced as fixed point of its widths (of 2 bits at least), its input's too, by the",
        "  same forms at the same rate; its rounding in front of batch norms is not priced.",
        "- **gradient**: one run of our strategy, which trains formats against LUT; in the default space,",
        "  and in its integers alone.",
        f"- **uniform**: {len(hgq.UNIFORM)} points of one format for weights and one for results, each",
        "  trained for itself.",
        "",
        "At each point of the front that is compared with:",
        "",
    ]
    rows = []
    for ours, theirs in (
        ("HGQ", "uniform"),
        ("gradient", "uniform"),
        ("gradient, integers", "uniform"),
        ("gradient", "HGQ"),
        ("gradient, integers", "HGQ"),
    ):
        rows.append(
            [ours, theirs, *tables.told(tables.gain(zip(fronts[ours], fronts[theirs], strict=False)))]
        )
    lines += tables.table(
        ["front", "over", "accuracy at no more LUT, points", "LUT at no lower accuracy"], rows, 2
    )
    seconds = {
        run: statistics.fmean(records["trained"][f"{name} {seed} {run}"]["seconds"] for seed in range(seeds))
        for run in fronts
    }
    lines += [
        "Processor seconds per seed: "
        + ", ".join(f"{run} {value:.0f}" for run, value in seconds.items())
        + ".",
        "",
    ]
    lines += [f"![trained fronts]({name}-trained.png)", "", "Seed 0:", ""]
    rows = []
    for run, found in fronts.items():
        for point in tables.kept(found[0]):
            ebops = f"{point['ebops']:,.0f}" if "ebops" in point else ""
            figures = f"{100 * point['held']:.1f}", f"{100 * point['test']:.1f}"
            rows.append([run, tables.formats_of(point), f"{point['cost']:,.0f}", ebops, *figures])
    return [*lines, *tables.table(["run", "formats", "LUT", "EBOPs", "held out, %", "test, %"], rows, 2)]


def readme(records: Records) -> str:
    """The whole text."""
    found = studied(records)
    findings = FINDINGS.read_text(encoding="utf-8") if FINDINGS.is_file() else ""
    lines = [
        INTRODUCTION.format(
            findings=findings,
            samples=SAMPLES,
            label=LABEL,
            fashion_noise=100 * tables.noise(TEST_SAMPLES["resnet8"], 0.9, 0.9),
            tabular_noise=100 * tables.noise(TEST_SAMPLES["mlp"], 0.9, 0.9),
            networks=network_rows(records, found),
        )
    ]
    for cells in found:
        lines += network_section(cells, records)
    lines += [
        "## The papers' claims",
        "",
        "### Minifloats beat integers from 4 bits on (arXiv 2311.12359)",
        "",
        "The best split of a minifloat's bits less the integer of as many, weights and results alike, in",
        "points of the figure above; in bold where every seed is beyond the noise. The paper has free",
        "scales.",
        "",
        *tables.claim(found, "minifloat"),
        "K-hot weights less integers of as many bits:",
        "",
        *tables.claim(found, "k-hot"),
        "### FLIQS beats uniform formats at equal cost, in one shot (arXiv 2308.03290)",
        "",
        "Tried in [one_shot_search](../results/one_shot_search.md), in points of accuracy on the test split,",
        "over all pairs of three seeds:",
        "",
        *one_shot_lines(),
        "",
        "### Bit widths trained against EBOPs (HGQ, arXiv 2405.00645)",
        "",
        *hgq_section(records),
    ]
    return "\n".join(lines).rstrip() + "\n"


def write(records: Records, folder: Path = FOLDER) -> None:
    """README.md and the pictures."""
    for cells in studied(records):
        plots.by_cost(cells, folder / f"{cells.judged.name}.png")
        name = cells.judged.name
        drawn = [search for search in SEARCHES if not search.endswith("no method")]
        fronts = {search: fronts_of(records, "fronts", name, search) for search in drawn}
        count = max(len(fronts[search]) for search in MIXED)
        if count:
            fronts["uniform"] = fronts["uniform"] or uniform_cells(cells)[:count]
            plots.fronts(fronts, folder / f"{name}-fronts.png")
    trained = {
        run: fronts_of(records, "trained", hgq.NETWORK, run) for run in ("uniform", *hgq.SPACES, "HGQ")
    }
    if any(trained.values()):
        plots.fronts(trained, folder / f"{hgq.NETWORK}-trained.png")
    (folder / "README.md").write_text(readme(records), encoding="utf-8")
