"""A model's file executed without qhw, and inputs for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

from qhw.graph.ir import ExactGraph

CHANNELS_LAST = "qonnx.custom_op.channels_last"

Array = NDArray[Any]
Arrays = dict[str, Array]
Run = Callable[[Arrays], Arrays]


def inputs_for(graph: ExactGraph, count: int, image: bool, seed: int = 0) -> Arrays:
    """Inputs as a user has them: integers over the whole range, or floats on and off the quantiser's grid.

    Where operations of the file stand in front of its first quantiser: pixels over 255, or normal numbers.
    """
    random = np.random.default_rng(seed)
    return {name: _input(graph, name, count, image, random).astype(np.float32) for name in graph.inputs}


def _input(graph: ExactGraph, name: str, count: int, image: bool, random: np.random.Generator) -> Array:
    kind, encoding = graph.tensors[name], graph.input_encodings.get(name)
    shape = (count, *kind.shape)
    if encoding is not None and encoding.before:
        return _smooth(random, shape, 0, 255) / 255 if image else random.normal(size=shape)
    format: Any = kind.format
    low, high = (encoding.low, encoding.high) if encoding else (format.mantissa_low, format.mantissa_high)
    codes = _smooth(random, shape, low, high) if image else random.integers(low, high, shape, endpoint=True)
    if encoding is None or encoding.exact:
        return codes
    off = random.uniform(-0.45, 0.45, shape) * (random.random(shape) < 0.7)
    return np.asarray((codes + off - encoding.zero_point) * encoding.unit)


def _smooth(random: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> Array:
    """Images with large and small features: random blocks of three sizes."""
    total = np.zeros(shape)
    for size in (1, 4, 16):
        rows, columns = (-(-extent // size) for extent in shape[-2:])
        coarse = random.random((*shape[:-2], rows, columns))
        total += np.kron(coarse, np.ones((size, size)))[..., : shape[-2], : shape[-1]]
    return np.asarray(low + np.rint(total / total.max() * (high - low)), dtype=np.int64)


def execute(path: Path, inputs: Arrays, tensors: Sequence[str] = ()) -> tuple[str, Arrays]:
    """Who executed the file, and some of its tensors (N, ...) in float32, sample by sample.

    ONNX Runtime takes a file of standard operators, with its optimisations off: they would replace QDQ
    patterns by kernels of its own arithmetic. qonnx takes any other.

    Args:
        tensors: names in the file; its outputs, unless given.
    """
    model = onnx.load(str(path))
    names = list(tensors) or [value.name for value in model.graph.output]
    standard = all(node.domain in ("", "ai.onnx") for node in model.graph.node)
    run = _onnxruntime(model, names) if standard else _qonnx(model, names)
    count = len(next(iter(inputs.values())))
    results = [run({name: x[i : i + 1] for name, x in inputs.items()}) for i in range(count)]
    who = "ONNX Runtime" if standard else "qonnx"
    return who, {name: np.concatenate([result[name] for result in results]) for name in names}


def _onnxruntime(model: onnx.ModelProto, names: list[str]) -> Run:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    outputs = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    kinds = {
        value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        for value in model.graph.input
    }

    def run(sample: Arrays) -> Arrays:
        feed = {name: x.astype(kinds[name]) for name, x in sample.items()}
        return dict(zip(names, session.run(names, feed), strict=True))

    return run


def _qonnx(model: onnx.ModelProto, names: list[str]) -> Run:
    """The file may not say which version of the channels-last operators: qonnx then takes opset 1."""
    if all(opset.domain != CHANNELS_LAST for opset in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(CHANNELS_LAST, 10))
    wrapper = ModelWrapper(model)
    if not wrapper.check_all_tensor_shapes_specified():  # costly: qonnx makes constants as large as results
        wrapper = wrapper.transform(InferShapes())

    def run(sample: Arrays) -> Arrays:
        context = execute_onnx(wrapper, dict(sample), return_full_exec_context=True)
        return {name: context[name] for name in names}

    return run
