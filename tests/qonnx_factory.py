"""Small QONNX models for tests, written node by node with onnx.helper, and their execution by qonnx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

QONNX = "qonnx.custom_op.general"
QHW = "qhw.onnx_ops"


class Net:
    """Appends nodes; every method returns the name of the tensor that it wrote."""

    def __init__(
        self, shape: Sequence[int], *, opset: int = 13, dtype: int = TensorProto.FLOAT, batch: Any = 1
    ):
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.annotations: dict[str, str] = {}
        self.inputs = [helper.make_tensor_value_info("x", dtype, [batch, *shape])]
        self.x = "x"

    def constant(self, value: Any, name: str | None = None, dtype: Any = np.float32) -> str:
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def node(
        self,
        op: str,
        *inputs: Any,
        outputs: int = 1,
        domain: str = "",
        name: str | None = None,
        **options: Any,
    ) -> Any:
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        name = name or f"{op.lower()}{len(self.nodes)}"
        out = [f"{name}_out" if outputs == 1 else f"{name}_out{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, out, name=name, domain=domain, **options))
        return out[0] if outputs == 1 else out

    def quant(
        self,
        x: Any,
        bits: float,
        scale: Any = 1.0,
        *,
        zero: Any = 0.0,
        signed: int = 1,
        narrow: int = 0,
        rounding: str = "ROUND",
        op: str = "Quant",
        name: str | None = None,
    ) -> str:
        return self.node(
            op,
            x,
            scale,
            zero,
            bits,
            domain=QONNX,
            signed=signed,
            narrow=narrow,
            rounding_mode=rounding,
            name=name,
        )

    def fixed_quant(
        self,
        x: Any,
        width: int,
        integer: int,
        *,
        signed: int = 1,
        rounding: str = "RND_CONV",
        overflow: str = "SAT",
        fraction: Any = None,
    ) -> str:
        more = [] if fraction is None else [np.asarray(fraction)]
        return self.node(
            "FixedQuant",
            x,
            *more,
            domain=QHW,
            width=width,
            integer=integer,
            signed=signed,
            rounding=rounding,
            overflow=overflow,
        )

    def float_quant(
        self,
        x: Any,
        exponent_bits: float,
        mantissa_bits: float,
        scale: Any = 1.0,
        *,
        bias: float | None = None,
        largest: float | None = None,
        rounding: str = "ROUND",
        name: str | None = None,
        **options: int,
    ) -> str:
        bias = 2.0 ** (exponent_bits - 1) - 1 if bias is None else bias
        top = 2.0 ** (2.0**exponent_bits - 1 - bias) * (2 - 2.0**-mantissa_bits)
        parameters = (scale, exponent_bits, mantissa_bits, bias, top if largest is None else largest)
        flags = {"has_inf": 0, "has_nan": 0, "has_subnormal": 1, "saturation": 1} | options
        return self.node(
            "FloatQuant", x, *parameters, domain=QONNX, rounding_mode=rounding, name=name, **flags
        )

    def format_quant(self, x: Any, format: str, scale: Any = 1.0, *, name: str | None = None) -> str:
        return self.node("FormatQuant", x, scale, domain=QHW, format=format, name=name)

    def model(self, *outputs: str, opsets: dict[str, int] | None = None) -> ModelProto:
        declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, declared, initializer=self.constants)
        versions = {"": self.opset, QONNX: 2, QHW: 1} | (opsets or {})
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid(d, v) for d, v in versions.items()]
        )
        model.ir_version = 8
        wrapper = ModelWrapper(model)
        from qonnx.core.datatype import DataType

        for tensor, datatype in self.annotations.items():
            wrapper.set_tensor_datatype(tensor, DataType[datatype])
        return wrapper.model


def execute(model: ModelProto | ModelWrapper, x: np.ndarray) -> list[np.ndarray]:
    """qonnx's own execution on a whole batch, every output."""
    wrapper = model if isinstance(model, ModelWrapper) else ModelWrapper(model)
    copy = ModelProto()
    copy.CopyFrom(wrapper.model)
    copy.graph.input[0].type.tensor_type.shape.dim[0].dim_value = len(x)
    del copy.graph.value_info[:]
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    wrapper = ModelWrapper(copy).transform(InferShapes())
    results = execute_onnx(wrapper, {wrapper.graph.input[0].name: x})
    return [results[output.name] for output in wrapper.graph.output]
