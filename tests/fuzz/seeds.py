"""Valid inputs to begin with, made when a campaign starts: models, a build folder, boards, options, data."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from onnx import ModelProto

sys.path.insert(0, str(Path(__file__).parents[1]))

from qonnx_factory import Net
from random_files import KINDS, NEW_KINDS, random_file

from qhw.resources import resource_dir

RANDOM_FILES = 400
"""Seeds of random files that models are drawn from."""

PACKAGE_DATA = (
    "mnist-conv/model.onnx",
    "floatquant_exec/qonnx_act_weight_fp8.onnx",
    "matmul_update/sdp.onnx",
    "eltwise_chanlast_testcase.onnx",
    "residual_block_clean.onnx",
)
"""Models of moderate size that come with qonnx; some are refused as they are."""

SHARE_OF_PACKAGE_DATA = 0.04


def model(chance: random.Random) -> tuple[ModelProto, str]:
    """A valid model, and its name."""
    if chance.random() < SHARE_OF_PACKAGE_DATA:
        name = chance.choice(PACKAGE_DATA)
        return ModelProto.FromString(_package_data(name)), name
    kind, seed = chance.choice((*KINDS, *NEW_KINDS)), chance.randrange(RANDOM_FILES)
    return random_file(seed, kind).model, f"{kind} {seed}"


@cache
def _package_data(name: str) -> bytes:
    return (files("qonnx") / "data" / "onnx" / name).read_bytes()


def small_model() -> ModelProto:
    """Pixels of 8 by 8 through a convolution, a pool and a fully connected layer, to 4 classes."""
    random_ = np.random.default_rng(1)
    net = Net((1, 8, 8))
    net.annotations["x"] = "UINT8"
    first = net.quant(random_.integers(-7, 8, (3, 1, 3, 3)) * 0.125, 4, 0.125, narrow=1)
    x = net.node("Conv", "x", first, name="conv", kernel_shape=[3, 3], pads=[1] * 4)
    x = net.quant(net.node("Relu", x), 6, 4.0, signed=0)
    x = net.node("Flatten", net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), axis=1)
    dense = net.quant(random_.integers(-7, 8, (48, 4)) * 0.125, 4, 0.125, narrow=1)
    return net.model(net.quant(net.node("MatMul", x, dense, name="dense"), 8, 8.0))


def write(folder: Path) -> None:
    """All seeds that are files, into a folder; a build takes the most time of it."""
    random_ = np.random.default_rng(2)
    images, labels = random_.integers(0, 256, (12, 1, 8, 8), dtype=np.uint8), np.arange(12) % 4
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.onnx").write_bytes(small_model().SerializeToString())
    np.save(folder / "x.npy", images[:3])
    np.savez(folder / "data.npz", train_x=images, train_y=labels, test_x=images[:5], test_y=labels[:5])
    (folder / "idx").mkdir(exist_ok=True)
    for stem, array in (("train", images), ("t10k", images[:5])):
        _write_idx(folder / "idx" / f"{stem}-images-idx3-ubyte", array[:, 0])
        _write_idx(folder / "idx" / f"{stem}-labels-idx1-ubyte", np.arange(len(array)) % 4)
    (folder / "board.toml").write_text(BOARD)
    (folder / "based.toml").write_text('based_on = "zcu102"\nname = "mine"\ndsp = 100\nclock_mhz = 150.5\n')
    (folder / "config.toml").write_text(CONFIG)
    (folder / "options.toml").write_text(OPTIONS)
    lines = (resource_dir("cost_models") / "ecp5" / "measured.csv").read_text().splitlines()[:20]
    (folder / "measured.csv").write_text("\n".join(lines) + "\n")
    _qhw(folder, "simulate", "small.onnx", "--input", "x.npy", "--out", "trace.npz")
    _qhw(folder, "build", "small.onnx", "--board", "ultra96", "--data", "data.npz", "--out", "build")


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def _qhw(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "qhw", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise SystemExit(f"the seeds cannot be made: qhw {' '.join(arguments)}:\n{done.stderr}")


BOARD = """\
name = "mine"
title = "A board of mine"
kind = "fpga"
part = "xczu3eg-sbva484-1-e"
family = "ultrascale-plus"
lut = 70560
ff = 141120
dsp = 360
bram18 = 432
clock_mhz = 200
dram_mib = 2048

[sources]
lut = "data sheet"
"""

OPTIONS = """\
model = "small.onnx"
board = "ultra96"
data = "data.npz"
out = "out"
clock_mhz = 150
io_type = "io_parallel"
budget = 0.5
vectors = 4
"""

CONFIG = """\
model = "digits-cnn"
board = "ultra96"
flow = "hls4ml"
data = "digits"
format = "fixed<8>"
out = "out"
io_type = "io_stream"
clock_mhz = 150.0
fps = 1000
budget = "70%"
multipliers = "auto"
seed = 3
vectors = 5
synth = false

[quant]
weights = "fixed<6>"
activations = "fixed<7>"
scaling = "power_of_two"

[quant.overrides.conv]
weights = "fixed<4>"

[training]
float_epochs = 3
quantised_epochs = 2
learning_rate = 0.01
"""
