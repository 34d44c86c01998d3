"""A converted model as a QONNX file: every quantised tensor is a quantizer node with its trained scale.

The file is a function of the model alone: the same weights give the same bytes. Each layer's result is a
tensor named like the layer's path (in lower case), so that messages about the file name layers.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from brevitas import nn as qnn
from brevitas.nn.mixin.base import QuantLayerMixin
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from torch import Tensor, fx, nn

from qhw.data.inputs import Samples, count_of, parts_of, rows_of
from qhw.errors import InputError, UnsupportedError
from qhw.formats import Binary, Fixed, Format, Minifloat, Overflow, Special, TableFormat
from qhw.formats.modes import QONNX_ROUNDING
from qhw.layers import (
    Normalize,
    QuantActivation,
    QuantAdd,
    QuantAffine,
    QuantAvgPool,
    QuantBatchNorm,
    QuantConcat,
    QuantFunction,
    QuantInterpolate,
    QuantMultiply,
    QuantPad,
    QuantPReLU,
    QuantSubtract,
    QuantTotal,
)
from qhw.layers.arithmetic import Add, MatMul
from qhw.layers.functions import INPUT, OPSETS
from qhw.layers.moves import Concat, Largest, Pad, Permute, Repeat, Reshape, Slice
from qhw.layers.pool import Reciprocal
from qhw.onnx_ops import DOMAIN, OPSET
from qhw.onnx_ops.float_quant import FORMAT_KEY
from qhw.quantizers import Activation, Quantizer, TableQuantizer, plain_tensors
from qhw.tracing import (
    Example,
    arguments_of,
    as_tuple,
    check_finite,
    example_inputs,
    graph_of,
    layer_of,
    numbered,
)

QONNX_DOMAIN = "qonnx.custom_op.general"
ONNX_OPSET = 13
"""What a file states, unless one of its functions came later."""
AXES_ARE_INPUTS = 18
"""The opset from which ReduceMax has its axes as an input."""
IR_VERSION = 8

ROUNDING_MODES = {mode: name for name, mode in QONNX_ROUNDING.items() if name != "HALF_EVEN"}
"""What QONNX calls the rounding modes that it has."""


def export_qonnx(model: nn.Module, path: str | Path, example: Example | None = None) -> Path:
    """Write a model as QONNX; the file is complete or not there at all.

    Args:
        model: what :func:`qhw.convert` made, trained or at least run once; or a module that is made of
            Brevitas's layers with qhw's quantizers and of qhw's layers; or any other Brevitas model, which
            Brevitas's own exporter writes.
        path: the file.
        example: an input with its batch axis, or the shape of one input without it; of several, one for each.
            A converted model knows its shapes, and needs none.

    Raises:
        InputError: the model is not quantised, has NaN or infinite weights, or a binary point that no data
            has set yet.
        UnsupportedError: a layer cannot be exported, or a constant needs more bits than float32, QONNX's
            type of tensors, has.
    """
    path = Path(path)
    check_finite(model)
    quantizers = {where: m for where, m in model.named_modules() if isinstance(m, Quantizer)}
    _check_started(quantizers)
    if isinstance(model, fx.GraphModule) and is_converted(model):
        data = to_onnx(model).SerializeToString(deterministic=True)
    elif quantizers:
        data = to_onnx(_graph_of_layers(model, example)).SerializeToString(deterministic=True)
    else:
        data = _from_brevitas(model, example)
    beside = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
    return path


def is_converted(model: fx.GraphModule) -> bool:
    """Whether a graph has what :func:`qhw.convert` leaves on its nodes."""
    return all("path" in node.meta for node in model.graph.nodes if node.op != "output")


def to_onnx(model: fx.GraphModule) -> onnx.ModelProto:
    """The QONNX model of a converted model, batch size 1; see :func:`export_qonnx`."""
    name = re.sub(r"[^a-z0-9_]", "_", type(model).__name__.lower())  # a copied GraphModule forgets it
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        exported: onnx.ModelProto = _Exporter(model, name).run()
        return exported


def layer_values(model: fx.GraphModule, samples: Samples, *, batch_size: int = 64) -> dict[str, NDArray[Any]]:
    """Every layer's result for a batch (N, …), in float64: the reference, by the exported tensors' names.

    Args:
        samples: an array; of several inputs a tuple of arrays.
    """
    model = copy.deepcopy(model).double().eval()
    names = tensor_names(model)
    parts: dict[str, list[NDArray[Any]]] = {}
    for start in range(0, count_of(samples), batch_size):
        rows = parts_of(rows_of(samples, slice(start, start + batch_size)))
        batch = [torch.from_numpy(np.ascontiguousarray(part)).double() for part in rows]
        for node, value in _Recorder(model).record(*batch).items():
            parts.setdefault(names[node], []).append(value.numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def tensor_names(model: fx.GraphModule) -> dict[fx.Node, str]:
    """The name of every node's result in the exported file: its path in lower case, unique."""
    names: dict[fx.Node, str] = {}
    for node in model.graph.nodes:
        if node.op != "output":
            plain = re.sub(r"[^a-z0-9_.]", "_", node.meta["path"].lower())
            names[node] = next(name for name in numbered(plain) if name not in names.values())
    return names


