"""Builds in minifloats, k-hot and mixed formats: codes compared, and what each is estimated to take.

python benchmarks/format_builds.py [--folder qhw-build/formats] [--network NAME]... [--report]

A build that the same code has made already is not run again; ``--report`` reads what is there. Training is
short: accuracies show that the networks are real ones, not how good a format can get.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qhw
from qhw.data import Dataset, load_dataset
from qhw.errors import CheckFailedError, InputError
from qhw.pipeline import manifest
from qhw.quant_config import formats_named
from qhw.train import TrainConfig

RESULT = Path(__file__).parent / "results" / "format_builds.md"

BOARDS = ("ultra96", "zcu104", "u250")
"""The first one that a design fits is taken."""

SIMULATION = "hls4ml C-simulation"


@dataclass(frozen=True)
class Network:
    """A built-in model, how it is trained, its first and last layer, how much of its data is used."""

    name: str
    training: TrainConfig
    ends: tuple[str, str]
    train: int | None = None
    test: int | None = None

    def data(self) -> Dataset:
        data = load_dataset("digits" if self.name == "digits-cnn" else "fashion-mnist")
        return dataclasses.replace(
            data,
            train_x=data.train_x[: self.train],
            train_y=data.train_y[: self.train],
            test_x=data.test_x[: self.test],
            test_y=data.test_y[: self.test],
        )


@dataclass(frozen=True)
class Formats:
    """What a row of the table is called, and the formats that it stands for."""

    title: str
    format: str
    ends: str | None = None
    networks: tuple[str, ...] = field(default=("digits-cnn", "resnet8"))

    def quant(self, network: Network) -> dict[str, Any]:
        overrides = {} if self.ends is None else {layer: formats_named(self.ends) for layer in network.ends}
        return formats_named(self.format) | {"overrides": overrides}


NETWORKS = (
    Network(
        "digits-cnn", TrainConfig(8, 4, batch_size=64, learning_rate=4e-3, threads=1), ("conv1", "classify")
    ),
    Network("resnet8", TrainConfig(2, 1, batch_size=64, learning_rate=4e-3), ("conv", "classify"), 2000, 100),
)
SMALL = ("digits-cnn",)
FORMATS = (
    Formats("e4m3", "e4m3"),
    Formats("khot<8,2>", "khot<8,2>"),
    Formats("e3m2, first and last layer fixed<8>", "e3m2", "fixed<8>"),
    Formats("e3m2", "e3m2"),
    Formats("e2m1", "e2m1"),
    Formats("khot<8,1>", "khot<8,1>"),
    *(
        Formats(text, text, networks=SMALL)
        for text in ("e5m2", "e3m4", "e2m5", "e6m1", "e2m3", "e1m2", "e2m0")
    ),
)


def cases(wanted: list[str]) -> Iterator[tuple[Network, Formats]]:
    for network in NETWORKS:
        for formats in FORMATS:
            if network.name in formats.networks and (not wanted or network.name in wanted):
                yield network, formats


def folder_of(root: Path, network: Network, formats: Formats) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in formats.title)
    return root / f"{network.name}-{name}"


def build(network: Network, formats: Formats, out: Path) -> manifest.Manifest:
    """The manifest of the build for the first board that the design fits."""
    data = network.data()
    for board in BOARDS:
        try:
            return qhw.build(
                network.name,
                board=board,
                data=data,
                quant=formats.quant(network),
                training=network.training,
                vectors=len(data.test_x),
                out=out,
            ).manifest
        except CheckFailedError as error:
            if "does not fit" not in error.message or board == BOARDS[-1]:
                raise
    raise AssertionError("there is no board")


def simulation(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The row of the C-simulation; None where it has not run."""
    return next((row for row in document["verification"] if row["backend"] == SIMULATION), None)


def widest_sum(out: Path) -> int:
    """Bits of the widest tensor of the exact graph."""
    from qhw.graph.serialize import load_graph

    return max(kind.format.width for kind in load_graph(out / "graph").tensors.values())


def row(network: Network, formats: Formats, document: Mapping[str, Any], out: Path) -> str:
    compared, accuracy = simulation(document), document["accuracy"]
    assert compared is not None
    estimated = document["resources"]["estimated"]
    cells = (
        network.name,
        f"`{formats.title}`" if formats.ends is None else formats.title,
        document["board"]["name"],
        f"{accuracy['float']:.1%}",
        f"{accuracy['quantised']:.1%}",
        f"{compared['vectors']:,}",
        compared["layers"],
        f"{compared['codes_compared']:,}",
        compared["mismatches"],
        widest_sum(out),
        f"{estimated['lut']:,}",
        estimated["dsp"],
        f"{document['latency']['throughput_fps']:,.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def report(root: Path) -> str:
    """The table of every build that has been verified."""
    rows, models = [], set[str]()
    for network, formats in cases([]):
        out = folder_of(root, network, formats)
        try:
            document = manifest.read(out)
        except InputError:
            continue
        if simulation(document) is not None:
            rows.append(row(network, formats, document, out))
            models.add(document["resources"]["cost_model"])
    return "\n".join(
        [
            "Each row is a build, its C-simulation compared with the exact graph in every traced tensor",
            "of every image: the test split of the digits, the first 100 test images of Fashion-MNIST.",
            "Training is short (digits: 8 and 4 epochs; Fashion-MNIST: 2 and 1 epochs on 2,000 images). LUT,",
            "DSP and rate are estimated, for the fastest folding that fits the first board that any fits.",
            "",
            "| network | formats | board | float | quantised | images | tensors | codes compared | differ "
            "| widest sum, bits | LUT | DSP | inferences/s |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"Cost model: {', '.join(sorted(models))}.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("qhw-build") / "formats")
    parser.add_argument(
        "--network", action="append", choices=[network.name for network in NETWORKS], default=[]
    )
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    for network, formats in [] if options.report else cases(options.network):
        document = build(network, formats, folder_of(options.folder, network, formats))
        compared = simulation(document)
        sys.stderr.write(f"{network.name} {formats.title}: {compared}\n")
    text = report(options.folder)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
