"""The ONNX files that the installed packages carry as data: qonnx's, FINN's, hls4ml's and Brevitas's."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from zoo.entries import Entry, Kind

PACKAGES = ("qonnx", "finn", "hls4ml", "brevitas", "brevitas_examples")
QUANTISERS = {"Quant", "IntQuant", "BipolarQuant", "FloatQuant", "Trunc", "MultiThreshold", "QuantizeLinear"}
KINDS: dict[str, Kind] = {"bnn_model_fc_1layer": "MLP", "qonnx_act_weight_fp8": "MLP", "sdp": "other"}
"""What is not a convolutional network, by file."""

INPUTS = {"bsd300x3-espcn-subpixel-quant_model": "UINT8"}
"""What comes into a first layer that reads a float input without a quantiser: the file is told in a copy."""

LARGE = 100
"""Inputs of more pixels along an axis are run once."""


def files() -> Iterator[tuple[str, Path]]:
    """Every file, with its package."""
    for package in PACKAGES:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(place).rglob("*.onnx")):
                yield package, path


def entry(group: str, path: Path) -> Entry:
    """A file as a model of the zoo; one without any quantiser is a float file."""
    model = onnx.load(str(path))
    quantised = any(node.op_type in QUANTISERS for node in model.graph.node)
    kind = KINDS.get(path.stem, "CNN" if quantised else "float")
    constants = {tensor.name for tensor in model.graph.initializer}
    first = next(value for value in model.graph.input if value.name not in constants)
    large = any(dim.dim_value > LARGE for dim in first.type.tensor_type.shape.dim[1:])
    settings: dict[str, Any] = {"samples": 1 if large else 4}
    datatype = INPUTS.get(name(path))
    if datatype is None:
        return Entry(f"{group}/{name(path)}", kind, functools.partial(as_it_is, path), **settings)
    settings |= {
        "image": True,
        "note": f"input annotated {datatype} in a copy: the file does not say what comes in",
    }
    return Entry(f"{group}/{name(path)}", kind, functools.partial(_told, path, datatype), **settings)


def as_it_is(path: Path, folder: Path) -> Path:
    """The file where it lies."""
    return path


def _told(path: Path, datatype: str, folder: Path) -> Path:
    annotate(path, datatype, folder / "model.onnx")
    return folder / "model.onnx"


def annotate(path: Path, datatype: str, to: Path) -> None:
    """A copy of a file whose input is annotated as integers, as FINN's and qonnx's tools do it."""
    from qonnx.core.datatype import DataType
    from qonnx.core.modelwrapper import ModelWrapper

    model = ModelWrapper(str(path))
    model.set_tensor_datatype(model.graph.input[0].name, DataType[datatype])
    model.save(str(to))


def name(path: Path) -> str:
    """The file's stem, with its folders where many are called alike."""
    generic = path.stem in ("model", "quant_model", "float_model")
    return "-".join((*path.parts[-3:-1], path.stem)) if generic else path.stem


def entries(cache: Path) -> Iterator[Entry]:
    """Every file of every package; a package that has none is said to have none."""
    found = list(files())
    for package, path in found:
        yield entry(f"{package} data", path)
    for package in PACKAGES:
        if package not in dict(found):
            yield Entry(f"{package} data/none", "other", None, note="the package holds no ONNX file")
