"""Operations behind a file's last layer, on real values: Softmax, ArgMax, TopK and their like, in NumPy.

Values are float32, as in the file; results agree with ONNX Runtime's up to float32's rounding in Softmax,
LogSoftmax, Sigmoid and Tanh, and are the same in all else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import QONNX_ROUNDING
from qhw.graph.encode import round_float
from qhw.graph.ir import ExactGraph, HostStep, Postprocessing

Array = NDArray[Any]


def postprocess(graph: ExactGraph, values: Mapping[str, Array]) -> dict[str, Array]:
    """A file's own outputs (N, …), from the real values of the graph's outputs.

    Args:
        values: real values by the names of the graph's outputs, from :func:`qhw.graph.encode.decode_output`.

    Returns:
        Arrays by the file's output names; by the graph's, where it was made without a file.
    """
    after = graph.postprocessing
    if after is None:
        names = graph.output_names or graph.outputs
        return {name: values[output] for name, output in zip(names, graph.outputs, strict=True)}
    known = _carried_out(graph, after, values)
    return {name: known[name] for name in after.outputs}


def _carried_out(graph: ExactGraph, after: Postprocessing, values: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor that the host knows, by the file's names."""
    given = {name: values[output] for name, output in zip(after.reads, graph.outputs, strict=True)}
    known = {name: np.asarray(value).astype(np.float32) for name, value in given.items()}
    for step in after.steps:
        results = _STEPS[step.op](known[step.inputs[0]], step)
        known |= dict(zip(step.outputs, results, strict=False))
    return known | given


def judged_output(graph: ExactGraph, values: Mapping[str, Array], *, by_order: bool = True) -> Array:
    """What a metric judges: the file's first output (N, ...); an index as integers (N,).

    Args:
        values: real values by the names of the graph's outputs.
        by_order: only the order of the values counts: an output of Softmax or Sigmoid is judged by what goes
            into it, which has the same order but for ties that float32's rounding makes.
    """
    after = graph.postprocessing
    if after is None:
        return np.asarray(values[graph.outputs[0]])
    writers = {name: step for step in after.steps for name in step.outputs}
    name = after.outputs[0]
    while by_order and name in writers and writers[name].op in _KEEPING_ORDER:
        name = writers[name].inputs[0]
    chosen = _carried_out(graph, after, values)[name]
    if chosen.dtype.kind in "iu" and chosen.size == len(chosen):
        return np.asarray(chosen.reshape(-1).astype(np.int64))
    return np.asarray(chosen)


def predicted_classes(graph: ExactGraph, values: Mapping[str, Array]) -> NDArray[np.int64]:
    """The class of each sample: the index that the file's first output is, or that of the largest value.

    Args:
        values: real values by the names of the graph's outputs.
    """
    judged = judged_output(graph, values)
    return judged if judged.ndim == 1 else np.asarray(judged.reshape(len(judged), -1).argmax(axis=1))


_KEEPING_ORDER = ("Softmax", "LogSoftmax", "Sigmoid")


def _axes(step: HostStep) -> tuple[int, ...]:
    axes = step.attributes["axes"]
    assert isinstance(axes, tuple)
    return axes


def _number(step: HostStep, name: str) -> float:
    value = step.attributes[name]
    assert isinstance(value, int | float)
    return value


def _softmax(x: Array, step: HostStep) -> list[Array]:
    raised = np.exp(x - x.max(axis=_axes(step), keepdims=True))
    return [raised / raised.sum(axis=_axes(step), keepdims=True)]


def _log_softmax(x: Array, step: HostStep) -> list[Array]:
    below = x - x.max(axis=_axes(step), keepdims=True)
    return [below - np.log(np.exp(below).sum(axis=_axes(step), keepdims=True))]


def _hardmax(x: Array, step: HostStep) -> list[Array]:
    axes = _axes(step)
    joined = x.reshape(*x.shape[: axes[0]], -1, *x.shape[axes[-1] + 1 :])
    first = np.expand_dims(joined.argmax(axis=axes[0]), axes[0])
    found = np.zeros_like(joined)
    np.put_along_axis(found, first, 1, axis=axes[0])
    return [found.reshape(x.shape)]


def _sigmoid(x: Array, step: HostStep) -> list[Array]:
    raised = np.exp(-np.abs(x))
    return [np.where(x < 0, raised, np.float32(1)) / (1 + raised)]


def _arg(x: Array, step: HostStep) -> list[Array]:
    (axis,) = _axes(step)
    choose = np.argmax if step.op == "ArgMax" else np.argmin
    if step.attributes["select_last_index"]:
        index = x.shape[axis] - 1 - choose(np.flip(x, axis), axis=axis)
    else:
        index = choose(x, axis=axis)
    found = np.asarray(index, dtype=np.int64)
    return [np.expand_dims(found, axis) if step.attributes["keepdims"] else found]


def _top_k(x: Array, step: HostStep) -> list[Array]:
    """The first of equals comes first."""
    (axis,) = _axes(step)
    order = np.argsort(-x if step.attributes["largest"] else x, axis=axis, kind="stable")
    indices = np.take(order, np.arange(int(_number(step, "k"))), axis=axis)
    return [np.take_along_axis(x, indices, axis=axis), indices.astype(np.int64)]


def _quant(x: Array, step: HostStep) -> list[Array]:
    scale, zero, low, high = (np.float32(_number(step, n)) for n in ("scale", "zero_point", "low", "high"))
    mode = QONNX_ROUNDING[str(step.attributes["rounding_mode"])]
    codes = np.clip(x / scale + zero, low, high)
    return [(round_float(codes, mode) - zero) * scale]


def _clip(x: Array, step: HostStep) -> list[Array]:
    return [np.clip(x, np.float32(_number(step, "min")), np.float32(_number(step, "max")))]


def _cast(x: Array, step: HostStep) -> list[Array]:
    return [x.astype(np.dtype(str(step.attributes["to"])))]


def _transpose(x: Array, step: HostStep) -> list[Array]:
    perm = step.attributes["perm"]
    assert isinstance(perm, tuple)
    return [x.transpose(perm)]


def _reshape(x: Array, step: HostStep) -> list[Array]:
    return [x.reshape(len(x), *step.shapes[0])]


_STEPS: dict[str, Callable[[Array, HostStep], list[Array]]] = {
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Hardmax": _hardmax,
    "Sigmoid": _sigmoid,
    "Tanh": lambda x, _: [np.tanh(x)],
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    "TopK": _top_k,
    "Quant": _quant,
    "Clip": _clip,
    "Cast": _cast,
    "Transpose": _transpose,
    "Identity": lambda x, _: [x],
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
}
