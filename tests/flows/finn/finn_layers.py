"""Dataflow models of FINN's operators, layer by layer, with what NumPy computes for every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.util.basic import qonnx_make_model

Array = NDArray[Any]

PART = "xczu3eg-sbva484-1-e"
VECTORS = 3


def programs(factory: pytest.TempPathFactory) -> Path:
    """One folder of compiled simulations for all tests."""
    return factory.getbasetemp() / "finn-programs"


class Layers:
    """A model that grows; its methods add a layer each, and return the names of its outputs."""

    def __init__(self) -> None:
        self.values: dict[str, Array] = {}
        self.types: dict[str, str] = {}
        self.constants: dict[str, Array] = {}
        self.nodes: list[Any] = []
        self.inputs: list[str] = []
        self.random = np.random.default_rng(5)

    def input(self, *shape: int, kind: str = "UINT8") -> str:
        name = f"x{len(self.inputs)}"
        low, high = int(DataType[kind].min()), int(DataType[kind].max())
        self._tensor(name, self.random.integers(low, high, (VECTORS, *shape), endpoint=True), kind)
        self.inputs.append(name)
        return name

    def pad(self, x: str, frame: Sequence[int], simd: int) -> str:
        top, left, bottom, right = frame
        v = self.values[x]
        y = np.pad(v, ((0, 0), (top, bottom), (left, right), (0, 0)))
        sizes = {"ImgDim": list(v.shape[1:3]), "Padding": list(frame), "NumChannels": v.shape[3]}
        return self.add(
            "FMPadding_rtl", [x], [(y, self.types[x])], SIMD=simd, inputDataType=self.types[x], **sizes
        )[0]

    def windows(
        self, x: str, kernel: Sequence[int], simd: int, stride: int = 1, dilation: int = 1, **more: int
    ) -> str:
        v, kind = self.values[x], self.types[x]
        reach = [(size - 1) * dilation + 1 for size in kernel]
        view = np.lib.stride_tricks.sliding_window_view(v, reach, axis=(1, 2))
        view = view[:, ::stride, ::stride, :, ::dilation, ::dilation]
        y = view.transpose(0, 1, 2, 4, 5, 3).reshape(*view.shape[:3], -1)
        sizes = {
            "ConvKernelDim": list(kernel),
            "IFMChannels": v.shape[3],
            "IFMDim": list(v.shape[1:3]),
            "OFMDim": list(y.shape[1:3]),
            "Stride": [stride, stride],
            "Dilation": [dilation, dilation],
        }
        types = {"inputDataType": kind, "outputDataType": kind}
        return self.add(
            "ConvolutionInputGenerator_rtl", [x], [(y, kind)], SIMD=simd, **sizes, **types, **more
        )[0]

    def product(
        self,
        x: str,
        outputs: int,
        pe: int,
        simd: int,
        backend: str = "rtl",
        weights: str = "INT4",
        sums: str = "INT24",
    ) -> str:
        v = self.values[x]
        w = self._constant((v.shape[-1], outputs), weights)
        return self.add(
            f"MVAU_{backend}",
            [x, w],
            [(v @ self.constants[w], sums)],
            MW=v.shape[-1],
            MH=outputs,
            PE=pe,
            SIMD=simd,
            inputDataType=self.types[x],
            weightDataType=weights,
            outputDataType=sums,
            accDataType=sums,
            noActivation=1,
            mem_mode="internal_decoupled",
            numInputVectors=[1, *v.shape[1:-1]],
        )[0]

    def depthwise(self, windows: str, kernel: Sequence[int], pe: int) -> str:
        v = self.values[windows]
        positions = int(np.prod(kernel))
        channels = v.shape[-1] // positions
        w = self._constant((channels, 1, *kernel), "INT4")
        parts = v.reshape(*v.shape[:3], positions, channels)
        y = np.einsum("nhwpc,cp->nhwc", parts, self.constants[w].reshape(channels, positions))
        return self.add(
            "VVAU_hls",
            [windows, w],
            [(y, "INT20")],
            Channels=channels,
            Kernel=list(kernel),
            Dim=list(v.shape[1:3]),
            PE=pe,
            SIMD=1,
            inputDataType=self.types[windows],
            weightDataType="INT4",
            outputDataType="INT20",
            accDataType="INT20",
            noActivation=1,
            mem_mode="internal_decoupled",
        )[0]

    def thresholds(self, x: str, kind: str, pe: int) -> str:
        v, result = self.values[x], DataType[kind]
        steps, low = int(result.max() - result.min()), int(result.min())
        spread = self.random.integers(v.min(), v.max(), (v.shape[-1], steps), endpoint=True)
        table = np.sort(spread, axis=1)
        name = self._named("T", table, self.types[x])
        y = low + (v[..., None] >= table).sum(axis=-1)
        return self.add(
            "Thresholding_rtl",
            [x, name],
            [(y, kind)],
            NumChannels=v.shape[-1],
            PE=pe,
            numSteps=steps,
            ActVal=low,
            inputDataType=self.types[x],
            weightDataType=self.types[x],
            outputDataType=kind,
            numInputVectors=[1, *v.shape[1:-1]],
        )[0]

    def reshape(self, x: str, shape: Sequence[int], pe: int) -> str:
        v = self.values[x]
        y, before = v.reshape(len(v), *shape), [1, *v.shape[1:]]
        sizes = {"inp_shape": before, "out_shape": [1, *shape], "dtype": self.types[x]}
        return self.add("Reshape_rtl", [x], [(y, self.types[x])], PE=pe, **sizes)[0]

    def turned(self, x: str, simd: int) -> str:
        """The last two axes swapped."""
        v = self.values[x]
        sizes = {"in_shape": [1, *v.shape[1:]], "transpose_in_shape": [1, *v.shape[1:]], "perm": [0, 1, 3, 2]}
        kind = {"data_type": self.types[x], "I": v.shape[2], "J": v.shape[3]}
        y = v.swapaxes(2, 3)
        return self.add("InnerShuffle_rtl", [x], [(y, self.types[x])], SIMD=simd, **sizes, **kind)[0]

    def crop(self, x: str, around: Sequence[int], simd: int) -> str:
        top, left, bottom, right = around
        v = self.values[x]
        y = v[:, top : v.shape[1] - bottom, left : v.shape[2] - right]
        sizes = {"ImgDim": list(v.shape[1:3]), "NumChannels": v.shape[3], "DataType": self.types[x]}
        edges = {"CropNorth": top, "CropWest": left, "CropSouth": bottom, "CropEast": right}
        return self.add(
            "Crop_rtl", [x], [(y, self.types[x])], SIMD=simd, numInputVectors=[1], **sizes, **edges
        )[0]

    def enlarged(self, x: str, factors: Sequence[int], simd: int) -> str:
        v = self.values[x]
        y = v.repeat(factors[0], axis=1).repeat(factors[1], axis=2)
        sizes = {"HI": v.shape[1], "WI": v.shape[2], "HO": y.shape[1], "WO": y.shape[2]}
        style = {"cpp_interface": "hls_vector", "hls_style": "freerunning", "inputDataType": self.types[x]}
        kind, channels = "UpsampleNearestNeighbour_hls", v.shape[3]
        return self.add(kind, [x], [(y, self.types[x])], SIMD=simd, NumChannels=channels, **sizes, **style)[0]

    def spread(self, x: str, strides: Sequence[int], simd: int) -> str:
        """Zeros between the pixels."""
        v = self.values[x]
        y = np.zeros(
            (len(v), *((n - 1) * s + 1 for n, s in zip(v.shape[1:3], strides, strict=True)), v.shape[3])
        )
        y[:, :: strides[0], :: strides[1]] = v
        sizes = {"ImgDim": list(v.shape[1:3]), "Stride": list(strides), "NumChannels": v.shape[3]}
        kind = {"inputDataType": self.types[x]}
        return self.add("FMPadding_Pixel_hls", [x], [(y, self.types[x])], SIMD=simd, **sizes, **kind)[0]

    def duplicate(self, x: str, pe: int, copies: int = 2) -> list[str]:
        v = self.values[x]
        sizes = {"NumChannels": v.shape[-1], "NumOutputStreams": copies, "PE": pe, **self._each(x)}
        style = {"cpp_interface": "hls_vector", "hls_style": "freerunning"}
        return self.add("DuplicateStreams_hls", [x], [(v, self.types[x])] * copies, **sizes, **style)

    def added(self, a: str, b: str, kind: str, pe: int) -> str:
        y = self.values[a] + self.values[b]
        return self._elementwise("ElementwiseAdd_hls", a, b, y, kind, pe)

    def scaled(self, x: str, factors: Array, constant: str, kind: str, pe: int) -> str:
        c = self._named("c", factors, constant)
        y = self.values[x] * factors
        return self._elementwise("ElementwiseMul_hls", x, c, y, kind, pe)

    def pooled(self, windows: str, kernel: Sequence[int], function: str, kind: str, pe: int) -> str:
        v = self.values[windows]
        positions = int(np.prod(kernel))
        parts = v.reshape(*v.shape[:3], positions, -1)
        y = parts.max(axis=3) if function == "MaxPool" else parts.sum(axis=3)
        return self.add(
            "Pool_hls",
            [windows],
            [(y, kind)],
            Channels=y.shape[-1],
            PE=pe,
            KernelSize=list(kernel),
            Function=function,
            OutImgDims=list(y.shape[1:3]),
            InputDataType=self.types[windows],
            OutputDataType=kind,
            cpp_interface="hls_vector",
        )[0]

    def total(self, x: str, kind: str, pe: int) -> str:
        """The sum of every channel; FINN chooses the type, which must be ``kind``."""
        v = self.values[x]
        y = v.sum(axis=(1, 2), keepdims=True)
        return self.add(
            "GlobalAccPool_hls", [x], [(y, kind)], NumChannels=v.shape[-1], PE=pe, **self._each(x)
        )[0]

    def concat(self, parts: Sequence[str], simd: int) -> str:
        values = [self.values[part] for part in parts]
        sizes = {
            "ChannelsPerStream": [v.shape[-1] for v in values],
            "inputDataTypes": [self.types[part] for part in parts],
            "numInputVectors": [1, *values[0].shape[1:-1]],
        }
        style = {"cpp_interface": "hls_vector", "hls_style": "freerunning"}
        y = np.concatenate(values, axis=-1)
        return self.add(
            "StreamingConcat_hls", list(parts), [(y, self.types[parts[0]])], SIMD=simd, **sizes, **style
        )[0]

    def split(self, x: str, channels: Sequence[int], simd: int) -> list[str]:
        parts = np.split(self.values[x], np.cumsum(channels)[:-1], axis=-1)
        style = {"cpp_interface": "hls_vector", "hls_style": "freerunning"}
        results = [(part, self.types[x]) for part in parts]
        sizes = {"ChannelsPerStream": list(channels), **self._each(x)}
        return self.add("StreamingSplit_hls", [x], results, SIMD=simd, **sizes, **style)

    def add(
        self, kind: str, inputs: list[str], outputs: list[tuple[Array, str]], **attributes: Any
    ) -> list[str]:
        layer = f"{kind}_{sum(node.op_type == kind for node in self.nodes)}"
        names = [f"{layer}_out{index}" for index in range(len(outputs))]
        for name, (values, type_) in zip(names, outputs, strict=True):
            self._tensor(name, values, type_)
        domain = f"finn.custom_op.fpgadataflow.{kind.rsplit('_', 1)[1]}"
        node = helper.make_node(
            kind, inputs, names, name=layer, domain=domain, backend="fpgadataflow", **attributes
        )
        self.nodes.append(node)
        return names

    def model(self) -> ModelWrapper:
        read = {name for node in self.nodes for name in node.input}
        ends = [name for node in self.nodes for name in node.output if name not in read]
        graph = helper.make_graph(
            self.nodes,
            "layers",
            [self._info(name) for name in self.inputs],
            [self._info(name) for name in ends],
        )
        model = ModelWrapper(qonnx_make_model(graph))
        for name, values in self.values.items():
            model.set_tensor_shape(name, [1, *values.shape[1:]])
        for name, array in self.constants.items():
            model.set_initializer(name, array.astype(np.float32))
        for name, kind in self.types.items():
            model.set_tensor_datatype(name, DataType[kind])
        return model

    def _elementwise(self, kind: str, a: str, b: str, y: Array, type_: str, pe: int) -> str:
        def shape(name: str) -> list[int]:
            return (
                list(self.constants[name].shape)
                if name in self.constants
                else [1, *self.values[name].shape[1:]]
            )

        return self.add(
            kind,
            [a, b],
            [(y, type_)],
            PE=pe,
            lhs_shape=shape(a),
            rhs_shape=shape(b),
            out_shape=[1, *y.shape[1:]],
            lhs_dtype=self.types[a],
            rhs_dtype=self.types[b],
            out_dtype=type_,
            lhs_style="input",
            rhs_style="const" if b in self.constants else "input",
        )[0]

    def _each(self, x: str) -> dict[str, Any]:
        return {"inputDataType": self.types[x], "numInputVectors": [1, *self.values[x].shape[1:-1]]}

    def _tensor(self, name: str, values: Array, kind: str) -> None:
        self.values[name] = values.astype(np.float32)
        self.types[name] = kind

    def _constant(self, shape: tuple[int, ...], kind: str) -> str:
        low, high = int(DataType[kind].min()), int(DataType[kind].max())
        return self._named("W", self.random.integers(low, high, shape, endpoint=True), kind)

    def _named(self, letter: str, array: Array, kind: str) -> str:
        name = f"{letter}{len(self.constants)}"
        self.constants[name], self.types[name] = array.astype(np.float32), kind
        return name

    def _info(self, name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *self.values[name].shape[1:]])
