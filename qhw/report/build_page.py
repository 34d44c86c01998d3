"""report.html of a build: what build.json says, and what the build folder holds, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhw.report.charts import board_chart, distribution_chart, drawn_resources, layers_chart, memory_chart
from qhw.report.distributions import Distribution, distributions
from qhw.report.drawing import draw
from qhw.report.page import chart, rendered
from qhw.report.tables import cell_text

if TYPE_CHECKING:
    from qhw.formats.modes import IntArray
    from qhw.graph.ir import ExactGraph

TRACED_SAMPLES = 64
"""Samples whose results are counted."""

TRACED_MACS = 400_000_000
"""Multiply-accumulates that those samples add up to at most: half a second."""

SHOWN_CARDS = 18
"""Distributions that are shown at once; more are there on a click."""

_LARGEST_JSON = 1 << 26
_NAMES = {
    "lut": "LUT",
    "ff": "FF",
    "dsp": "DSP",
    "bram18": "BRAM18",
    "uram": "URAM",
    "sram": "SRAM",
    "contiguous_sram": "largest region",
    "flash": "flash",
}

Manifest = dict[str, Any]


def build_page(folder: Path, manifest: Manifest) -> str:
    """The page of a build folder.

    Args:
        folder: its graph, costs and vectors are shown as far as they are there.
        manifest: its build.json.

    Raises:
        InputError: a file there is not what was written.
        ToolMissingError: vl-convert is not installed.
    """
    graph, layers = _graph(folder), layers_of(folder, manifest)
    model, board = manifest["model"], manifest["board"]
    binding = (
        max(layers, key=lambda layer: (layer["initiation_interval"], layer.get("lut", 0))) if layers else None
    )
    return rendered(
        "build.html",
        kind=f"qhw build --flow {manifest['flow']['name']}",
        title=f"{model['name']} on {board['title']}",
        subtitle=f"{board['part']} at {board['clock_mhz']:g} MHz",
        tiles=_tiles(manifest),
        warnings=_warnings(manifest),
        **_exactness(manifest["verification"]),
        **_resources(manifest, layers, binding),
        **_memory(manifest),
        measured=_measured(manifest.get("measured")),
        drawing=None if graph is None else draw(graph, _remarks(layers), binding["node"] if binding else ""),
        **_cards(folder, graph, manifest),
        shown_cards=SHOWN_CARDS,
        made=_made(manifest),
    )


def _graph(folder: Path) -> ExactGraph | None:
    from qhw.graph.serialize import load_graph
    from qhw.pipeline.stages import check_written

    return load_graph(folder / "graph") if check_written(folder, "graph") else None


def layers_of(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """What each operation of a build is estimated to take; raises InputError where that was changed."""
    from qhw.outside.text import read_json
    from qhw.pipeline.stages import check_written

    if manifest["resources"]["estimated"] is None or not check_written(folder, "cost"):
        return []
    found: list[dict[str, Any]] = read_json(
        folder / "cost" / "layers.json", "costs of the layers", _LARGEST_JSON
    )
    return found


# --- at the top ---------------------------------------------------------------------------------------


def _tiles(manifest: Manifest) -> list[dict[str, str]]:
    tiles = []
    if accuracy := manifest["accuracy"]:
        tiles.append(_accuracy_tile(accuracy) | {"state": "wide"})
    compared = [row for row in manifest["verification"] if row["mismatches"] is not None]
    if compared:
        codes, differ = (sum(row[name] for row in compared) for name in ("codes_compared", "mismatches"))
        tiles.append(
            _tile(f"{differ:,}", "codes differ", f"of {codes:,} compared", "bad" if differ else "good")
        )
    resources = manifest["resources"]
    if used := resources["utilisation"]:
        fullest = max(used, key=lambda name: used[name])
        kind = "synthesised" if resources["synthesised"] else "estimated"
        state = "bad" if used[fullest] > 1 else ""
        tiles.append(_tile(f"{used[fullest]:.1%}", f"of the {_NAMES.get(fullest, fullest)}", kind, state))
    if latency := manifest["latency"]:
        rate = f"{latency['throughput_fps']:,.0f}"
        time = latency["cycles"] / latency["clock_mhz"]
        told = f"{time:,.1f} µs" if time < 1000 else f"{time / 1000:,.2f} ms"
        tiles.append(_tile(rate, "inferences/s", f"{told} each, {latency.get('source', 'estimated')}"))
    if manifest["model"]["macs"] is not None:
        weights = f"{manifest['model']['weights']:,} weights"
        tiles.append(_tile(f"{manifest['model']['macs']:,}", "multiply-accumulates", weights))
    return tiles


def _tile(figure: str, name: str, note: str = "", state: str = "") -> dict[str, str]:
    return {"figure": figure, "name": name, "note": note, "state": state}


def _accuracy_tile(accuracy: Mapping[str, Any]) -> dict[str, str]:
    style = ".2%" if accuracy["share"] else ".4g"
    told = f"{accuracy['samples']:,} samples of the {accuracy['split']} split"
    if accuracy["quantised"] is None:
        return _tile("–", accuracy["metric"], told)
    if accuracy["float"] is None:
        return _tile(f"{accuracy['quantised']:{style}}", f"{accuracy['metric']}, quantised", told)
    change = accuracy["quantised"] - accuracy["float"]
    by = f"{change * 100:+.2f} points" if accuracy["share"] else f"{change:+.3g}"
    figure = f"{accuracy['float']:{style}} → {accuracy['quantised']:{style}}"
    return _tile(figure, f"{accuracy['metric']}, float → quantised", f"{by}; {told}")


def _warnings(manifest: Manifest) -> list[str]:
    accuracy, original = manifest["accuracy"], manifest["model"]["canonical"]
    found = [accuracy["warning"]] if accuracy and accuracy["warning"] else []
    if original is not None and original["differing"]:
        found.append(
            f"The original file's own float32 execution differs from canonical.onnx, the reference, in "
            f"{original['differing']:,} of {original['codes_compared']:,} codes"
        )
    departs = manifest["model"].get("qonnx_departs", {})
    return found + [
        f"qonnx departs from QONNX's specification at {node}: {why}" for node, why in departs.items()
    ]


# --- the exactness chain ------------------------------------------------------------------------------


def _exactness(verification: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for row in verification:
        compared = row["mismatches"] is not None
        state = "" if not compared else "bad" if row["mismatches"] else "good"
        notes = [f"not compared: {row['not_compared']}"] if row.get("not_compared") else []
        notes += [f"first difference: {row['first_difference']}"] if row.get("first_difference") else []
        rows.append(
            {
                "backend": row["backend"],
                "reference": row["reference"],
                "samples": f"{row['vectors']:,}",
                "tensors": cell_text(row.get("layers")),
                "codes": f"{row['codes_compared']:,}",
                "differ": f"{row['mismatches']:,}" if compared else "–",
                "state": state,
                "note": "; ".join(notes),
                "note_state": "bad" if row.get("first_difference") else "note",
            }
        )
    return {"rows": rows, "chain": _chain(verification)}


def _chain(verification: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Every execution once, with a sign that says whether it differs from what it was compared with."""
    links: dict[str, dict[str, str]] = {}
    for row in verification:
        if row["mismatches"] is None:
            continue
        for name in (row["reference"], row["backend"]):
            links.setdefault(name, {"name": name, "sign": "=", "state": "good"})
        if row["mismatches"]:
            links[row["backend"]] |= {"sign": "≠", "state": "bad"}
    return list(links.values())