class _Recorder(fx.Interpreter):
    def record(self, *batch: Tensor) -> dict[fx.Node, Tensor]:
        self.values: dict[fx.Node, Tensor] = {}
        with torch.inference_mode():
            self.run(*batch)
        return self.values

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op != "output":
            self.values[n] = value
        return value


class _Exporter:
    """Writes the graph node by node; a layer's result is the tensor that has the layer's name."""

    def __init__(self, model: fx.GraphModule, name: str) -> None:
        self.model = model
        self.name = name
        self.names = tensor_names(model)
        self.tensors: dict[fx.Node, str] = {}
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.opset = max(ONNX_OPSET, *_opsets_of_functions(model), 0)

    def run(self) -> Any:
        inputs: list[fx.Node] = []
        for node in self.model.graph.nodes:
            if node.op == "placeholder":
                inputs.append(node)
                self.tensors[node] = self.names[node]
                self.shapes[self.names[node]] = _shape(node)
            elif node.op == "output":
                output = self.tensors[node.all_input_nodes[0]]
            else:
                self._layer(node)
        return self._model(inputs, output)

    def _model(self, inputs: list[fx.Node], output: str) -> Any:
        names = [self.names[node] for node in inputs]
        values = {name: _value_info(name, shape) for name, shape in self.shapes.items()}
        between = [value for name, value in values.items() if name not in (*names, output)]
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [values[name] for name in names],
            [values[output]],
            self.initializers,
            value_info=between,
        )
        domains = {"": self.opset, QONNX_DOMAIN: 1, DOMAIN: OPSET}
        used = {node.domain for node in self.nodes} | {"", QONNX_DOMAIN}
        imports = [
            helper.make_opsetid(domain, version) for domain, version in domains.items() if domain in used
        ]
        model = helper.make_model(graph, opset_imports=imports, producer_name="qhw", ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return self._annotate(model, inputs)

    def _annotate(self, model: onnx.ModelProto, inputs: list[fx.Node]) -> Any:
        """Say which inputs are whole pixels: those that only a normalisation reads."""
        wrapped = ModelWrapper(model)
        for node in inputs:
            if all(isinstance(layer_of(self.model, user), Normalize) for user in node.users):
                wrapped.set_tensor_datatype(self.names[node], DataType["UINT8"])
        return wrapped.model

    # --- layers

    def _layer(self, node: fx.Node) -> None:
        layer = layer_of(self.model, node)
        name, shape = self.names[node], _shape(node)
        inputs = [self.tensors[source] for source in node.args if isinstance(source, fx.Node)]
        if isinstance(layer, (qnn.QuantLinear, *CONVOLUTIONS, *TRANSPOSED)):
            self._sum(layer, name, inputs[0], node)
            self.tensors[node] = name
            return
        match layer:
            case nn.Dropout() | nn.Dropout1d() | nn.Dropout2d():
                self.tensors[node] = inputs[0]
                return
            case Normalize():
                factor = self._constant(f"{name}.factor", np.array(2.0**layer.exponent))
                self._node("Mul", name, (inputs[0], factor), shape)
            case qnn.QuantIdentity() | qnn.QuantReLU():
                self._result(_quantizer(layer.act_quant, name), name, inputs[0], shape)
            case Add():
                self._node("Add", name, inputs, shape)
            case MatMul():
                self._node("MatMul", name, inputs, shape)
            case QuantBatchNorm():
                self._batch_norm(layer, name, inputs[0], shape)
            case QuantAdd():
                op = "Sub" if isinstance(layer, QuantSubtract) else "Add"
                total = self._node(op, f"{name}.{op.lower()}", inputs, shape)
                self._result(layer.result, name, total, shape)
            case QuantMultiply():
                product = self._node("Mul", f"{name}.mul", inputs, shape)
                self._result(layer.result, name, product, shape)
            case QuantAffine():
                self._affine(layer, name, inputs[0], shape)
            case QuantFunction():
                self._function(layer, name, inputs[0], shape)
            case QuantPReLU():
                self._prelu(layer, name, inputs[0], shape)
            case QuantTotal():
                self._total(layer, name, inputs[0], node)
            case QuantInterpolate():
                pixels = self._resize(f"{name}.resize", inputs[0], shape, layer.factors, "linear")
                self._result(layer.result, name, pixels, shape)
            case Repeat():
                self._resize(name, inputs[0], shape, layer.factors, "nearest")
            case Largest():
                self._largest(name, inputs[0], shape, layer.axes)
            case QuantPad():
                whole = self._result(
                    layer.result, f"{name}.result", inputs[0], _shape(node.all_input_nodes[0])
                )
                self._pad(layer, name, whole, shape, layer.quantised_value)
            case Pad():
                self._pad(layer, name, inputs[0], shape, layer.value)
            case Permute():
                self._node("Transpose", name, inputs, shape, perm=layer.order)
            case Slice():
                self._slice(layer, name, inputs[0], shape)
            case nn.PixelShuffle():
                self._node("DepthToSpace", name, inputs, shape, blocksize=layer.upscale_factor, mode="CRD")
            case nn.PixelUnshuffle():
                self._pixel_unshuffle(layer, name, inputs[0], node)
            case QuantAvgPool():
                self._average_pool(layer, name, inputs[0], node)
            case QuantActivation():
                self._result(layer.result, name, inputs[0], shape)
            case QuantConcat():
                self._concat(layer, name, inputs, node)
            case Concat():
                self._node("Concat", name, inputs, shape, axis=layer.axis)
            case nn.MaxPool1d() | nn.MaxPool2d():
                self._max_pool(layer, name, inputs[0], node)
            case nn.Flatten() | Reshape():
                self._reshape(name, inputs[0], shape)
            case _:
                raise UnsupportedError(f"layer {node.target}: {type(layer).__name__} cannot be exported")
        self.tensors[node] = name

    def _sum(self, layer: Any, name: str, x: str, node: fx.Node) -> None:
        """A convolution or linear layer; a user's own may quantise its input and its result, too."""
        shape = _shape(node)
        if layer.input_quant.is_quant_enabled:
            quantizer = _quantizer(layer.input_quant, name)
            x = self._result(quantizer, f"{name}.input", x, _shape(node.all_input_nodes[0]))
        write = self._linear if isinstance(layer, qnn.QuantLinear) else self._conv
        write = self._conv_transpose if isinstance(layer, TRANSPOSED) else write
        if layer.output_quant.is_quant_enabled:
            write(layer, f"{name}.sum", x, shape)
            self._result(_quantizer(layer.output_quant, name), name, f"{name}.sum", shape)
        else:
            write(layer, name, x, shape)

    def _linear(self, layer: qnn.QuantLinear, name: str, x: str, shape: tuple[int, ...]) -> None:
        quantizer = _quantizer(layer.weight_quant, f"{name}.weight")
        weight = self._parameter(f"{name}.weight", layer.weight, quantizer, (1, 0), channel_axis=1)
        if layer.bias is None:
            self._node("MatMul", name, (x, weight), shape)
            return
        product = self._node("MatMul", f"{name}.matmul", (x, weight), shape)
        bias = self._bias(layer, name)
        self._node("Add", name, (product, bias), shape)

    def _conv(self, layer: Any, name: str, x: str, shape: tuple[int, ...]) -> None:
        quantizer = _quantizer(layer.weight_quant, f"{name}.weight")
        inputs = [x, self._parameter(f"{name}.weight", layer.weight, quantizer, range(layer.weight.dim()))]
        if layer.bias is not None:
            inputs.append(self._bias(layer, name))
        self._node(
            "Conv",
            name,
            inputs,
            shape,
            kernel_shape=layer.kernel_size,
            strides=layer.stride,
            pads=as_tuple(layer.padding) * 2,
            dilations=layer.dilation,
            group=layer.groups,
        )

    def _conv_transpose(self, layer: Any, name: str, x: str, shape: tuple[int, ...]) -> None:
        quantizer = _quantizer(layer.weight_quant, f"{name}.weight")
        order = range(layer.weight.dim())
        weight = self._parameter(f"{name}.weight", layer.weight, quantizer, order, quantizer.axis)
        self._node(
            "ConvTranspose",
            name,
            [x, weight] if layer.bias is None else [x, weight, self._bias(layer, name)],
            shape,
            kernel_shape=layer.kernel_size,
            strides=layer.stride,
            pads=as_tuple(layer.padding) * 2,
            output_padding=layer.output_padding,
            dilations=layer.dilation,
            group=layer.groups,
        )

    def _bias(self, layer: Any, name: str) -> str:
        name = f"{name}.bias"
        return self._parameter(name, layer.bias, _quantizer(layer.bias_quant, name), (0,))

    def _batch_norm(self, layer: QuantBatchNorm, name: str, x: str, shape: tuple[int, ...]) -> None:
        scale, bias = (
            self._constant_quant(f"{name}.{part}", _channels(value, shape), quantizer, channel_axis=1)
            for part, value, quantizer in zip(
                ("scale", "bias"),
                layer.constants(),
                (layer.scale_quantizer, layer.bias_quantizer),
                strict=True,
            )
        )
        product = self._node("Mul", f"{name}.mul", (x, scale), shape)
        total = self._node("Add", f"{name}.add", (product, bias), shape)
        self._result(layer.result, name, total, shape)

    def _average_pool(self, layer: QuantAvgPool, name: str, x: str, node: fx.Node) -> None:
        """The window's sum as a depthwise convolution of ones, times the constant."""
        shape = _shape(node)
        window = layer.window(_shape(node.all_input_nodes[0])[2:])
        ones = self._quantised(
            f"{name}.ones", np.ones((shape[1], 1, *window.kernel)), Fixed(1, 1, signed=False), np.array(1.0)
        )
        total = self._node(
            "Conv",
            f"{name}.sum",
            (x, ones),
            shape,
            kernel_shape=window.kernel,
            strides=window.stride,
            pads=window.padding * 2,
            dilations=(1,) * len(window.kernel),
            group=shape[1],
        )
        mean = self._times(layer.reciprocal(window.area), name, total, shape)
        self._result(layer.result, name, mean, shape)

    def _times(self, constant: Reciprocal, name: str, x: str, shape: tuple[int, ...]) -> str:
        """A sum times the constant that makes a mean of it."""
        value, unit = np.array(constant.value), np.ldexp(1.0, -np.array(constant.fraction))
        multiplier = self._quantised(f"{name}.multiplier", value, constant.format, unit)
        return self._node("Mul", f"{name}.mul", (x, multiplier), shape)

    def _total(self, layer: QuantTotal, name: str, x: str, node: fx.Node) -> None:
        shape = _shape(node)
        axes = self._initializer(f"{name}.axes", np.array(layer.axes, dtype=np.int64))
        total = self._node("ReduceSum", f"{name}.sum", (x, axes), shape, keepdims=1)
        if layer.mean:
            total = self._times(layer.reciprocal(_shape(node.all_input_nodes[0])), name, total, shape)
        self._result(layer.result, name, total, shape)

    def _affine(self, layer: QuantAffine, name: str, x: str, shape: tuple[int, ...]) -> None:
        """The product and the sum with constants, where there are any."""
        for op, part, value, quantizer in (
            ("Mul", "gain", layer.gain, layer.gain_quantizer),
            ("Add", "offset", layer.offset, layer.offset_quantizer),
        ):
            if value is not None and quantizer is not None:
                constant = self._parameter(f"{name}.{part}", value, quantizer, range(value.dim()))
                x = self._node(op, f"{name}.{op.lower()}", (x, constant), shape)
        self._result(layer.result, name, x, shape)

    def _function(self, layer: QuantFunction, name: str, x: str, shape: tuple[int, ...]) -> None:
        """The function's operations, one after the other."""
        tensors = {INPUT: x}
        for step in layer.function.steps:
            inputs = [tensors[operand] for operand in step.inputs]
            attributes = dict(step.attributes)
            if step.op == "Clip":
                inputs += self._bounds(f"{name}.{step.output}", attributes.pop("min"), attributes.pop("max"))
            tensors[step.output] = self._node(step.op, f"{name}.{step.output}", inputs, shape, **attributes)
        self._result(layer.result, name, tensors[layer.function.steps[-1].output], shape)

    def _bounds(self, name: str, low: float, high: float) -> list[str]:
        """A Clip's bounds; none where it is infinite."""
        names = [
            "" if np.isinf(value) else self._constant(f"{name}.{bound}", np.array(value))
            for bound, value in (("low", low), ("high", high))
        ]
        return names if names[1] else names[:1]

    def _prelu(self, layer: QuantPReLU, name: str, x: str, shape: tuple[int, ...]) -> None:
        slopes = (
            layer.weight.reshape(-1, *[1] * (len(shape) - 2)) if layer.weight.numel() > 1 else layer.weight
        )
        stored = self._parameter(f"{name}.slope", slopes, layer.scale_quantizer, range(slopes.dim()))
        y = self._node("PRelu", f"{name}.prelu", (x, stored), shape)
        self._result(layer.result, name, y, shape)

    # --- moves

    def _concat(self, layer: QuantConcat, name: str, inputs: Sequence[str], node: fx.Node) -> None:
        """Joined, then quantised; along axes other than the channels', which share a scale, before."""
        shape = _shape(node)
        if layer.axis == 1:
            joined = self._node("Concat", f"{name}.concat", inputs, shape, axis=layer.axis)
            self._result(layer.result, name, joined, shape)
            return
        branches = [source for source in node.args if isinstance(source, fx.Node)]
        parts = [
            self._result(layer.result, f"{name}.part{i}", x, _shape(source))
            for i, (x, source) in enumerate(zip(inputs, branches, strict=True))
        ]
        self._node("Concat", name, parts, shape, axis=layer.axis)

    def _largest(self, name: str, x: str, shape: tuple[int, ...], axes: Sequence[int]) -> None:
        if self.opset < AXES_ARE_INPUTS:
            self._node("ReduceMax", name, (x,), shape, axes=axes, keepdims=1)
        else:
            stored = self._initializer(f"{name}.axes", np.array(axes, dtype=np.int64))
            self._node("ReduceMax", name, (x, stored), shape, keepdims=1)

    def _resize(self, name: str, x: str, shape: tuple[int, ...], factors: Sequence[int], mode: str) -> str:
        """Upsampling by whole factors: each number repeated, or the pixels seen as areas."""
        scales = self._initializer(f"{name}.scales", np.array((1, 1, *factors), dtype=np.float32))
        nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        how = nearest if mode == "nearest" else {"coordinate_transformation_mode": "half_pixel"}
        return self._node("Resize", name, (x, "", scales), shape, mode=mode, **how)

    def _pad(self, layer: Pad, name: str, x: str, shape: tuple[int, ...], value: float) -> None:
        pads = np.array((0, *layer.before, 0, *layer.behind), dtype=np.int64)
        inputs = [x, self._initializer(f"{name}.pads", pads)]
        if value:
            inputs.append(self._constant(f"{name}.value", np.array(value)))
        self._node("Pad", name, inputs, shape, mode="constant")

    def _slice(self, layer: Slice, name: str, x: str, shape: tuple[int, ...]) -> None:
        numbers = {"starts": layer.start, "ends": layer.stop, "axes": layer.axis, "steps": layer.step}
        stored = [
            self._initializer(f"{name}.{part}", np.array([number], dtype=np.int64))
            for part, number in numbers.items()
        ]
        self._node("Slice", name, (x, *stored), shape)

    def _pixel_unshuffle(self, layer: nn.PixelUnshuffle, name: str, x: str, node: fx.Node) -> None:
        """ONNX's SpaceToDepth orders channels otherwise: blocks taken apart, moved, joined."""
        _, channels, height, width = _shape(node.all_input_nodes[0])
        block = layer.downscale_factor
        apart = (1, channels, height // block, block, width // block, block)
        order = (0, 1, 3, 5, 2, 4)
        self._reshape(f"{name}.blocks", x, apart)
        moved = tuple(apart[axis] for axis in order)
        self._node("Transpose", f"{name}.moved", (f"{name}.blocks",), moved, perm=order)
        self._reshape(name, f"{name}.moved", _shape(node))

    def _max_pool(self, layer: Any, name: str, x: str, node: fx.Node) -> None:
        """Where windows reach beyond the input (ceil_mode), it is padded by so much more behind."""
        shape, before = _shape(node), _shape(node.all_input_nodes[0])[2:]
        axes = len(shape) - 2
        sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        kernel, strides, padding, dilations = (as_tuple(size, axes) for size in sizes)
        reach = [
            (out - 1) * stride + dilation * (size - 1) + 1
            for out, stride, dilation, size in zip(shape[2:], strides, dilations, kernel, strict=True)
        ]
        behind = [max(p, r - n - p) for p, r, n in zip(padding, reach, before, strict=True)]
        self._node(
            "MaxPool",
            name,
            (x,),
            shape,
            kernel_shape=kernel,
            strides=strides,
            pads=(*padding, *behind),
            dilations=dilations,
        )

    def _reshape(self, name: str, x: str, shape: tuple[int, ...]) -> None:
        if len(shape) == 2:
            self._node("Flatten", name, (x,), shape, axis=1)
        else:
            target = np.array((0, *shape[1:]), dtype=np.int64)  # 0: the batch axis stays
            self._node("Reshape", name, (x, self._initializer(f"{name}.shape", target)), shape)

    # --- quantizers

    def _result(self, quantizer: Quantizer, name: str, x: str, shape: tuple[int, ...]) -> str:
        """The activation, if any, and the Quant node that writes the layer's result."""
        x = self._activation(quantizer.activation, name, x, shape)
        unit = _unit(quantizer, len(shape), channel_axis=1)
        return self._quant(name, x, _spec(quantizer), unit, shape)

    def _activation(self, activation: Activation, name: str, x: str, shape: tuple[int, ...]) -> str:
        if activation.is_identity:
            return x
        if activation.slope != 0.0:
            return self._node("LeakyRelu", f"{name}.leaky_relu", (x,), shape, alpha=activation.slope)
        if activation.cap == float("inf"):
            return self._node("Relu", f"{name}.relu", (x,), shape)
        bounds = self._bounds(name, 0.0, activation.cap)
        return self._node("Clip", f"{name}.clip", (x, *bounds), shape)

    def _parameter(
        self, name: str, value: Tensor, quantizer: Quantizer, order: Iterable[int], channel_axis: int = 0
    ) -> str:
        """A weight or bias, its axes in another order."""
        stored = _stored(value.detach(), quantizer).permute(tuple(order))
        return self._constant_quant(name, stored, quantizer, channel_axis)

    def _constant_quant(self, name: str, value: Tensor, quantizer: Quantizer, channel_axis: int) -> str:
        unit = _unit(quantizer, value.dim(), channel_axis)
        return self._quantised(name, value.detach().numpy(), _spec(quantizer), unit)

    def _quantised(self, name: str, value: NDArray[Any], spec: Format, unit: NDArray[Any]) -> str:
        stored = self._constant(name, value)
        name = f"{name}.quant"
        if isinstance(spec, Binary):
            step = self._constant(f"{name}.step", unit)
            return self._node("BipolarQuant", name, (stored, step), value.shape, domain=QONNX_DOMAIN)
        if isinstance(spec, TableFormat) and (plain := plain_integer(spec)) is not None:
            # Any tool reads the numbers, which are on the finer grid already; the format is told beside them.
            result = self._quant(name, stored, plain, unit, value.shape)
            self.nodes[-1].metadata_props.add(key=FORMAT_KEY, value=str(spec))
            return result
        return self._quant(name, stored, spec, unit, value.shape)

    def _quant(
        self, name: str, x: str, spec: Format, unit: NDArray[Any], shape: tuple[int, ...] | torch.Size
    ) -> str:
        """Bring a tensor into a format: by QONNX's Quant or FloatQuant where they can say it.

        ``unit`` is what a mantissa of 1 stands for.
        """
        if isinstance(spec, TableFormat):
            scale = self._constant(f"{name}.step", np.ldexp(unit, -spec.exponent))
            if not isinstance(spec, Minifloat) or not in_float_quant(spec):
                return self._node("FormatQuant", name, (x, scale), shape, domain=DOMAIN, format=str(spec))
            return self._float_quant(name, x, spec, scale, shape)
        assert isinstance(spec, Fixed)
        if not in_qonnx(spec):
            return self._fixed_quant(name, x, spec, unit, shape)
        return self._node(
            "Quant",
            name,
            (
                x,
                self._constant(f"{name}.step", unit),
                self._constant(f"{name}.zero_point", np.array(0.0)),
                self._constant(f"{name}.bits", np.array(float(spec.width))),
            ),
            shape,
            domain=QONNX_DOMAIN,
            signed=int(spec.signed),
            narrow=int(spec.signed and spec.overflow is Overflow.SAT_SYM),
            rounding_mode=ROUNDING_MODES[spec.rounding],
        )

    def _fixed_quant(
        self, name: str, x: str, spec: Fixed, unit: NDArray[Any], shape: tuple[int, ...] | torch.Size
    ) -> str:
        """qhw's FixedQuant, of which fraction bits say a power of two; any other scale is an input."""
        mantissa, exponent = np.frexp(unit)
        fraction = (1 - exponent).astype(np.int64)
        more: list[str] = []
        if (mantissa != 0.5).any():
            more, integer = ["", self._constant(f"{name}.step", unit)], spec.width
        elif unit.ndim:
            more, integer = [self._initializer(f"{name}.fraction", fraction)], 0
        else:
            integer = spec.width - int(fraction)
        return self._node(
            "FixedQuant",
            name,
            (x, *more),
            shape,
            domain=DOMAIN,
            width=spec.width,
            integer=integer,
            signed=int(spec.signed),
            rounding=spec.rounding.value,
            overflow=spec.overflow.value,
        )

    def _float_quant(
        self, name: str, x: str, spec: Minifloat, scale: str, shape: tuple[int, ...] | torch.Size
    ) -> str:
        largest = float(spec.quantize(np.inf))
        parameters = {
            "exponent_bits": spec.exponent_bits,
            "mantissa_bits": spec.mantissa_bits,
            "exponent_bias": spec.exponent_bias,
            "max_val": largest,
        }
        stored = [self._constant(f"{name}.{key}", np.array(float(v))) for key, v in parameters.items()]
        return self._node(
            "FloatQuant",
            name,
            (x, scale, *stored),
            shape,
            domain=QONNX_DOMAIN,
            has_inf=int(spec.has_infinity),
            has_nan=int(spec.has_nan),
            has_subnormal=int(spec.subnormals),
            saturation=1,
            rounding_mode=ROUNDING_MODES[spec.rounding],
        )

    # --- writing

    def _node(
        self,
        op: str,
        name: str,
        inputs: Sequence[str],
        shape: tuple[int, ...] | torch.Size,
        domain: str | None = None,
        **attributes: Any,
    ) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, domain=domain, **attributes))
        self.shapes[name] = tuple(shape)
        return name

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        single = value.astype(np.float32)
        if not np.array_equal(single.astype(np.float64), value):
            raise UnsupportedError(
                f"{name} needs more bits than float32, QONNX's type of tensors, has", allowed="up to 24 bits"
            )
        return self._initializer(name, single)

    def _initializer(self, name: str, value: NDArray[Any]) -> str:
        self.initializers.append(
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        )
        return name


