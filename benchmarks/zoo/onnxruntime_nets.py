"""Networks quantised by ONNX Runtime's `quantize_static` as QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from zoo import package_data, package_sources
from zoo.entries import Entry, Kind
from zoo.torch_nets import build, kind_of

NETS = ("MLP", "LeNet-5", "VGG-11", "ResNet-8", "MobileNetV1", "MobileNetV2", "SqueezeNet", "TCN")
FLOATS: dict[str, Kind] = {
    "two_layer_keras": "MLP",
    "two_layer_pytorch": "MLP",
    "three_layer_keras": "MLP",
    "three_layer_pytorch": "MLP",
    "conv1d_small_keras": "CNN",
    "conv2d_small_keras": "CNN",
    "residual_block_clean": "CNN",
    "float_model": "CNN",
}
"""Float files of packages, by their stems: what a user would quantise first."""

SETTINGS: dict[str, Mapping[str, Any]] = {
    "ONNX Runtime QDQ, uint8": {"activation_type": QuantType.QUInt8, "per_channel": False},
    "ONNX Runtime QDQ, int8 per channel": {
        "activation_type": QuantType.QInt8,
        "per_channel": True,
        "extra_options": {"ActivationSymmetric": True},
    },
}


class Random(CalibrationDataReader):
    """A few batches of normal numbers for every input."""

    def __init__(self, model: onnx.ModelProto) -> None:
        random = np.random.default_rng(0)
        constants = {tensor.name for tensor in model.graph.initializer}
        shapes = {
            value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
            for value in model.graph.input
            if value.name not in constants
        }
        self._batches = iter(
            [
                {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
                for _ in range(8)
            ]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def quantise(source: Path, settings: Mapping[str, Any], folder: Path) -> Path:
    """The file, quantised, in a folder."""
    prepared = folder / "prepared.onnx"
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    path = folder / "model.onnx"
    reader = Random(onnx.load(str(prepared)))
    quantize_static(str(prepared), str(path), reader, quant_format=QuantFormat.QDQ, **settings)
    return path


def _torch(name: str, settings: Mapping[str, Any], folder: Path) -> Path:
    import torch

    model, x = build(name)
    torch.onnx.export(model, (x[:1],), str(folder / "float.onnx"), dynamo=False, opset_version=17)
    return quantise(folder / "float.onnx", settings, folder)


def _packaged(path: Path, settings: Mapping[str, Any], folder: Path) -> Path:
    """The file with a batch of 1 and, where it is older, the opset that ONNX Runtime's quantiser asks for."""
    from onnx.version_converter import convert_version

    model = onnx.load(str(path))
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in constants:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    model.ir_version = max(model.ir_version, 8)
    newer = convert_version(model, 17) if model.opset_import[0].version < 13 else model
    onnx.save(newer, str(folder / "float.onnx"))
    return quantise(folder / "float.onnx", settings, folder)


def entries(cache: Path) -> Iterator[Entry]:
    """Torch networks and the float files of packages, in each of the settings."""
    packaged = [*package_data.entries(cache), *package_sources.entries(cache)]
    paths = {entry.name: entry.make(cache) for entry in packaged if entry.kind == "float" and entry.make}
    for group, settings in SETTINGS.items():
        for name in NETS:
            yield Entry(f"{group}/{name}", kind_of(name), functools.partial(_torch, name, settings))
        for name, path in paths.items():
            if path.stem in FLOATS:
                make = functools.partial(_packaged, path, settings)
                yield Entry(f"{group}/{name.split('/')[1]}", FLOATS[path.stem], make, samples=1)