# --- resources ----------------------------------------------------------------------------------------


def _resources(
    manifest: Manifest, layers: Sequence[Mapping[str, Any]], binding: Mapping[str, Any] | None
) -> dict[str, Any]:
    resources = manifest["resources"]
    used = resources["synthesised"] or resources["estimated"]
    if not used:
        return {"board_plot": None}
    there = {name: resources["board"][name] for name in used if resources["board"].get(name)}
    shares = {name: used[name] / there[name] for name in there}
    error = None if resources["synthesised"] else resources.get("lut_error")
    drawn = drawn_resources(layers, there)
    plot = board_chart(
        {_NAMES.get(name, name): share for name, share in shares.items()},
        error=None if error is None else error["p95"] / 100,
        budget=manifest["flow"]["wanted"]["budget"],
        width="container",
    )
    return {
        "board_plot": chart("board", plot),
        "layers_plot": chart("layers", layers_chart(layers, there, "container")) if drawn else None,
        "kind_of_amounts": "synthesised" if resources["synthesised"] else "estimated",
        "amounts": [
            {
                "name": _NAMES.get(n, n),
                "used": f"{used[n]:,}",
                "there": f"{there[n]:,}",
                "share": f"{shares[n]:.1%}",
            }
            for n in there
        ],
        "margin": _margin(resources, error),
        "binding": _binding(manifest, layers, binding, shares),
        "fold_title": ", ".join(layers[0]["fold"]).replace("_", " ") if layers else "",
        "amount_names": [_NAMES.get(name, name) for name in drawn],
        "layers": [
            {
                "node": layer["node"],
                "op": layer["op"],
                "fold": ", ".join(map(str, layer["fold"].values())),
                "amounts": [f"{layer.get(name, 0):,}" for name in drawn],
                "cycles": f"{layer['cycles']:,}",
                "interval": f"{layer['initiation_interval']:,}",
            }
            for layer in layers
        ],
    }