CONVOLUTIONS = (qnn.QuantConv1d, qnn.QuantConv2d)
TRANSPOSED = (qnn.QuantConvTranspose1d, qnn.QuantConvTranspose2d)


def _opsets_of_functions(model: fx.GraphModule) -> set[int]:
    """The ONNX opsets that came with the operations of a model's functions."""
    functions = [module.function for module in model.modules() if isinstance(module, QuantFunction)]
    return {OPSETS.get(step.op, ONNX_OPSET) for function in functions for step in function.steps}


def in_qonnx(spec: Fixed) -> bool:
    """Whether QONNX's Quant can say a format's modes; of one signed bit, it makes -1 and +1."""
    saturates = spec.overflow in (Overflow.SAT, Overflow.SAT_SYM)
    return saturates and spec.rounding in ROUNDING_MODES and not (spec.signed and spec.width == 1)


def in_float_quant(spec: Minifloat) -> bool:
    """Whether QONNX's FloatQuant can say a minifloat."""
    return spec.special is not Special.FNUZ and spec.rounding in ROUNDING_MODES


def plain_integer(spec: TableFormat) -> Fixed | None:
    """The integers of which a format that is no minifloat keeps some; None where float32 has not as many."""
    bits = spec.mantissa_high.bit_length() + 1
    return None if isinstance(spec, Minifloat) or bits > 24 else Fixed(bits, bits)


