"""Random small QONNX files over everything that the file route takes, with inputs that cover their ranges.

A file is made from a seed and a kind, and is the same wherever it is made: nothing of qhw is imported here.

- ``power``: every scale is a power of two, every constant a short binary number (functions such as Sigmoid
  stand between quantizers of few bits);
- ``free``: scales are any float32 numbers, and so are biases and batch norms;
- ``mixed``: each layer and each quantizer is of one or the other sort;
- ``wide_power``, ``wide_mixed``: the same with sums beyond 24 bits;
- ``new_power``, ``new_mixed``: the same with QuantizeLinear and DequantizeLinear, transposed convolutions,
  nearest neighbours, and depth moved to space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, StringStringEntryProto, TensorAnnotation, TensorProto, helper
from onnx import numpy_helper as arrays

KINDS = ("power", "free", "mixed", "wide_power", "wide_mixed")
NEW_KINDS = ("new_power", "new_mixed")

QONNX = "qonnx.custom_op.general"
QHW = "qhw.onnx_ops"
SAMPLES = 6
ROUNDINGS = ("ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")
FIXED_ROUNDINGS = ("RND", "RND_ZERO", "RND_MIN_INF", "RND_INF", "RND_CONV", "TRN", "TRN_ZERO")
FORMATS = {
    "e4m3": 480.0,
    "e3m2": 28.0,
    "e2m1": 6.0,
    "e4m3fn": 448.0,
    "e3m4": 31.0,
    "khot<8,2>": 192.0,
    "khot<6,2,csd>": 40.0,
    "pow2<4>": 64.0,
    "ternary": 1.0,
    "binary": 1.0,
}
"""Formats of FormatQuant, and about their largest number."""


INTEGERS = (
    *[("UINT8", 0, 255)] * 2,
    ("INT8", -128, 127),
    ("UINT4", 0, 15),
    ("INT4", -8, 7),
    ("BINARY", 0, 1),
    ("INT2", -2, 1),
    ("UINT2", 0, 3),
    ("INT12", -2048, 2047),
)
"""Annotations of integer inputs, with their ranges."""


@dataclass(frozen=True)
class File:
    """A model and a batch of user's arrays by input name."""

    model: ModelProto
    inputs: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Live:
    """A tensor that more can be appended to.

    Args:
        shape: without the batch axis.
        state: ``raw`` (a float input), ``codes`` (integers of a known scale), ``sum`` (of such), ``float``.
        size: about the largest value.
        bound: the largest magnitude of the integers, where there are any.
        scale: the integers' scale, one or one per channel; None where it is not simple.
    """

    name: str
    shape: tuple[int, ...]
    state: str
    size: float
    bound: int = 0
    scale: NDArray[np.float32] | None = None


class SkipError(Exception):
    """An operation that does not suit the tensor; another one is tried."""


@dataclass
class Net:
    """ONNX nodes in the making."""

    opset: int
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    annotations: list[TensorAnnotation] = field(default_factory=list)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(arrays.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def node(self, op: str, *inputs: Any, outputs: int = 1, domain: str = "", **options: Any) -> Any:
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        name = f"{op.lower()}{len(self.nodes)}"
        written = [f"{name}_out{i}" if outputs > 1 else f"{name}_out" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, written, name=name, domain=domain, **options))
        return written[0] if outputs == 1 else written

    def as_nodes(self) -> None:
        """Constants as Constant nodes, as exporters write them."""
        found = [
            helper.make_node("Constant", [], [tensor.name], name=f"constant_{tensor.name}", value=tensor)
            for tensor in self.constants
        ]
        self.nodes[:0], self.constants = found, []

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def model(self, outputs: Sequence[str]) -> ModelProto:
        declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "random", self.inputs, declared, initializer=self.constants)
        graph.quantization_annotation.extend(self.annotations)
        versions = {"": self.opset, **{node.domain: 1 for node in self.nodes if node.domain}}
        if any(node.op_type == "Trunc" and len(node.input) == 6 for node in self.nodes):
            versions[QONNX] = 2
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*v) for v in versions.items()])
        model.ir_version = 8
        return model


def random_file(seed: int, kind: str) -> File:
    """The file of a seed."""
    return _Generator(seed, kind).build()