def _margin(resources: Mapping[str, Any], error: Mapping[str, float] | None) -> str:
    if resources["synthesised"]:
        return "Parsed from the report of the vendor's synthesis."
    told = f"Cost model: {resources['cost_model']}."
    if error is None:
        return told
    return (
        f"{told} The bar of errors is that of the family's worst unit on circuits that were not fitted: "
        f"LUT off by {error['median']:.1f} % in the median, {error['p95']:.1f} % at the 95th percentile."
    )


def _binding(
    manifest: Manifest,
    layers: Sequence[Mapping[str, Any]],
    binding: Mapping[str, Any] | None,
    shares: Mapping[str, float],
) -> str:
    """Which resource and which layer the design is bound by."""
    resource = max(shares, key=lambda name: shares[name])
    name = _NAMES.get(resource, resource)
    told = [f"{name} is the fullest resource, at {shares[resource]:.1%} of the board"]
    total = sum(layer.get(resource, 0) for layer in layers)
    if total:
        largest = max(layers, key=lambda layer: layer.get(resource, 0))
        told.append(f"{largest[resource] / total:.0%} of it in '{largest['node']}' ({largest['op']})")
    text = ", ".join(told) + "."
    if binding is not None and manifest["latency"] is not None:
        text += (
            f" The rate waits for '{binding['node']}' ({binding['op']}): "
            f"{binding['initiation_interval']:,} cycles between two inferences."
        )
    return text