def _spec(quantizer: Quantizer) -> Format:
    """The format to write: with its learned bias, where that is one for the whole tensor."""
    format = quantizer.format
    return format if isinstance(quantizer, TableQuantizer) and isinstance(format, Format) else quantizer.spec


def _quantizer(proxy: Any, where: str) -> Quantizer:
    """The quantizer of qhw in a Brevitas layer."""
    quantizer = getattr(proxy, "quantizer", None)
    if not isinstance(quantizer, Quantizer):
        raise UnsupportedError(
            f"{where} has no quantizer of qhw, while other layers of the model do",
            allowed="one of qhw.quantizers' weight_quantizer, bias_quantizer, activation_quantizer",
        )
    return quantizer


def _check_started(quantizers: Mapping[str, Quantizer]) -> None:
    for where, quantizer in quantizers.items():
        try:
            quantizer.check_started()
        except InputError as error:
            raise InputError(f"{where}: {error.message}", allowed=error.allowed, hint=error.hint) from error


def _unit(quantizer: Quantizer, rank: int, channel_axis: int) -> NDArray[np.float64]:
    """What a mantissa of 1 stands for, as an array that broadcasts over a tensor of that rank."""
    if not quantizer.per_channel:
        return quantizer.unit.reshape(())
    shape = [1] * rank
    shape[channel_axis] = -1
    return quantizer.unit.reshape(shape)


