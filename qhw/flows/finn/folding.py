"""The design's folding on FINN's layers (PE, SIMD, parallel windows), and FINN's configuration files."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qhw.cost import Design
from qhw.errors import CheckFailedError
from qhw.flows.finn.execution import abstract
from qhw.flows.finn.tools import library
from qhw.flows.rtl.template import PeSimd

if TYPE_CHECKING:
    from onnx import NodeProto
    from qonnx.core.modelwrapper import ModelWrapper

FOLDING_FILE = "folding_config.json"
VARIANTS_FILE = "specialize_layers_config.json"

ATTRIBUTES = ("PE", "SIMD", "parallel_window", "resType", "mem_mode", "ram_style")
"""What FINN's folding configuration states of a layer, where it has it."""

_WINDOW, _PADDING = "ConvolutionInputGenerator", "FMPadding"
_PIXEL_BY_PIXEL = (_PADDING, "Crop", "FMPadding_Pixel", "UpsampleNearestNeighbour")
"""Layers whose SIMD divides the channels of a pixel."""


def owners(model: ModelWrapper, made_by: Mapping[str, str]) -> dict[str, str]:
    """The graph's node behind each layer of FINN, by the layer's name.

    A layer that FINN has put in belongs to what reads it, a fork to what it copies.
    """
    found: dict[str, str] = {}
    by_output: dict[str, str] = dict(made_by)
    for node in model.graph.node:
        if node.op_type.startswith("DuplicateStreams"):
            owner = by_output.get(node.input[0])
            if owner is not None:
                found[node.name] = owner
                by_output.update(dict.fromkeys(node.output, owner))
        elif node.output[0] in by_output:
            found[node.name] = by_output[node.output[0]]
    for node in reversed(model.graph.node):
        if node.name not in found:
            readers = (reader for name in node.output for reader in model.find_consumers(name) or [])
            found[node.name] = next((found[reader.name] for reader in readers if reader.name in found), "")
    return found


def folding_of(design: Design, made_by: Mapping[str, str], interval: int) -> Callable[[ModelWrapper], None]:
    """What gives every layer of a specialised model its folding.

    Args:
        design: the folded design.
        made_by: the graph's node that each tensor was written for.
        interval: cycles between two images; layers that the design does not fold keep up with it.
    """

    def fold(model: ModelWrapper) -> None:
        owner = owners(model, made_by)
        folds = {
            node.name: cast(PeSimd, design.folding.get(owner[node.name], PeSimd()))
            for node in model.graph.node
        }
        for node in model.graph.node:
            _fold_layer(model, node, folds, interval)
        for node in model.graph.node:
            if abstract(node.op_type) == _PADDING:
                reader = model.find_consumers(node.output[0])[0]
                if abstract(reader.op_type) == _WINDOW:
                    _operator(node).set_nodeattr("SIMD", _operator(reader).get_nodeattr("SIMD"))
        for node in _products(model):
            if design.multipliers in ("lut", "dsp"):
                _operator(node).set_nodeattr("resType", design.multipliers)

    return fold


def variants_of(design: Design) -> Callable[[ModelWrapper], None]:
    """What states the variants of a design: products in LUTs are HLS, as RTL units take DSP slices."""

    def choose(model: ModelWrapper) -> None:
        for node in _products(model):
            if design.multipliers == "lut":
                _operator(node).set_nodeattr("preferred_impl_style", "hls")

    return choose


def _products(model: ModelWrapper) -> list[NodeProto]:
    return [node for node in model.graph.node if abstract(node.op_type) in ("MVAU", "VVAU")]


def _fold_layer(model: ModelWrapper, node: NodeProto, folds: Mapping[str, PeSimd], interval: int) -> None:
    layer, kind, fold = _operator(node), abstract(node.op_type), folds[node.name]
    if kind in ("MVAU", "VVAU"):
        layer.set_nodeattr("PE", fold.pe)
        layer.set_nodeattr("SIMD", fold.simd)
    elif kind == _WINDOW:
        channels = layer.get_nodeattr("IFMChannels")
        if layer.get_nodeattr("depthwise"):
            layer.set_nodeattr("SIMD", fold.pe)
            layer.set_nodeattr("parallel_window", int(fold.simd > 1))
        else:
            layer.set_nodeattr("SIMD", min(fold.simd, channels))
            layer.set_nodeattr("parallel_window", int(fold.simd > channels))
    elif kind in _PIXEL_BY_PIXEL:
        _keep_up(layer, "SIMD", layer.get_nodeattr("NumChannels"), fold.pe, interval)
    elif kind == "InnerShuffle":
        _keep_up(layer, "SIMD", math.gcd(*layer.get_nodeattr("transpose_in_shape")[-2:]), fold.pe, interval)
    elif kind in ("StreamingConcat", "StreamingSplit"):
        _keep_up(layer, "SIMD", math.gcd(*layer.get_nodeattr("ChannelsPerStream")), fold.pe, interval)
    elif "PE" in layer.get_nodeattr_types():
        _keep_up(layer, "PE", _channels(layer, kind), fold.pe, interval)