def _remarks(layers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the operations of weight cost, for their boxes."""
    remarks = {}
    for layer in layers:
        if layer["op"] in ("Conv", "MatMul"):
            amounts = [
                f"{layer[name]:,} {_NAMES[name]}"
                for name in ("lut", "dsp", "bram18", "flash")
                if layer.get(name)
            ]
            remarks[layer["node"]] = ", ".join(amounts)
    return remarks


def _memory(manifest: Manifest) -> dict[str, Any]:
    """A microcontroller's memory, where the build planned one."""
    memory = manifest.get("memory")
    if memory is None:
        return {"memory_plot": None}
    spec = memory_chart(memory["buffers"], memory["steps"], memory["limit_bytes"], "container")
    peak = max((buffer["offset"] + buffer["bytes"] for buffer in memory["buffers"]), default=0)
    limit = memory["limit_bytes"]
    share = f", {peak / limit:.1%} of the {limit / 1024:,.1f} KiB that are there" if limit else ""
    return {
        "memory_plot": chart("arena", spec),
        "memory_note": f"Buffers of the arena, step by step: {peak / 1024:,.1f} KiB at most{share}.",
    }


def _measured(measured: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a firmware took where it ran, layer by layer, as the template shows it."""
    if measured is None:
        return None
    low, high = measured["modelled"]["milliseconds"]
    total = max(measured["instructions"], 1)
    return {
        "note": f"{measured['source']}: {measured['instructions']:,} instructions an inference, "
        f"{measured['flash']:,} bytes of flash, {measured['static_ram']:,} bytes of static RAM, "
        f"{measured['stack']:,} bytes of stack. Modelled, not measured: {low:,.3g} to {high:,.3g} ms "
        f"({measured['modelled']['how']}).",
        "layers": [
            {
                "name": layer["name"],
                "kernel": layer["kernel"],
                "macs": f"{layer['macs']:,}",
                "flash": f"{layer['flash']:,}",
                "instructions": f"{layer['instructions']:,}",
                "share": f"{layer['instructions'] / total:.1%}",
            }
            for layer in measured["layers"]
        ],
    }


# --- numbers ------------------------------------------------------------------------------------------


def _cards(folder: Path, graph: ExactGraph | None, manifest: Manifest) -> dict[str, Any]:
    if graph is None:
        return {"cards": [], "cards_note": ""}
    trace, samples = _trace(folder, graph, manifest)
    found = distributions(graph, trace)
    told = f"Results: of {samples:,} of the samples that the build was verified on. " if samples else ""
    return {
        "cards": [_card(number, one) for number, one in enumerate(found)],
        "cards_note": f"{told}Bars: the share of numbers that are rounded to each number of the format. "
        "Ticks: the numbers that the format has, where they are few.",
    }


def _card(number: int, one: Distribution) -> dict[str, Any]:
    about = f"{one.role}, {one.format}; {one.used:,} of {one.numbers:,} numbers occur"
    if one.at_ends >= 0.005:
        about += f", {one.at_ends:.1%} at the ends"
    spec = distribution_chart(one.bars, one.grid, width="container")
    return {"name": one.name, "about": about, "plot": chart(f"numbers-{number}", spec, lazy=True)}


def _trace(folder: Path, graph: ExactGraph, manifest: Manifest) -> tuple[dict[str, IntArray], int]:
    """Results of layers on some of the build's samples."""
    from qhw.arrays import load_mantissas
    from qhw.pipeline.stages import check_written
    from qhw.sim.fast import FastExecutor

    if not check_written(folder, "vectors"):
        return {}, 0
    inputs = load_mantissas(folder / "vectors" / "inputs.npz")
    macs = max(manifest["model"]["macs"] or 1, 1)
    count = min(len(next(iter(inputs.values()))), TRACED_SAMPLES, max(1, TRACED_MACS // macs))
    few = {name: x[:count] for name, x in inputs.items()}
    return {**FastExecutor(graph)(few, keep="all"), **few}, count


def _made(manifest: Manifest) -> list[tuple[str, str]]:
    inputs, flow = manifest["inputs"], manifest["flow"]
    rows = [("model", f"{inputs['model']['given']} (sha256 {inputs['model']['sha256'][:16]}…)")]
    if inputs["data"] is not None:
        rows.append(("data", f"{inputs['data']['given']} (sha256 {inputs['data']['sha256'][:16]}…)"))
    rows.append(("board", str(inputs["board"]["given"])))
    options = [f"{name} {value}" for name, value in flow["options"].items()]
    rows.append(("flow", ", ".join([flow["name"], *options])))
    if manifest["model"]["sha256"]:
        rows.append(("model.onnx", f"sha256 {manifest['model']['sha256']}"))
    if flow["project_sha256"]:
        rows.append(("project", f"sha256 {flow['project_sha256']}"))
    rows.append(("tools", ", ".join(f"{name} {version}" for name, version in manifest["tools"].items())))
    return rows