def _stored(value: Tensor, quantizer: Quantizer) -> Tensor:
    """The numbers of a weight or bias that its quantizer node reads.

    On the grid already, so that any tool reads them; but at a free scale, where float32 rounds such numbers,
    those that torch quantises itself. Only of k-hot and the like, whose node has the finer grid of integers,
    they are quantised first.
    """
    if not quantizer.is_free:
        return quantizer.quantize(value.double())
    plain = isinstance(quantizer.spec, TableFormat) and plain_integer(quantizer.spec) is not None
    return (
        quantizer.quantize(value.float())
        if plain and not isinstance(quantizer.spec, Binary)
        else value.float()
    )


def _channels(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    return values.reshape(1, -1, *[1] * (len(shape) - 2))


def _shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's result for one sample, with the batch axis."""
    return (1, *node.meta["shape"])


def _value_info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _graph_of_layers(model: nn.Module, example: Example | None) -> fx.GraphModule:
    """A module that a user has put together from quantised layers, as a graph of them."""
    plain = plain_tensors(copy.deepcopy(model))
    return graph_of(plain, _required(model, example), leaves=("brevitas.nn", "qhw.layers"))


def _required(model: nn.Module, example: Example | None) -> Example:
    if example is None:
        raise InputError(f"{type(model).__name__} needs an example input to be exported")
    return example


def _from_brevitas(model: nn.Module, example: Example | None) -> bytes:
    """A user's own Brevitas model, as Brevitas writes it."""
    if not any(isinstance(module, QuantLayerMixin) for module in model.modules()):
        raise InputError(
            f"{type(model).__name__} is not quantised",
            hint="convert it first: qhw.convert(model, config, example)",
        )
    from brevitas.export import export_qonnx as brevitas_export

    arguments = tuple(part[:1] for part in example_inputs(_required(model, example)))
    named = {"input_names": list(arguments_of(model, len(arguments)))} if len(arguments) > 1 else {}
    try:
        exported = brevitas_export(
            copy.deepcopy(model).eval(), args=arguments, opset_version=ONNX_OPSET, dynamo=False, **named
        )
    except Exception as error:  # whatever Brevitas or torch raise on a model that they cannot export
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedError(f"Brevitas cannot export {type(model).__name__}: {reason}") from error
    data: bytes = exported.SerializeToString(deterministic=True)
    return data