def _channels(layer: Any, kind: str) -> int:
    """The elements of which a layer takes PE at a time."""
    shapes = [layer.get_normal_output_shape()]
    if kind == "Reshape":
        shapes.append(layer.get_normal_input_shape())
    return math.gcd(*(int(shape[-1]) for shape in shapes))


def _keep_up(layer: Any, factor: str, most: int, wanted: int, interval: int) -> None:
    """Give a layer the factor wanted, or the least one that keeps up with the interval."""
    divisors = [number for number in range(1, most + 1) if most % number == 0]
    order = ([wanted] if wanted in divisors else []) + divisors
    for number in order:
        layer.set_nodeattr(factor, number)
        if int(layer.get_exp_cycles()) <= interval:
            return


def _operator(node: NodeProto) -> Any:
    return library("qonnx.custom_op.registry").getCustomOp(node)


def cycles_of(model: ModelWrapper) -> dict[str, int]:
    """FINN's own estimate of each layer's cycles for one image."""
    analysis = library("finn.analysis.fpgadataflow.exp_cycles_per_layer").exp_cycles_per_layer
    return {name: int(count) for name, count in model.analysis(analysis).items()}


def resources_of(model: ModelWrapper, part: str) -> dict[str, dict[str, float]]:
    """FINN's own estimate of each layer's resources."""
    analysis = library("finn.analysis.fpgadataflow.res_estimation").res_estimation
    found = model.analysis(lambda one: analysis(one, fpgapart=part))
    return {
        name: {
            key: float(value) for key, value in counts.items() if isinstance(value, int | float | np.number)
        }
        for name, counts in found.items()
    }


def check_divides(model: ModelWrapper) -> None:
    """Check that every factor divides its layer, which FINN itself finds out in the middle of a synthesis.

    Raises:
        CheckFailedError: names the layer, the factor and what it should divide.
    """
    for node in model.graph.node:
        layer, kind = _operator(node), abstract(node.op_type)
        pairs: list[tuple[str, int]] = []
        if kind == "MVAU":
            pairs = [("PE", layer.get_nodeattr("MH")), ("SIMD", layer.get_nodeattr("MW"))]
        elif kind == "VVAU":
            kernel = math.prod(layer.get_nodeattr("Kernel"))
            pairs = [("PE", layer.get_nodeattr("Channels")), ("SIMD", kernel)]
        elif kind == _WINDOW:
            pairs = [("SIMD", layer.get_nodeattr("IFMChannels"))]
        elif kind in _PIXEL_BY_PIXEL:
            pairs = [("SIMD", layer.get_nodeattr("NumChannels"))]
        elif kind == "InnerShuffle":
            pairs = [("SIMD", size) for size in layer.get_nodeattr("transpose_in_shape")[-2:]]
        elif kind in ("StreamingConcat", "StreamingSplit"):
            pairs = [("SIMD", part) for part in layer.get_nodeattr("ChannelsPerStream")]
        elif "PE" in layer.get_nodeattr_types():
            pairs = [("PE", _channels(layer, kind))]
        for factor, size in pairs:
            given = layer.get_nodeattr(factor)
            if given < 1 or size % given:
                raise CheckFailedError(
                    f"The folding of '{node.name}' has {factor} {given}, which does not divide its {size}",
                    allowed=", ".join(str(n) for n in range(1, size + 1) if size % n == 0),
                    hint="'qhw build' chooses foldings that do",
                )


def write_configurations(model: ModelWrapper, folder: Path) -> None:
    """FINN's configuration files of a folded model: foldings, and which layers are RTL and which HLS."""
    folding: dict[str, Any] = {"Defaults": {}}
    variants: dict[str, Any] = {"Defaults": {}}
    counts: Counter[str] = Counter()  # layers are numbered by kind before they have a variant
    for node in model.graph.node:
        layer = _operator(node)
        types = layer.get_nodeattr_types()
        folding[node.name] = {name: layer.get_nodeattr(name) for name in ATTRIBUTES if name in types}
        kind = abstract(node.op_type)
        variant = node.op_type.removeprefix(f"{kind}_")
        variants[f"{kind}_{counts[kind]}"] = {"preferred_impl_style": variant}
        counts[kind] += 1
    for name, content in ((FOLDING_FILE, folding), (VARIANTS_FILE, variants)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
