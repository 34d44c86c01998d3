"""What one layer at a free scale costs the rest of a network: Requants, thresholds and LUT.

Built-in networks, calibrated and not trained (counts depend on formats, not on accuracy), every scale a power
of two but one layer's. ``--against OLD`` lowers the same files with the checkout OLD too, in a process of its
own; both graphs are priced by this checkout, every multiplication unfolded.

    python benchmarks/mixed_scales.py [--against CHECKOUT] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "mixed_scales.md"

NETWORKS = {
    ("digits-cnn", "conv1"): "digits",
    ("digits-cnn", "classify"): "digits",
    ("resnet8", "conv"): "fashion-mnist",
}
"""Networks with the layer that has a free scale, and their data set."""

LOWER = """
import sys
from pathlib import Path
from qhw.graph.lower import lower
from qhw.graph.serialize import save_graph
save_graph(lower(sys.argv[1]), Path(sys.argv[2]))
"""


def exported(model: str, layer: str, data: str, path: Path) -> None:
    """A network with one layer's weights and result at free scales, as QONNX."""
    import torch

    import qhw
    from qhw.data import load_dataset
    from qhw.export import export_qonnx
    from qhw.models.registry import build_model

    torch.manual_seed(0)
    dataset = load_dataset(data)
    images = torch.from_numpy(dataset.train_x[:64].astype(np.float32))
    config = qhw.QuantConfig(overrides={layer: {"scaling": "free"}})
    quantised = qhw.convert(build_model(model, dataset), config, images).train()
    quantised(images)
    export_qonnx(quantised.eval(), path)


def lowered(checkout: Path, file: Path, folder: Path) -> Path:
    """The graph that a checkout makes of a file, stored."""
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", LOWER, file, folder]
    subprocess.run(command, env=environment, cwd=checkout, check=True)
    return folder


def counted(folder: Path) -> dict[str, Any]:
    """Operations and thresholds of a stored graph, and what stands between its layers by the estimate."""
    from qhw.boards import load_board
    from qhw.cost import estimate
    from qhw.flows.base import load_flow
    from qhw.graph.serialize import load_graph

    graph = load_graph(folder)
    kinds = Counter(node.op for node in graph.nodes)
    thresholds = sum(graph.constants[n.inputs[1]].size for n in graph.nodes if n.op == "Threshold")
    layers = estimate(load_flow("hls4ml").prepare(graph, load_board("u250"))).layers
    between = [layer for layer in layers if layer.op in ("Requant", "Threshold", "Table", "Affine")]
    return {
        "Requant": kinds["Requant"],
        "Threshold": kinds["Threshold"],
        "thresholds": thresholds,
        "LUT between the layers": sum(layer.lut for layer in between),
        "BRAM18 between the layers": sum(layer.bram18 for layer in between),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, help="an older checkout")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    options = parser.parse_args()
    checkouts = {"now": Path(__file__).resolve().parent.parent}
    if options.against:
        checkouts = {"before": options.against.resolve()} | checkouts
    rows = []
    for (model, layer), data in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            exported(model, layer, data, file)
            found = {
                name: counted(lowered(path, file, Path(folder) / name)) for name, path in checkouts.items()
            }
        sys.stderr.write(f"{model}, {layer}: {json.dumps(found)}\n")
        for what in next(iter(found.values())):
            numbers = " | ".join(f"{found[name][what]:,}" for name in checkouts)
            rows.append(f"| {model}, `{layer}` at a free scale | {what} | {numbers} |")
    head = ["# One layer at a free scale", "", *(__doc__ or "").strip().splitlines()[2:5], ""]
    table = [
        f"| network | what | {' | '.join(checkouts)} |",
        "|---|---|" + "---|" * len(checkouts),
        *rows,
        "",
    ]
    text = "\n".join([*head, *table])
    sys.stdout.write(text)
    if options.write:
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
