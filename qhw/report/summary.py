"""A build's manifest as tables."""

from __future__ import annotations

from typing import Any

from qhw.report.tables import Cell, Table

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


def build_tables(manifest: dict[str, Any]) -> list[Table]:
    """The summary of a build: accuracy, the executions compared, and the board's resources."""
    return [_overview(manifest), _verification(manifest["verification"]), _resources(manifest)]


def _overview(manifest: dict[str, Any]) -> Table:
    model, board, latency = manifest["model"], manifest["board"], manifest["latency"]
    rows: list[tuple[Cell, ...]] = [
        ("board", f"{board['title']} ({board['part']}) at {board['clock_mhz']:g} MHz"),
        ("model", f"{model['weights']:,} weights, {model['macs']:,} multiply-accumulates per inference"),
        *_accuracy(manifest["accuracy"]),
        *_annotated(model.get("annotated")),
        *_canonical(model["canonical"]),
        *_departures(model.get("qonnx_departs", {})),
    ]
    if latency is not None:
        rows.append(
            (
                f"latency, {latency['source']}",
                f"{latency['cycles']:,} cycles, {latency['cycles'] / board['clock_mhz']:,.1f} µs; "
                f"{latency['throughput_fps']:,.0f} inferences/s",
            )
        )
    return Table(f"{model['name']} on {board['name']}", ("", ""), tuple(rows))


def _accuracy(accuracy: dict[str, Any] | None) -> list[tuple[Cell, ...]]:
    if accuracy is None:
        return []
    style = ".2%" if accuracy["share"] else ".4g"
    in_float = "" if accuracy["float"] is None else f", float {accuracy['float']:{style}}"
    figure = (
        f"{accuracy['quantised']:{style}}{in_float} ({accuracy['metric']}, {accuracy['samples']} "
        f"samples of the {accuracy['split']} split)"
    )
    warning = [("WARNING", accuracy["warning"])] if accuracy["warning"] else []
    return [("accuracy", figure), *warning]


def _annotated(annotated: dict[str, Any] | list[dict[str, Any]] | None) -> list[tuple[Cell, ...]]:
    annotations = annotated if isinstance(annotated, list) else [annotated] if annotated else []
    return [("input", f"'{one['input']}' holds {one['type']} ({one['why']})") for one in annotations]


def _canonical(original: dict[str, Any] | None) -> list[tuple[Cell, ...]]:
    if original is None:
        return []
    share = f"{original['differing']:,} of {original['codes_compared']:,} codes"
    return [
        (
            "original file",
            f"its own float32 execution differs from canonical.onnx, the reference, in {share}",
        )
    ]


def _departures(nodes: dict[str, str]) -> list[tuple[Cell, ...]]:
    return [("qonnx itself", f"departs from QONNX's specification at {n}: {why}") for n, why in nodes.items()]


def _verification(rows: list[dict[str, Any]]) -> Table:
    cells = tuple(
        (
            _backend(row),
            row["reference"],
            row["vectors"],
            row["codes_compared"],
            row.get("layers"),
            _differ(row),
        )
        for row in rows
    )
    columns = ("backend", "reference", "samples", "codes compared", "tensors", "differ")
    return Table("Verification", columns, cells)


def _backend(row: dict[str, Any]) -> str:
    functions = row.get("in_float64")
    return f"{row['backend']} ({', '.join(functions)} in float64)" if functions else str(row["backend"])


def _differ(row: dict[str, Any]) -> Cell:
    if "not_compared" not in row:
        mismatches: int = row["mismatches"]
        return mismatches
    compared = "" if row["mismatches"] is None else f"{row['mismatches']:,}; the others "
    return f"{compared}not compared: {row['not_compared']}"


def _resources(manifest: dict[str, Any]) -> Table:
    resources = manifest["resources"]
    used = resources["synthesised"] or resources["estimated"] or {}
    kind = "synthesised" if resources["synthesised"] else "estimated"
    cells = tuple(
        (_NAMES[name], used[name], resources["board"][name], f"{used[name] / resources['board'][name]:.1%}")
        for name in used
        if resources["board"].get(name)
    )
    model = f"cost model: {resources['cost_model']}"
    note = "" if resources["synthesised"] else model
    return Table("Resources", ("", kind, "board", "used"), cells, note)