class _Generator:
    """Appends random operations to live tensors."""

    def __init__(self, seed: int, kind: str):
        self.random = np.random.default_rng([seed, (*KINDS, *NEW_KINDS).index(kind)])
        self.kind = kind.removeprefix("wide_").removeprefix("new_")
        self.is_new = kind.startswith("new_")
        self.limit = 1 << (int(self.random.choice([40, 40, 80])) if kind.startswith("wide_") else 23)
        versions = [13, 17, 21, 22] if self.is_new else [9, 10, 11, 12, 13, 14, 16, 17, 18, 20, 21, 22, 23]
        self.net = Net(int(self.random.choice(versions)))
        self.live: list[Live] = []
        self.values: dict[str, NDArray[Any]] = {}
        self.is_free = self.kind == "free"

    # --- chance ---

    def below(self, low: int, high: int) -> int:
        """A random integer in ``[low, high)``."""
        return int(self.random.integers(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.below(0, len(options))]

    def turn(self) -> None:
        """In a mixed file, decide anew whether what comes next has powers of two."""
        if self.kind == "mixed":
            self.is_free = self.chance(0.5)

    # --- numbers ---

    def scale(self, size: float, count: int = 1) -> NDArray[np.float32]:
        """One scale of about that size, or one for each of ``count`` channels."""
        sizes = size * self.random.uniform(0.6, 1.7, count)
        if self.is_free and self.chance(0.93):
            return sizes.astype(np.float32)
        powers = np.exp2(np.round(np.log2(sizes))).astype(np.float32)
        return powers * np.float32(0.75) if self.is_free else powers

    def numbers(self, size: float, shape: tuple[int, ...], bits: int = 6) -> NDArray[np.float32]:
        """Constants of about that size: any, or binary ones of few bits."""
        if self.is_free:
            return (self.random.normal(0, 0.5, shape) * size).astype(np.float32)
        unit = 2.0 ** (np.floor(np.log2(size)) - bits)
        high = 1 << bits
        return (self.random.integers(-high, high, shape, endpoint=True) * unit).astype(np.float32)

    def per_channel(self, x: Live, probability: float = 0.4) -> tuple[int, ...]:
        """A shape of one number, of one per channel, ``(1, C, 1, 1)``, or now and then per column."""
        if len(x.shape) > 1 and self.chance(0.05):
            return (x.shape[-1],)
        if self.chance(probability):
            lead = () if self.chance(0.3) and len(x.shape) > 1 else (1,)
            return (*lead, x.shape[0], *[1] * (len(x.shape) - 1))
        return self.pick([(), (1,), (1,) * (len(x.shape) + 1)])

    # --- the whole ---

    def build(self) -> File:
        self.turn()
        for index in range(1 + self.chance(0.12)):
            self.input(index)
        wanted, attempts = self.below(2, 9), 0
        for _ in range(60):
            attempts += 1
            if attempts > wanted:
                break
            self.turn()
            x = self.live[-1 - min(int(self.random.geometric(0.6)) - 1, len(self.live) - 1)]
            try:
                self.step(x)
            except SkipError:
                attempts -= 1
        return self.finish()

    def step(self, x: Live) -> None:
        steps = (*STEPS, *NEW_STEPS) if self.is_new else STEPS
        weights = np.array([weight for weight, _ in steps], dtype=float)
        steps[int(self.random.choice(len(steps), p=weights / weights.sum()))][1](self, x)

    def add(self, live: Live) -> Live:
        self.live.append(live)
        return live

    def finish(self) -> File:
        read = {name for node in self.net.nodes for name in node.input}
        outputs = []
        for x in [x for x in self.live if x.name not in read]:
            self.turn()
            chance = {"raw": 1.0, "float": 0.93, "sum": 0.6, "codes": 0.0}[x.state]
            if x.name in self.values or self.chance(chance):
                x = self.quantised(x)
            outputs.append(x.name)
        kept = [x for x in self.live if x.state == "codes" and x.name not in (*outputs, *self.values)]
        if kept and self.chance(0.1):
            outputs.append(self.pick(kept).name)
        if self.chance(0.05):
            for node in self.net.nodes[:: self.below(1, 4)]:
                node.name = self.pick(["", "node"])
        if self.chance(0.06):
            self.net.as_nodes()
        return File(self.net.model(outputs), self.values)

    # --- inputs ---

    def input(self, index: int) -> None:
        """A float input with a quantizer first (or nearly), or integers, straight or normalised."""
        name = f"x{index}"
        shape = self.pick(
            [(3,), (6,), (8,), (2, 5), (3, 6), (4, 4), (1, 4, 4), (2, 5, 5), (3, 4, 6), (4, 3, 3)]
        )
        if self.chance(0.6):
            self.float_input(name, shape)
        else:
            self.integer_input(name, shape)

    def declare(self, name: str, shape: tuple[int, ...], element: int) -> None:
        batch: Any = 1 if self.chance(0.8) else "batch"
        self.net.inputs.append(helper.make_tensor_value_info(name, element, [batch, *shape]))

    def float_input(self, name: str, shape: tuple[int, ...]) -> None:
        self.declare(name, shape, TensorProto.FLOAT)
        size = float(np.exp2(self.below(-3, 5)))
        values = self.random.normal(0, 0.5, (SAMPLES, *shape)) * size
        values[0], values[1] = -3 * size, 3 * size
        values[2] = np.round(values[2] / size * 32) * size / 64  # where ties are likely
        self.values[name] = values.astype(np.float32)
        x = self.add(Live(name, shape, "raw", size))
        for _ in range(self.below(0, 3) if self.chance(0.25) else 0):
            moved = self.pick([self.reshape, self.flatten, self.transpose, self.unsqueeze, self.relu])
            try:
                x = moved(x)
            except SkipError:
                continue
        self.quantised(x)
        if self.chance(0.97):
            # A second quantizer of a float input must be the first one again.
            self.live = self.live[-1:] + [y for y in self.live[:-1] if y.state != "raw"]

    def integer_input(self, name: str, shape: tuple[int, ...]) -> None:
        kind, low, high = self.pick(INTEGERS)
        values = self.random.integers(low, high, (SAMPLES, *shape), endpoint=True)
        values[0], values[1] = low, high
        one = np.ones((), np.float32)
        if kind in ("UINT8", "INT8") and self.chance(0.3):
            is_signed = kind == "INT8"
            self.declare(name, shape, TensorProto.INT8 if is_signed else TensorProto.UINT8)
            self.values[name] = values.astype(np.int8 if is_signed else np.uint8)
            tensor = self.net.node("Cast", name, to=TensorProto.FLOAT)
        else:
            self.declare(name, shape, TensorProto.FLOAT)
            self.net.annotations.append(
                TensorAnnotation(
                    tensor_name=name,
                    quant_parameter_tensor_names=[StringStringEntryProto(key="finn_datatype", value=kind)],
                )
            )
            self.values[name] = values.astype(np.float32)
            tensor = name
        x = Live(tensor, shape, "codes", float(max(-low, high)), max(-low, high), one)
        self.live.append(x)
        if self.chance(0.5):
            x = self.normalised(x)
            if self.chance(0.7):
                self.quantised(x)

    def normalised(self, x: Live) -> Live:
        """``(x / 255 - mean) / std``, or a part of it."""
        size, tensor = x.size, x.name
        if self.chance(0.7):
            divisor = float(x.bound) if self.is_free or self.chance(0.3) else float(np.exp2(self.below(0, 9)))
            tensor, size = self.net.node("Div", tensor, np.float32(divisor)), size / divisor
        if self.chance(0.5):
            mean = self.numbers(size, self.per_channel(x))
            tensor = self.net.node(self.pick(["Sub", "Add"]), tensor, mean)
        if self.chance(0.4):
            divisor = np.abs(self.numbers(size, self.per_channel(x))) + np.float32(size / 4)
            op = self.pick(["Mul", "Div"])
            if op == "Div" and not self.is_free:
                divisor = np.exp2(np.round(np.log2(divisor)))
            tensor = self.net.node(op, tensor, divisor)
            size = size * float(divisor.max()) if op == "Mul" else size / float(divisor.min())
        if self.chance(0.15):
            op = self.pick(["Relu", "Neg", "Clip"])
            bounds = {"min": -size / 2, "max": size / 4} if op == "Clip" and self.net.opset < 11 else {}
            more = [np.float32(-size / 2)] if op == "Clip" and not bounds else []
            tensor = self.net.node(op, tensor, *more, **bounds)
        return self.add(replace(x, name=tensor, size=size, state="float", scale=None))

    # --- quantizers ---

    def quantised(self, x: Live, most_bits: int = 12) -> Live:
        """Behind a quantizer of any sort."""
        sorts = [(12, self.quant), (2, self.fixed_quant), (2, self.float_quant), (2, self.format_quant)]
        sorts += (
            [(2, self.multi_threshold), (1, self.bipolar_quant)]
            if x.state != "raw" or self.chance(0.2)
            else []
        )
        if x.state in ("codes", "sum") and x.scale is not None and x.scale.size == 1:
            sorts.append((2, self.trunc))
        if self.is_new:
            sorts.append((12, self.quantize_linear))
        weights = np.array([weight for weight, _ in sorts], dtype=float)
        method = sorts[int(self.random.choice(len(sorts), p=weights / weights.sum()))][1]
        return self.add(method(x, most_bits))

    def bits(self, most: int) -> int:
        return self.pick([b for b in (1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 8, 8, 9, 10, 12) if b <= most])

    def quant(self, x: Live, most_bits: int) -> Live:
        bits, signed = max(1, self.bits(most_bits)), int(self.chance(0.6))
        per_channel = x.state != "raw" and self.chance(0.2)
        axis = len(x.shape) - 1 if self.chance(0.1) else 0
        count = x.shape[axis] if per_channel else 1
        scale = self.scale(x.size * self.random.uniform(0.2, 1.2) / 2 ** (bits - signed), count)
        shape: tuple[int, ...] = self.pick([(), (1,)])
        if per_channel:
            shape = (1, *(count if i == axis else 1 for i in range(len(x.shape))))
        zero = self.below(-(1 << (bits - 1)), 1 << (bits - 1)) if bits > 1 and self.chance(0.12) else 0
        zeros = np.full((), zero)
        if zero and per_channel and self.chance(0.5):
            zeros = self.random.integers(-2, 3, shape)
        narrow = int(bits > 1 and self.chance(0.2))
        rounding = "ROUND" if self.chance(0.5) else self.pick(ROUNDINGS)
        op, domain = (
            ("Quant", QONNX)
            if self.chance(0.9)
            else self.pick(
                [("IntQuant", QONNX), ("Quant", "onnx.brevitas"), ("Quant", "finn.custom_op.general")]
            )
        )
        name = self.net.node(
            op,
            x.name,
            scale.reshape(shape),
            np.float32(zeros),
            np.float32(bits),
            domain=domain,
            signed=signed,
            narrow=narrow,
            rounding_mode=rounding if self.chance(0.8) else rounding.lower(),
        )
        bound = (1 << bits) + abs(int(np.abs(zeros).max()))
        known = None if per_channel and axis else scale
        return Live(name, x.shape, "codes", float(scale.max()) * (1 << (bits - signed)), bound, known)

    def quantize_linear(self, x: Live, most_bits: int) -> Live:
        """QuantizeLinear, (Clip,) DequantizeLinear, as Brevitas, torch and ONNX Runtime export."""
        signed = self.chance(0.5)
        element = np.int8 if signed else np.uint8
        low, high = (-128, 127) if signed else (0, 255)
        bits = self.pick([8, 8, 4]) if most_bits >= 8 else 4
        scale = self.scale(x.size * self.random.uniform(0.2, 1.2) / 2 ** (bits - signed)).reshape(())
        zero = self.net.constant(self.below(low, high + 1) if self.chance(0.3) and bits == 8 else 0, element)
        name = self.net.node("QuantizeLinear", x.name, scale, zero)
        if bits < 8:
            low, high = (-8, 7) if signed else (0, 15)
            bounds = (self.net.constant(bound, element) for bound in (low, high))
            name = self.net.node("Clip", name, *bounds)
        name = self.net.node("DequantizeLinear", name, scale, zero)
        return Live(name, x.shape, "codes", float(scale) * 2**bits, 2 << bits, scale.reshape(1))

    def integer_weight(
        self, shape: tuple[int, ...], axis: int
    ) -> tuple[str, float, int, NDArray[np.float32]]:
        """Stored bytes and a DequantizeLinear, per tensor or per channel."""
        integers = self.random.integers(-127, 127, shape, endpoint=True)
        count = shape[axis] if self.chance(0.5) else 1
        scale = self.scale(1.0 / 128, count)
        zeros = np.zeros(() if count == 1 else count)
        stored = (self.net.constant(value, np.int8) for value in (integers, zeros))
        tensor, zero = stored
        options = {"axis": axis} if count > 1 else {}
        name = self.net.node(
            "DequantizeLinear", tensor, scale if count > 1 else scale.reshape(()), zero, **options
        )
        return name, 1.0, 128, scale

    def fixed_quant(self, x: Live, most_bits: int) -> Live:
        width, signed = max(1, self.bits(most_bits)), int(self.chance(0.7))
        unit = float(np.exp2(np.round(np.log2(x.size * self.random.uniform(0.2, 1.2))) - (width - signed)))
        overflow = self.pick(["SAT", "SAT", "SAT", "SAT_SYM", "WRAP", "SAT_ZERO", "WRAP_SM"])
        if x.state == "raw" and self.chance(0.9):
            overflow = self.pick(["SAT", "SAT_SYM"])
        if overflow == "WRAP_SM" and not signed:
            overflow = "WRAP"
        fraction = -int(np.log2(unit))
        inputs: list[Any] = [x.name]
        integer = width - fraction
        scale = np.ones(1, np.float32)
        if self.is_free or self.chance(0.2):
            scale = self.scale(1.0)
            inputs += ["", scale.reshape(self.pick([(), (1,)]))]
        if self.chance(0.2) and x.state != "raw":
            fractions = fraction + self.random.integers(-1, 2, (1, x.shape[0], *[1] * (len(x.shape) - 1)))
            inputs[1:2] = [self.net.constant(fractions, np.int64)]
        name = self.net.node(
            "FixedQuant",
            *inputs,
            domain=QHW,
            width=width,
            integer=integer,
            signed=signed,
            rounding=self.pick(FIXED_ROUNDINGS),
            overflow=overflow,
        )
        known = scale * np.float32(unit) if len(inputs) < 2 or inputs[1] == "" else None
        return Live(name, x.shape, "codes", unit * 2 ** (width - signed), 1 << (width + 1), known)

    def float_quant(self, x: Live, most_bits: int) -> Live:
        exponent, mantissa = self.below(2, 6 if self.limit > 1 << 70 else 5), self.below(1, 4)
        bias = 2 ** (exponent - 1) - 1 + (self.below(-1, 2) if self.chance(0.3) else 0)
        top = 2.0 ** (2.0**exponent - 1 - bias) * (2 - 2.0**-mantissa)
        scale = self.scale(x.size * self.random.uniform(0.3, 1.5) / top)
        rounding = "ROUND" if self.chance(0.6) else self.pick(ROUNDINGS)
        flags = {"has_nan": int(self.chance(0.2)), "has_subnormal": int(self.chance(0.85)), "has_inf": 0}
        largest = top
        if self.chance(0.2):
            largest = 2.0 ** (2.0**exponent - 2 - bias) * (2 - 2.0**-mantissa)
        if flags["has_nan"]:
            largest = 2.0 ** (2.0**exponent - 1 - bias) * (2 - 2.0 ** (1 - mantissa))
        name = self.net.node(
            "FloatQuant",
            x.name,
            scale.reshape(()),
            np.float32(exponent),
            np.float32(mantissa),
            np.float32(bias),
            np.float32(largest),
            domain=QONNX,
            rounding_mode=rounding,
            saturation=1,
            **flags,
        )
        bound = 1 << (2**exponent + mantissa)
        return Live(name, x.shape, "codes", top * float(scale[0]), bound, None)

    def format_quant(self, x: Live, most_bits: int) -> Live:
        text = self.pick(list(FORMATS))
        scale = self.scale(x.size * self.random.uniform(0.3, 1.5) / FORMATS[text])
        name = self.net.node("FormatQuant", x.name, scale.reshape(()), domain=QHW, format=text)
        bound = {"e4": 1 << 19, "e3": 1 << 12, "e2": 1 << 5, "kh": 1 << 8, "po": 1 << 8}.get(text[:2], 1)
        return Live(name, x.shape, "codes", FORMATS[text] * float(scale[0]), bound, None)

    def bipolar_quant(self, x: Live, most_bits: int) -> Live:
        scale = self.scale(x.size / 2)
        name = self.net.node("BipolarQuant", x.name, scale.reshape(()), domain=QONNX)
        return Live(name, x.shape, "codes", float(scale[0]), 1, scale)

    def multi_threshold(self, x: Live, most_bits: int) -> Live:
        count = self.below(1, 1 << min(4, most_bits))
        # qonnx's default layout of a batch of lines is (N, W, C).
        channels = x.shape[-1 if len(x.shape) == 2 else 0] if self.chance(0.4) else 1
        thresholds = self.numbers(x.size, (channels, count))
        if self.chance(0.85):
            thresholds = np.sort(thresholds, axis=1)
        if self.chance(0.1):
            thresholds[:, :: thresholds.shape[1]] = self.pick([-np.inf, np.inf])
            thresholds = np.sort(thresholds, axis=1)
        # Few bits, so that levels are whole multiples of the scale in any arithmetic.
        fraction, power = np.frexp(self.scale(1.0)[0])
        out_scale = float(np.ldexp(np.round(fraction * 4096) / 4096, power))
        bias = self.pick([0.0, -(count // 2), -0.5, 1.0, -count / 2, 0.25]) * out_scale
        layouts = {1: "NC", 2: "NWC", 3: "NCHW"}  # qonnx's default by rank
        name = self.net.node(
            "MultiThreshold",
            x.name,
            thresholds,
            domain=QONNX,
            out_dtype="INT8" if bias < 0 else "UINT8",
            out_scale=out_scale,
            out_bias=float(np.float32(bias)),
            **({"data_layout": layouts[len(x.shape)]} if self.chance(0.6) else {}),
        )
        scale = None if bias else np.full(1, out_scale, np.float32)
        return Live(name, x.shape, "codes", out_scale * count, 2 * count + 2, scale)

    def trunc(self, x: Live, most_bits: int) -> Live:
        assert x.scale is not None
        rounding = self.pick(("FLOOR", "FLOOR", "CEIL", "ROUND", "HALF_EVEN") if self.is_free else ROUNDINGS)
        width = max(2, x.bound.bit_length())
        dropped = self.below(1, max(2, min(width, 6)))
        scale, zero = x.scale.reshape(()), np.float32(0)
        if self.chance(0.5):
            parameters = [np.float32(width), np.float32(width - dropped)]
            name = self.net.node(
                "Trunc", x.name, scale, zero, *parameters, domain=QONNX, rounding_mode=rounding
            )
            return replace(x, name=name, state="codes", bound=x.bound >> (dropped - 1))
        out, bits = scale * np.float32(2.0**dropped), self.below(1, 9)
        name = self.net.node(
            "Trunc",
            x.name,
            scale,
            zero,
            np.float32(width),
            out,
            np.float32(bits),
            domain=QONNX,
            rounding_mode=rounding,
            signed=int(self.chance(0.7)),
            narrow=int(bits > 1 and self.chance(0.2)),
        )
        return Live(name, x.shape, "codes", float(out) * 2**bits, 1 << bits, out.reshape(1))

    # --- what quantised operations read ---

    def integers(self, x: Live, terms: int = 1, weight: int = 1) -> Live:
        """The tensor, or it behind a quantizer: integers whose sums stay short."""
        is_short = x.bound * terms * weight < self.limit
        if x.state in ("codes", "sum") and is_short and (x.state == "codes" or self.chance(0.6)):
            return x
        if x.state == "float" and is_short and self.chance(0.1):
            return x
        for _ in range(6):
            y = self.quantised(x, 8)
            if y.bound * terms * weight < self.limit:
                return y
        raise SkipError

    def weight(self, shape: tuple[int, ...], axis: int) -> tuple[str, float, int, NDArray[np.float32] | None]:
        """A quantised constant: its tensor, its size, the bound of its integers, its scale or scales."""
        if self.is_new and self.chance(0.4):
            return self.integer_weight(shape, axis)
        values = self.random.normal(0, 0.4, shape).astype(np.float32)
        sort = self.below(0, 100)
        if self.chance(0.06):
            return self.moved_weight(shape, axis)
        if self.chance(0.04):
            return self.khot_weight(shape)
        if sort < 62:
            bits = self.pick([1, 2, 2, 3, 4, 4, 6, 8])
            count = shape[axis] if self.chance(0.4) else 1
            scale = self.scale(1.0 / 2 ** (bits - 1), count)
            where = [1] * len(shape)
            where[axis] = count
            zero = self.below(-2, 3) if self.chance(0.04) and bits > 2 else 0
            name = self.net.node(
                "Quant",
                values,
                scale.reshape(where if count > 1 else self.pick([(), (1,)])),
                np.float32(zero),
                np.float32(bits),
                domain=QONNX,
                signed=1,
                narrow=int(self.chance(0.5)),
                rounding_mode="ROUND" if self.chance(0.8) else self.pick(ROUNDINGS),
            )
            return name, 1.0, (1 << bits) + 2 * abs(zero), scale
        if sort < 70:
            scale = self.scale(0.5)
            return self.net.node("BipolarQuant", values, scale.reshape(()), domain=QONNX), 0.5, 1, scale
        if sort < 76:
            width = self.pick([2, 4, 6])
            name = self.net.node(
                "FixedQuant",
                values,
                domain=QHW,
                width=width,
                integer=1,
                signed=1,
                rounding=self.pick(FIXED_ROUNDINGS),
                overflow="SAT",
            )
            return name, 1.0, 1 << width, np.full(1, 2.0 ** (1 - width), np.float32)
        if sort < 84:
            y = self.float_quant(Live(self.net.constant(values), shape, "float", 1.0), 8)
            return y.name, 1.0, y.bound, None
        if sort < 92:
            y = self.format_quant(Live(self.net.constant(values), shape, "float", 1.0), 8)
            return y.name, 1.0, y.bound, None
        integers = self.random.integers(-4, 5, shape).astype(np.float32)
        if not self.is_free and self.chance(0.5):
            return self.net.constant(integers / 4), 1.0, 4, np.full(1, 0.25, np.float32)
        return self.net.constant(integers), 4.0, 4, np.ones(1, np.float32)

    def moved_weight(
        self, shape: tuple[int, ...], axis: int
    ) -> tuple[str, float, int, NDArray[np.float32] | None]:
        """A quantised constant that is reshaped, or joined of two."""
        if shape[axis] > 1 and self.chance(0.5):
            parts = [
                self.weight(tuple(n if i == axis else size for i, size in enumerate(shape)), axis)
                for n in (1, shape[axis] - 1)
            ]
            name = self.net.node("Concat", *(part[0] for part in parts), axis=axis)
            return name, 1.0, max(part[2] for part in parts), None
        name, size, bound, scale = self.weight((int(np.prod(shape)),), 0)
        moved = self.net.node("Reshape", name, self.net.ints(*shape))
        return moved, size, bound, scale if scale is not None and scale.size == 1 else None

    def khot_weight(self, shape: tuple[int, ...]) -> tuple[str, float, int, NDArray[np.float32] | None]:
        """A Quant whose metadata says that its integers have at most two ones."""
        ones = np.exp2(self.random.integers(0, 7, (2, *shape)))
        signs = self.random.choice([-1, 1], shape)
        integers = np.where(ones[0] == ones[1], ones[0], ones.sum(axis=0)) * signs
        scale = self.scale(1.0 / 64).reshape(())
        name = self.net.node(
            "Quant",
            (integers * scale).astype(np.float32),
            scale,
            np.float32(0),
            np.float32(8),
            domain=QONNX,
            signed=1,
            narrow=1,
            rounding_mode="ROUND",
        )
        self.net.nodes[-1].metadata_props.append(StringStringEntryProto(key="qhw.format", value="khot<8,2>"))
        return name, 1.0, 128, scale.reshape(1)

    def bias(self, x: Live, weight_scale: NDArray[np.float32] | None, size: float, count: int) -> Any:
        """On the accumulator's grid, on one of its own, or in float."""
        values = self.numbers(size, (count,))
        if x.scale is not None and x.scale.size == 1 and weight_scale is not None and self.chance(0.5):
            scale = (x.scale.reshape(()) * weight_scale).astype(np.float32)
            scale = scale.reshape(()) if scale.size == 1 else scale
        elif self.chance(0.4):
            scale = self.scale(size / 100).reshape(())
        else:
            return values
        bits = self.pick([8, 16, 32, 32])
        stored = self.net.node(
            "Quant",
            values,
            scale,
            np.float32(0),
            np.float32(bits),
            domain=QONNX,
            signed=1,
            narrow=0,
            rounding_mode="ROUND",
        )
        return self.computed(stored, scale, count) if self.chance(0.08) else stored

    def computed(self, stored: str, scale: NDArray[np.float32], count: int) -> str:
        """A constant that the file computes from a quantised one."""
        op = self.pick(["Add", "Sub", "Sum", "Neg", "Div", "Slice"])
        if op == "Neg":
            return self.net.node(op, stored)
        if op == "Div":
            return self.net.node(op, stored, np.float32(2))
        if op == "Slice" and self.net.opset >= 10:
            return self.net.node(op, stored, *(self.net.ints(n) for n in (0, count, 0)))
        return self.net.node("Add" if op == "Slice" else op, stored, stored)

    # --- sums of products ---

    def conv_transpose(self, x: Live) -> Live:
        rank = len(x.shape) - 1
        if rank not in (1, 2) or max(x.shape[1:]) > 6:
            raise SkipError
        channels, filters = x.shape[0], self.below(1, 4)
        kernel = tuple(self.below(1, 4) for _ in range(rank))
        name, size, bound, _ = self.weight((channels, filters, *kernel), 1)
        x = self.integers(x, channels * int(np.prod(kernel)), bound)
        strides = [self.below(1, 3) for _ in kernel]
        pads = [self.below(0, k) for k in (*kernel, *kernel)] if self.chance(0.4) else [0] * (2 * rank)
        more = [self.below(0, s) if self.chance(0.3) else 0 for s in strides]
        rows = zip(x.shape[1:], strides, kernel, pads[:rank], pads[rank:], more, strict=True)
        out = [(n - 1) * s + k - a - b + extra for n, s, k, a, b, extra in rows]
        if min(out) < 1:
            raise SkipError
        total = x.size * size * np.sqrt(channels)
        bias = [self.numbers(total, (filters,))] if self.chance(0.4) else []
        options = {"strides": strides, "pads": pads, "output_padding": more}
        tensor = self.net.node("ConvTranspose", x.name, name, *bias, **options)
        state = "float" if bias else "sum"
        return self.add(Live(tensor, (filters, *out), state, total, self.limit // 64, None))

    def resize(self, x: Live) -> Live:
        """Each pixel repeated."""
        if len(x.shape) != 3 or max(x.shape) > 6:
            raise SkipError
        factors = [self.below(1, 4), self.below(1, 4)]
        options = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        shape = (x.shape[0], *(n * f for n, f in zip(x.shape[1:], factors, strict=True)))
        if self.chance(0.7):
            name = self.net.node("Resize", x.name, "", np.array([1, 1, *factors], np.float32), **options)
        else:
            name = self.net.node("Resize", x.name, "", "", self.net.ints(1, *shape), **options)
        return self.moved(x, name, shape)

    def depth_to_space(self, x: Live) -> Live:
        if len(x.shape) != 3:
            raise SkipError
        channels, height, width = x.shape
        if channels % 4 == 0 and self.chance(0.6):
            mode = self.pick(["DCR", "CRD"])
            name = self.net.node("DepthToSpace", x.name, blocksize=2, mode=mode)
            return self.moved(x, name, (channels // 4, height * 2, width * 2))
        if height % 2 or width % 2:
            raise SkipError
        name = self.net.node("SpaceToDepth", x.name, blocksize=2)
        return self.moved(x, name, (channels * 4, height // 2, width // 2))

    def conv(self, x: Live) -> Live:
        rank = len(x.shape) - 1
        if rank not in (1, 2):
            raise SkipError
        channels = x.shape[0]
        groups = self.pick([1, 1, channels, *[g for g in (2, 3) if channels % g == 0]])
        filters = groups * self.below(1, 1 + max(1, 4 // groups))
        kernel = tuple(self.below(1, min(3, n) + 1) for n in x.shape[1:])
        terms = channels // groups * int(np.prod(kernel))
        if groups == channels == filters and self.chance(0.3):
            name, size, bound = self.net.constant(np.ones((filters, 1, *kernel))), 1.0, 1
            scale: NDArray[np.float32] | None = np.ones(1, np.float32)
        else:
            name, size, bound, scale = self.weight((filters, channels // groups, *kernel), 0)
        x = self.integers(x, terms, bound)
        strides, dilations = ([self.below(1, 3) if self.chance(0.4) else 1 for _ in kernel] for _ in "sd")
        pads = [self.below(0, 2) for _ in range(2 * rank)] if self.chance(0.6) else [0] * (2 * rank)
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        options: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": groups}
        if self.chance(0.08):
            options["auto_pad"] = self.pick(["SAME_UPPER", "SAME_LOWER", "VALID"])
            options["dilations"], spans = [1] * rank, list(kernel)
        else:
            options["pads"] = pads
        if options.get("auto_pad", "").startswith("SAME"):
            out = [-(-n // s) for n, s in zip(x.shape[1:], strides, strict=True)]
        else:
            pads = options.get("pads", [0] * (2 * rank))
            rows = zip(x.shape[1:], pads[:rank], pads[rank:], spans, strides, strict=True)
            out = [(n + a + b - span) // s + 1 for n, a, b, span, s in rows]
        if min(out) < 1:
            raise SkipError
        if self.chance(0.8):
            options["kernel_shape"] = kernel
        total = x.size * size * np.sqrt(terms)
        more = [self.bias(x, scale, total, filters)] if self.chance(0.5) else []
        tensor = self.net.node("Conv", x.name, name, *more, **options)
        known = None if more or scale is None or x.scale is None or x.scale.size > 1 else x.scale * scale
        state = "sum" if not more or isinstance(more[0], str) else "float"
        return self.add(Live(tensor, (filters, *out), state, total, x.bound * terms * bound, known))

    def gemm(self, x: Live) -> Live:
        if len(x.shape) != 1:
            raise SkipError
        columns, terms = self.below(1, 6), x.shape[0]
        turned = int(self.chance(0.6))
        shape = (columns, terms) if turned else (terms, columns)
        name, size, bound, scale = self.weight(shape, 0 if turned else 1)
        x = self.integers(x, terms, bound)
        total = x.size * size * np.sqrt(terms)
        flat = None if scale is None else scale
        # Before opset 11, Gemm must have a bias.
        more = [self.bias(x, flat, total, columns)] if self.net.opset < 11 or self.chance(0.6) else []
        options: dict[str, Any] = {"transB": turned}
        if self.chance(0.15):
            options["alpha"] = float(self.pick([0.5, 2.0, 0.3 if self.is_free else 0.25]))
        if more and self.chance(0.15):
            options["beta"] = float(self.pick([0.5, 2.0]))
        tensor = self.net.node("Gemm", x.name, name, *more, **options)
        return self.add(Live(tensor, (columns,), "float" if more else "sum", total, self.limit // 64, None))

    def matmul(self, x: Live) -> Live:
        columns, terms = self.below(1, 6), x.shape[-1]
        if len(x.shape) == 3 and self.chance(0.7):
            raise SkipError
        if self.chance(0.3):
            name, size, bound, scale = self.weight((columns, terms), 0)
            name = self.net.node("Transpose", name, perm=[1, 0])
        else:
            name, size, bound, scale = self.weight((terms, columns), 1)
        x = self.integers(x, terms, bound)
        total = x.size * size * np.sqrt(terms)
        tensor = self.net.node("MatMul", x.name, name)
        known = (
            None
            if scale is None or scale.size > 1 or x.scale is None or x.scale.size > 1
            else x.scale * scale
        )
        live = Live(tensor, (*x.shape[:-1], columns), "sum", total, x.bound * terms * bound, known)
        if self.chance(0.4):
            added = self.bias(x, scale, total, columns)
            order = (live.name, added) if self.chance(0.8) else (added, live.name)
            live = replace(live, name=self.net.node("Add", *order), state="float", scale=None)
        return self.add(live)

    def left_matmul(self, x: Live) -> Live:
        """A constant first operand."""
        if len(x.shape) < 2:
            raise SkipError
        rows, terms = self.below(1, 5), x.shape[-2]
        name, size, bound, _ = self.weight((rows, terms), 0)
        x = self.integers(x, terms, bound)
        tensor = self.net.node("MatMul", name, x.name)
        shape = (*x.shape[:-2], rows, x.shape[-1])
        return self.add(Live(tensor, shape, "sum", x.size * size * np.sqrt(terms), self.limit // 64, None))

    def attention(self, x: Live) -> Live:
        """A product of two computed operands."""
        if len(x.shape) < 2:
            raise SkipError
        x = self.integers(x, x.shape[-1], 1 << 8)
        rank = len(x.shape) + 1
        y = x if self.chance(0.5) else self.integers(self.quantised(x, 8), x.shape[-1], 1 << 8)
        if x.bound * y.bound * x.shape[-1] >= self.limit:
            raise SkipError
        turned = self.net.node("Transpose", y.name, perm=[*range(rank - 2), rank - 1, rank - 2])
        tensor = self.net.node("MatMul", x.name, turned)
        shape = (*x.shape[:-1], y.shape[-2])
        known = None
        if x.scale is not None and y.scale is not None and x.scale.size == y.scale.size == 1:
            known = x.scale * y.scale
        size = x.size * y.size * np.sqrt(x.shape[-1])
        return self.add(Live(tensor, shape, "sum", size, self.limit // 64, known))

    # --- element by element ---

    def elementwise(self, x: Live) -> Live:
        if x.state == "raw":
            raise SkipError
        methods = [
            self.batch_norm,
            self.constant_add,
            self.constant_add,
            self.constant_mul,
            self.constant_sub,
        ]
        methods += [
            self.constant_div,
            self.negate,
            self.relu,
            self.relu,
            self.clip,
            self.leaky_relu,
            self.prelu,
        ]
        return self.pick(methods)(x)

    def after(self, x: Live, name: str, size: float) -> Live:
        """The result of an element-wise operation."""
        return self.add(replace(x, name=name, size=max(size, 1e-6), state="float", scale=None))

    def batch_norm(self, x: Live) -> Live:
        count = x.shape[0]
        if self.is_free:
            gamma, mean = self.random.normal(0, 1, count), self.random.normal(0, x.size / 4, count)
            variance = (self.random.uniform(0.3, 2, count) * x.size / 4) ** 2
            epsilon = self.pick([1e-5, 1e-3])
        else:
            gamma, mean = self.numbers(1.0, (count,), 4), self.numbers(x.size / 4, (count,), 4)
            epsilon = 2.0**-12
            variance = 4.0 ** self.random.integers(-1, 2, count) - epsilon
        beta = self.numbers(1.0, (count,), 4)
        parameters = [np.asarray(v, np.float32) for v in (gamma, beta, mean, variance)]
        name = self.net.node("BatchNormalization", x.name, *parameters, epsilon=epsilon)
        gain = float(np.max(np.abs(gamma) / np.sqrt(variance + epsilon)))
        return self.after(x, name, max(x.size * gain, 1.0))

    def constant_add(self, x: Live) -> Live:
        if len(x.shape) > 1 and self.chance(0.06):
            value: Any = self.numbers(x.size / 2, x.shape)
        elif self.chance(0.2):
            value = self.bias(x, np.ones(1, np.float32), x.size / 2, 1)
        else:
            value = self.numbers(x.size / 2, self.per_channel(x))
        order = (x.name, value) if self.chance(0.7) else (value, x.name)
        return self.after(x, self.net.node("Sum" if self.chance(0.1) else "Add", *order), x.size * 1.5)

    def constant_sub(self, x: Live) -> Live:
        value = self.numbers(x.size / 2, self.per_channel(x))
        order = (x.name, value) if self.chance(0.7) else (value, x.name)
        return self.after(x, self.net.node("Sub", *order), x.size * 1.5)

    def constant_mul(self, x: Live) -> Live:
        shape = x.shape if len(x.shape) > 1 and self.chance(0.06) else self.per_channel(x)
        value = self.numbers(1.0, shape, 4)
        order = (x.name, value) if self.chance(0.7) else (value, x.name)
        return self.after(x, self.net.node("Mul", *order), x.size * float(np.abs(value).max()))

    def constant_div(self, x: Live) -> Live:
        value = np.abs(self.numbers(1.0, self.per_channel(x))) + np.float32(0.25)
        if not self.is_free:
            value = np.exp2(np.round(np.log2(value)))
        value = value * np.where(self.random.random(value.shape) < 0.1, -1, 1)
        return self.after(x, self.net.node("Div", x.name, value), x.size / float(np.abs(value).min()))

    def negate(self, x: Live) -> Live:
        return self.after(x, self.net.node("Neg", x.name), x.size)

    def relu(self, x: Live) -> Live:
        return self.after(x, self.net.node("Relu", x.name), x.size)

    def clip(self, x: Live) -> Live:
        low, high = np.sort(self.numbers(x.size, (2,)))
        low = np.float32(0.0) if self.chance(0.4) else low
        high = max(high, low + np.float32(x.size / 4))
        if self.chance(0.06):
            high = np.float32(np.inf) if self.net.opset >= 11 else np.finfo(np.float32).max
        if self.net.opset < 11:
            return self.after(x, self.net.node("Clip", x.name, min=float(low), max=float(high)), x.size)
        bounds: list[Any] = [low.reshape(()), np.float32(high).reshape(())]
        if self.chance(0.2):
            bounds[1:] = []
        elif self.chance(0.2):
            bounds[0] = ""
        return self.after(x, self.net.node("Clip", x.name, *bounds), x.size)

    def leaky_relu(self, x: Live) -> Live:
        alpha = self.random.uniform(0.01, 0.5) if self.is_free else self.pick([0.125, 0.25, 0.0625, 0.375])
        options = {} if self.is_free and self.chance(0.3) else {"alpha": float(alpha)}
        return self.after(x, self.net.node("LeakyRelu", x.name, **options), x.size)

    def prelu(self, x: Live) -> Live:
        shape = (x.shape[0], *[1] * (len(x.shape) - 1)) if self.chance(0.5) else (1,)
        slope = self.numbers(0.5, shape, 4)
        if self.chance(0.8):
            slope = np.abs(slope)
        if self.chance(0.05):
            slope = np.zeros_like(slope)
        return self.after(x, self.net.node("PRelu", x.name, slope), x.size)

    def function(self, x: Live) -> Live:
        """A function that is no arithmetic, behind a quantizer of few bits."""
        if x.state != "codes" or x.bound > 1 << 9:
            x = self.quantised(x, 8)
        if x.bound > 1 << 14:
            raise SkipError
        choices = [(version, f) for version, f in FUNCTIONS if version <= self.net.opset]
        name, size = self.pick(choices)[1](self, x)
        y = self.after(x, name, size)
        if self.chance(0.3):
            y = self.elementwise(y)
        return self.quantised(y)

    # --- two tensors ---

    def partner(self, x: Live) -> Live:
        """Another tensor of the same shape; the same one behind other operations where there is none."""
        same = [y for y in self.live if y.shape == x.shape and y.name != x.name and y.state != "raw"]
        return self.pick(same) if same and self.chance(0.8) else self.quantised(x, 6)

    def two(self, x: Live) -> Live:
        if x.state == "raw":
            raise SkipError
        y = self.partner(x)
        op = self.pick(["Add"] * 6 + ["Sub", "Mul", "Mul", "Sum"])
        if op == "Mul" and x.bound * y.bound >= self.limit:
            raise SkipError
        size = x.size * y.size if op == "Mul" else x.size + y.size
        bound = x.bound * y.bound if op == "Mul" else (x.bound + y.bound) * 16
        if op == "Sum" and self.chance(0.4):
            name = self.net.node(op, x.name, y.name, x.name)
        else:
            name = self.net.node(op, x.name, y.name)
        state = "float" if "float" in (x.state, y.state) else "sum"
        return self.add(Live(name, x.shape, state, size, min(bound, self.limit), None))

    def shared_add(self, x: Live) -> Live:
        """A residual addition of tensors on one scale, as exporters write it."""
        if x.state == "raw":
            raise SkipError
        y = self.partner(x)
        bits = self.pick([4, 8])
        scale = self.scale(max(x.size, y.size) / 2 ** (bits - 1)).reshape(())
        ratio = np.float32(self.pick([1, 1, 2, 4, 3]))
        names = [
            self.net.node(
                "Quant",
                z.name,
                s,
                np.float32(0),
                np.float32(bits),
                domain=QONNX,
                signed=1,
                narrow=0,
                rounding_mode="ROUND",
            )
            for z, s in ((x, scale), (y, scale * ratio))
        ]
        name = self.net.node("Add", *names)
        size = float(scale) * 2 ** (bits - 1) * (1 + float(ratio))
        return self.add(Live(name, x.shape, "sum", size, (1 << bits) * 5, scale.reshape(1)))

    def gate(self, x: Live) -> Live:
        """``x * Sigmoid(y)`` of few bits, y being x or another tensor."""
        if x.state == "raw":
            raise SkipError
        x = self.quantised(x, 5)
        y = x if self.chance(0.6) else self.quantised(x, 4)
        if x.bound * y.bound > 1 << 12:
            raise SkipError
        gate = self.net.node(self.pick(["Sigmoid", "Tanh", "HardSigmoid"]), y.name)
        return self.quantised(self.after(x, self.net.node("Mul", x.name, gate), x.size))

    def concat(self, x: Live) -> Live:
        same = [y for y in self.live if y.shape[1:] == x.shape[1:] and y.state != "raw" and y.shape[0] < 8]
        if x.state == "raw" or not same or x.shape[0] > 8:
            raise SkipError
        if self.chance(0.04):
            return self.moved(x, self.net.node("Concat", x.name, axis=1), x.shape)
        y = self.pick(same) if self.chance(0.8) else self.quantised(x, 6)
        parts = [self.integers(z) if self.chance(0.8) else z for z in (x, y)]
        axis = 1 if parts[0].shape != parts[1].shape or self.chance(0.7) else self.below(1, len(x.shape) + 1)
        shape = list(x.shape)
        shape[axis - 1] += parts[1].shape[axis - 1]
        stated = axis - len(shape) - 1 if self.net.opset >= 11 and self.chance(0.3) else axis
        name = self.net.node("Concat", *(p.name for p in parts), axis=stated)
        state = "codes" if all(p.state == "codes" for p in parts) else "float"
        bound = max(p.bound for p in parts) * 16
        return self.add(Live(name, tuple(shape), state, max(p.size for p in parts), bound, None))

    # --- pools and reductions ---

    def pool(self, x: Live) -> Live:
        rank = len(x.shape) - 1
        if rank not in (1, 2):
            raise SkipError
        if self.chance(0.3):
            op = self.pick(["GlobalAveragePool", "GlobalMaxPool"])
            x = self.integers(x, int(np.prod(x.shape[1:]))) if op == "GlobalAveragePool" else x
            return self.moved(x, self.net.node(op, x.name), (x.shape[0], *[1] * rank), is_sum="A" in op)
        op = self.pick(["MaxPool", "AveragePool"])
        kernel = [self.below(1, min(3, n) + 1) for n in x.shape[1:]]
        if op == "AveragePool" and not self.is_free and self.chance(0.85):
            kernel = [1 if k == 3 else k for k in kernel]
        strides = [self.below(1, 3) for _ in kernel]
        pads = [self.below(0, k) for k in (*kernel, *kernel)] if self.chance(0.3) else [0] * (2 * rank)
        options: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
        dilations = [1] * rank
        if op == "AveragePool":
            x = self.integers(x, int(np.prod(kernel)))
            if any(pads):
                options["count_include_pad"] = int(self.chance(0.9))
        elif self.chance(0.15) and self.net.opset >= 10:
            options["dilations"] = dilations = [self.below(1, 3) for _ in kernel]
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        rows = list(zip(x.shape[1:], pads[:rank], pads[rank:], spans, strides, strict=True))
        if any(n + a + b < span for n, a, b, span, _ in rows):
            raise SkipError
        if self.chance(0.06) and self.net.opset >= 10 and not any(pads):
            options["ceil_mode"] = 1
            # No window begins beyond the tensor.
            out = [min(-(-(n - span) // s), (n - 1) // s) + 1 for n, _, _, span, s in rows]
        else:
            out = [(n + a + b - span) // s + 1 for n, a, b, span, s in rows]
        return self.moved(x, self.net.node(op, x.name, **options), (x.shape[0], *out), is_sum=op[0] == "A")

    def moved(self, x: Live, name: str, shape: tuple[int, ...], *, is_sum: bool = False) -> Live:
        """What moves, or sums, the numbers of a tensor."""
        keeps = x.scale is None or x.scale.size == 1
        scale = x.scale if keeps and not is_sum else None
        state = "sum" if is_sum and x.state == "codes" else x.state
        return self.add(
            replace(x, name=name, shape=shape, scale=scale, state=state, bound=x.bound * (1 + 15 * is_sum))
        )

    def reduce(self, x: Live) -> Live:
        if x.state == "raw":
            raise SkipError
        op = self.pick(["ReduceSum", "ReduceMean", "ReduceMax"])
        axes = sorted({self.below(1, len(x.shape) + 1) for _ in range(2)})
        keepdims = int(len(axes) == len(x.shape) or self.chance(0.5))
        x = self.integers(x, int(np.prod([x.shape[a - 1] for a in axes]))) if op != "ReduceMax" else x
        since = {"ReduceSum": 13, "ReduceMean": 18, "ReduceMax": 18}[op]
        given = [a - len(x.shape) - 1 for a in axes] if self.net.opset >= 11 and self.chance(0.3) else axes
        if self.net.opset >= since:
            name = self.net.node(op, x.name, self.net.ints(*given), keepdims=keepdims)
        else:
            name = self.net.node(op, x.name, axes=given, keepdims=keepdims)
        kept = [1 if i + 1 in axes else n for i, n in enumerate(x.shape)]
        shape = tuple(n for i, n in enumerate(kept) if keepdims or i + 1 not in axes)
        y = self.moved(x, name, shape, is_sum=op != "ReduceMax")
        if op == "ReduceSum":
            y = self.live[-1] = replace(y, size=y.size * float(np.sqrt(np.prod(x.shape) / np.prod(shape))))
        return y

    # --- movement ---

    def movement(self, x: Live) -> Live:
        methods = [self.reshape, self.flatten, self.transpose, self.squeeze, self.unsqueeze, self.pad]
        return self.pick([*methods, self.slice, self.split, self.gather, self.passive, self.view])(x)

    def reshape(self, x: Live) -> Live:
        count = int(np.prod(x.shape))
        if len(x.shape) == 3:
            shape = self.pick(
                [(count,), (x.shape[0], count // x.shape[0]), (x.shape[0] * x.shape[1], x.shape[2])]
            )
        elif len(x.shape) == 2:
            shape = self.pick([(count,), (1, *x.shape), x.shape[::-1]])
        else:
            shape = self.pick([(1, count), (count, 1), (1, 1, count)])
        stated = [self.pick([1, 0, 1]), *shape]
        if self.chance(0.3):
            stated[-1] = -1
        return self.moved(x, self.net.node("Reshape", x.name, self.net.ints(*stated)), shape)

    def flatten(self, x: Live) -> Live:
        if len(x.shape) < 2:
            raise SkipError
        return self.moved(x, self.net.node("Flatten", x.name), (int(np.prod(x.shape)),))

    def transpose(self, x: Live) -> Live:
        if len(x.shape) < 2:
            raise SkipError
        perm = self.random.permutation(len(x.shape))
        name = self.net.node("Transpose", x.name, perm=[0, *(int(p) + 1 for p in perm)])
        return self.moved(x, name, tuple(x.shape[p] for p in perm))

    def squeeze(self, x: Live) -> Live:
        axes = [i + 1 for i, n in enumerate(x.shape) if n == 1]
        if not axes or len(x.shape) < 2:
            raise SkipError
        axis = self.pick(axes)
        shape = (*x.shape[: axis - 1], *x.shape[axis:])
        return self.moved(x, self.with_axes("Squeeze", x.name, axis), shape)

    def unsqueeze(self, x: Live) -> Live:
        if len(x.shape) > 2:
            raise SkipError
        axis = self.below(1, len(x.shape) + 2)
        return self.moved(
            x, self.with_axes("Unsqueeze", x.name, axis), (*x.shape[: axis - 1], 1, *x.shape[axis - 1 :])
        )

    def with_axes(self, op: str, x: str, axis: int) -> str:
        if self.net.opset >= 13:
            return self.net.node(op, x, self.net.ints(axis))
        return self.net.node(op, x, axes=[axis])

    def pad(self, x: Live) -> Live:
        if x.state == "raw" or max(x.shape) > 10:
            raise SkipError
        rank = len(x.shape)
        begins, ends = ([self.below(0, 2) for _ in x.shape] for _ in "be")
        pads = [0, *begins, 0, *ends]
        shape = tuple(n + a + b for n, a, b in zip(x.shape, begins, ends, strict=True))
        value = 0.0
        if self.chance(0.4) and not self.is_free and x.scale is not None and x.scale.size == 1:
            value = float(x.scale.reshape(-1)[0]) * self.below(-3, 4)
        if self.net.opset < 11:
            name = self.net.node("Pad", x.name, pads=pads, mode="constant", value=value)
        elif self.net.opset >= 18 and self.chance(0.4):
            axes = self.net.ints(*range(1, rank + 1))
            name = self.net.node("Pad", x.name, self.net.ints(*begins, *ends), np.float32(value), axes)
        else:
            more = [np.float32(value)] if value or self.chance(0.5) else []
            name = self.net.node("Pad", x.name, self.net.ints(*pads), *more)
        return self.moved(x, name, shape)

    def slice(self, x: Live) -> Live:
        axis = self.below(0, len(x.shape))
        if x.shape[axis] < 2 or x.state == "raw":
            raise SkipError
        start, step = self.below(0, x.shape[axis] - 1), self.below(1, 3)
        stop = self.below(start + 1, x.shape[axis] + 1)
        shape = (*x.shape[:axis], len(range(start, stop, step)), *x.shape[axis + 1 :])
        end = self.pick([stop, stop - x.shape[axis] if stop < x.shape[axis] else 1 << 31])
        if self.net.opset < 10:
            if step > 1:
                raise SkipError
            name = self.net.node("Slice", x.name, starts=[start], ends=[end], axes=[axis + 1])
        else:
            given = [self.net.ints(n) for n in (start, end, axis + 1)]
            given += [self.net.ints(step)] if step > 1 or self.chance(0.4) else []
            name = self.net.node("Slice", x.name, *given)
        return self.moved(x, name, shape)

    def split(self, x: Live) -> Live:
        axis = self.below(0, len(x.shape))
        if x.shape[axis] < 2 or x.state == "raw":
            raise SkipError
        first = self.below(1, x.shape[axis])
        sizes = (first, x.shape[axis] - first)
        if self.net.opset >= 13:
            names = self.net.node("Split", x.name, self.net.ints(*sizes), outputs=2, axis=axis + 1)
        else:
            names = self.net.node("Split", x.name, outputs=2, axis=axis + 1, split=sizes)
        for name, size in zip(names, sizes, strict=True):
            y = self.moved(x, name, (*x.shape[:axis], size, *x.shape[axis + 1 :]))
        return y

    def gather(self, x: Live) -> Live:
        axis = self.below(0, len(x.shape))
        if len(x.shape) < 2 or x.state == "raw":
            raise SkipError
        start = self.below(0, x.shape[axis])
        if self.chance(0.5):
            index = self.net.constant(start, np.int64)
            shape = (*x.shape[:axis], *x.shape[axis + 1 :])
        else:
            indices = list(range(start, x.shape[axis], self.below(1, 3)))
            index = self.net.ints(*indices)
            shape = (*x.shape[:axis], len(indices), *x.shape[axis + 1 :])
        return self.moved(x, self.net.node("Gather", x.name, index, axis=axis + 1), shape)

    def passive(self, x: Live) -> Live:
        op = self.pick(["Identity", "Dropout", "Cast"])
        if op == "Cast" and x.state == "sum" and self.chance(0.5):
            parameters = [np.float32(v) for v in (1, 0, 8)]
            options: dict[str, Any] = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
            name = self.net.node("Quant", x.name, *parameters, domain=QONNX, **options)
            x = replace(x, name=name, state="codes", size=128, bound=128, scale=np.ones(1, np.float32))
        if op == "Cast" and x.state == "codes" and x.scale is not None and (x.scale == 1).all():
            integers = self.net.node("Cast", x.name, to=self.pick([TensorProto.INT32, TensorProto.INT64]))
            return self.moved(x, self.net.node("Cast", integers, to=TensorProto.FLOAT), x.shape)
        options = {"to": TensorProto.FLOAT} if op == "Cast" else {}
        more: list[Any] = []
        if op == "Dropout" and self.net.opset >= 12 and self.chance(0.5):
            more = [np.float32(0.5), self.net.constant(False, np.bool_)]
        return self.moved(x, self.net.node(op, x.name, *more, **options), x.shape)

    def view(self, x: Live) -> Live:
        """``x.view(x.size(0), -1)``, as torch exports it."""
        if len(x.shape) < 2 or self.net.opset < 11:
            raise SkipError
        size = self.net.node("Gather", self.net.node("Shape", x.name), self.net.constant(0, np.int64), axis=0)
        sizes = self.with_axes("Unsqueeze", size, 0), self.net.ints(-1)
        shape = self.net.node("Concat", *sizes, axis=0)
        return self.moved(x, self.net.node("Reshape", x.name, shape), (int(np.prod(x.shape)),))


Function = Callable[[_Generator, Live], tuple[str, float]]


def _plain(op: str, size: float | None = None, **options: Any) -> Function:
    """One node; its result is at most ``size`` (None: as large as what it reads)."""

    def append(generator: _Generator, x: Live) -> tuple[str, float]:
        return generator.net.node(op, x.name, **options), x.size if size is None else size

    return append


def _behind_abs(op: str) -> Function:
    """A function of positive numbers."""

    def append(generator: _Generator, x: Live) -> tuple[str, float]:
        positive = generator.net.node("Abs", x.name)
        if op != "Sqrt":
            positive = generator.net.node("Add", positive, np.float32(0.5))
        return generator.net.node(op, positive), 1.0

    return append


def _with_constant(op: str) -> Function:
    def append(generator: _Generator, x: Live) -> tuple[str, float]:
        value = np.float32(2) if op == "Pow" else generator.numbers(x.size, ()).reshape(())
        return generator.net.node(op, x.name, value), x.size**2 if op == "Pow" else x.size

    return append


def _silu(generator: _Generator, x: Live) -> tuple[str, float]:
    return generator.net.node("Mul", x.name, generator.net.node("Sigmoid", x.name)), x.size


def _hard_swish(generator: _Generator, x: Live) -> tuple[str, float]:
    """As exporters of opset 12 write it."""
    moved = generator.net.node("Add", x.name, np.float32(3))
    if generator.net.opset < 11:
        bounded = generator.net.node("Clip", moved, min=0.0, max=6.0)
    else:
        bounded = generator.net.node("Clip", moved, np.float32(0), np.float32(6))
    product = generator.net.node("Mul", x.name, bounded)
    return generator.net.node("Div", product, np.float32(6)), x.size


FUNCTIONS: tuple[tuple[int, Function], ...] = (
    *((9, _plain(op, 1.0)) for op in ("Sigmoid", "Tanh", "HardSigmoid", "Softsign", "Erf", "Sign")),
    *((9, _plain(op)) for op in ("Elu", "Selu", "Softplus", "Abs", "Floor")),
    (10, _plain("ThresholdedRelu")),
    (9, _plain("HardSigmoid", 1.0, alpha=0.3, beta=0.25)),
    (9, _plain("Elu", alpha=0.5)),
    (11, _plain("Round")),
    (12, _plain("Celu", alpha=0.7)),
    (14, _plain("HardSwish")),
    (18, _plain("Mish")),
    (20, _plain("Gelu")),
    (20, _plain("Gelu", approximate="tanh")),
    *((9, _behind_abs(op)) for op in ("Sqrt", "Reciprocal", "Log")),
    (9, _plain("Exp", 8.0)),
    *((9, _with_constant(op)) for op in ("Pow", "Min", "Max")),
    (9, _silu),
    (9, _hard_swish),
)
"""The opset that each came with, and what appends it."""

STEPS: tuple[tuple[float, Callable[[_Generator, Live], Any]], ...] = (
    (10, _Generator.conv),
    (5, _Generator.gemm),
    (4, _Generator.matmul),
    (1, _Generator.left_matmul),
    (1.5, _Generator.attention),
    (9, _Generator.elementwise),
    (3, _Generator.function),
    (3, _Generator.two),
    (3, _Generator.shared_add),
    (1, _Generator.gate),
    (2, _Generator.concat),
    (4, _Generator.pool),
    (2, _Generator.reduce),
    (6, _Generator.movement),
    (4, lambda generator, x: generator.quantised(x)),
)
"""What may be appended, and how often."""

NEW_STEPS: tuple[tuple[float, Callable[[_Generator, Live], Any]], ...] = (
    (4, _Generator.conv_transpose),
    (4, _Generator.resize),
    (4, _Generator.depth_to_space),
)
"""What may be appended besides in the new kinds."""
