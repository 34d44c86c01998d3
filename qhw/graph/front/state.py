"""What a lowering knows while it walks through the model: values of tensors, and the graph so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper
from qonnx.core.modelwrapper import ModelWrapper

from qhw.errors import UnsupportedError
from qhw.formats.integer import Integer
from qhw.formats.modes import Overflow, Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.front.dyadic import Dyadic
from qhw.graph.front.values import Activation, Clamped, Floating, Lowered, RawInput, Scale
from qhw.graph.ir import InputEncoding
from qhw.graph.onnx_tools import attributes, initializers
from qhw.graph.tails.tail import Tail

SHORT = 16
"""Bits of a constant that no quantizer chose, and that is still taken for an exact one."""


class InexactError(UnsupportedError):
    """Integer operations alone do not give this node's numbers; the tail that it belongs to may."""


@dataclass
class NodeView:
    """An ONNX node as the rules read it."""

    proto: NodeProto
    options: dict[str, Any]
    output_shapes: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        return self.proto.name

    @property
    def op(self) -> str:
        return self.proto.op_type

    def __str__(self) -> str:
        return f"{self.op} '{self.name}'"

    def refuse(self, what: str, *, allowed: str | None = None, hint: str | None = None) -> UnsupportedError:
        """The error that names this node."""
        return UnsupportedError(f"{self}: {what}", allowed=allowed, hint=hint)

    def inexact(self, what: str, *, allowed: str | None = None, hint: str | None = None) -> InexactError:
        """The error that names this node, where only its numbers keep it from integer operations."""
        return InexactError(f"{self}: {what}", allowed=allowed, hint=hint)


@dataclass
class State:
    """The values of the model's tensors so far, and the graph that they make.

    Args:
        derived: tensors that integer operations hold exactly, though they belong to a tail: what comes after
            them may need that tail's own operations.
        tails: the float32 operations that a Threshold or Table stands for, by the tensor that it writes.
        reasons: why tensors became tails, first one first.
    """

    model: ModelWrapper
    builder: GraphBuilder
    values: dict[str, Lowered] = field(default_factory=dict)
    producers: dict[str, NodeProto] = field(default_factory=dict)
    derived: set[str] = field(default_factory=set)
    tails: dict[str, Tail] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    floats: dict[str, Floating] = field(default_factory=dict)
    _constants: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _inputs: dict[str, int] = field(default_factory=dict)
    _clamped: dict[Clamped, str] = field(default_factory=dict)
    _moved: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ModelWrapper) -> State:
        """The state before the first node: constants and graph inputs."""
        state = cls(model, GraphBuilder(model.graph.name or "model"))
        state.producers = {name: node for node in model.graph.node for name in node.output}
        for name, value in initializers(model.graph).items():
            if value.dtype.kind in "biuf" and np.isfinite(value).all():
                # What is annotated as integers was quantised before the file was written.
                is_integer = bool(model.get_tensor_datatype(name).is_integer())
                state.values[name] = Dyadic.of(value, on_grid=is_integer and value.dtype.kind == "f")
        for value in model.graph.input:
            state.values[value.name] = raw_input(model, value.name)
        return state

    def view(self, node: NodeProto) -> NodeView:
        shapes = tuple(tuple(self.model.get_tensor_shape(name) or ()) for name in node.output if name)
        return NodeView(node, attributes(node), shapes)

    def stored(self, name: str) -> NDArray[Any] | None:
        """A constant as the file holds it (also an infinite one)."""
        value = self.model.get_initializer(name) if name else None
        return None if value is None else np.asarray(value)

    def numbers(self, node: NodeView, index: int) -> list[int]:
        """The whole numbers of an input that the normal form has as a constant."""
        return [int(n) for n in np.asarray(self.stored(node.proto.input[index])).reshape(-1)]

    def known(self, name: str) -> NDArray[np.float32] | None:
        """The float32 numbers of a constant, quantised or not; None for what is computed."""
        value = self.values.get(name)
        if isinstance(value, Dyadic):
            return value.float32()
        stored = self.stored(name)
        return None if stored is None else np.asarray(stored, dtype=np.float32)

    # --- operands ---

    def operand(self, node: NodeView, index: int = 0) -> Activation | Clamped | RawInput | Floating:
        """An input that must be computed."""
        value = self.values[node.proto.input[index]]
        if isinstance(value, Dyadic):
            raise node.refuse(f"its input '{node.proto.input[index]}' is a constant")
        return value

    def tensor(self, node: NodeView, index: int = 0) -> str:
        """An input as a tensor of the graph that holds it exactly, with whatever is pending carried out."""
        return self.settle(node, self.operand(node, index))

    def settle(self, node: NodeView, value: Activation | Clamped | RawInput | Floating) -> str:
        """Carry out what is pending on a value; its tensor.

        Raises:
            InexactError: the tensor is in the middle of a tail, or at a free scale.
        """
        tensor, scale = self.scaled_tensor(node, value)
        if scale is not None:
            raise node.inexact(f"its input has a scale of {scale.values[0]:g}, which is no power of two")
        return tensor

    def scaled_tensor(
        self, node: NodeView, value: Activation | Clamped | RawInput | Floating
    ) -> tuple[str, Scale | None]:
        """Carry out what is pending on a value; the tensor of its integers, and their free scale if any."""
        match value:
            case Activation():
                return value.tensor, value.scale
            case Clamped():
                if value not in self._clamped:
                    self._clamped[value] = self._clamp(node, value)
                return self._clamped[value], value.scale
            case RawInput():
                return self.read_input(node, value), None
            case Floating():
                raise node.inexact(f"it reads numbers that are not quantised ({value.spelled})")

    def moved(self, tensor: str, value: RawInput | Floating) -> str:
        """The tensor behind the movements that wait on a value; the same one is made once."""
        for move in value.moves:
            key = (tensor, move.name)
            if key not in self._moved:
                self._moved[key] = move.tensor(tensor, move.name)
            tensor = self._moved[key]
        return tensor

    def rank(self, tensor: str) -> int:
        return len(self.builder.type(tensor).shape)

    def short(self, node: NodeView, value: Dyadic) -> Dyadic:
        """The constant, if it is on a quantizer's grid or needs few bits anyway."""
        if value.on_grid:
            return value
        if value.width > SHORT:
            raise node.inexact(
                f"a constant that it reads is not quantised (its numbers need {value.width} bits)",
                allowed=f"quantised constants, or numbers of at most {SHORT} bits times one power of two",
            )
        return value.reduced()

    def constant(
        self, name: str, value: Dyadic, axis: int | None = None, shape: Sequence[int] | None = None
    ) -> str:
        """A constant of the graph; equal ones are one."""
        mantissa, exponent = value.typed(axis)
        if shape is not None:
            mantissa = mantissa.reshape(tuple(shape))
        # Mantissas that were aligned to another exponent are no longer the format's.
        format = value.format if value.format is not None and value.format.holds(mantissa) else None
        key = (
            mantissa.shape,
            exponent,
            str(format),
            tuple(mantissa.flat) if mantissa.dtype == object else mantissa.tobytes(),
        )
        if key not in self._constants:
            self._constants[key] = self.builder.constant(name, mantissa, format, exponent)
        return self._constants[key]

    # --- what is pending ---

    def read_input(self, node: NodeView, value: RawInput) -> str:
        """Declare an integer input at the first exponent that is asked for, shift for any other."""
        if value.integers is None:
            raise node.inexact(
                f"it reads the float input '{value.name}' without a quantizer",
                allowed="a quantizer as the first node, or an input annotated as an integer",
                hint="quantise the model's input (QuantIdentity in Brevitas), or say of what type it is "
                "(--input uint8; set_tensor_datatype in qonnx)",
            )
        if value.name not in self._inputs:
            low, high = value.integers
            encoding = InputEncoding(1.0, 0.0, low, high, Rounding.RND_CONV, exact=True)
            self.builder.input(value.name, value.shape, Integer.holding(low, high), value.exponent, encoding)
            self._inputs[value.name] = value.exponent
        x = self.scaled(node, value.name, value.exponent - self._inputs[value.name])
        return self.moved(x, value)

    def declare_float_input(
        self, node: NodeView, value: RawInput, encoding: InputEncoding, exponent: int
    ) -> str:
        """Declare a float input that a quantizer reads; a second quantizer must say the same.

        What moves it about is left to the caller: operations may stand in between.
        """
        known = self.builder.graph.input_encodings.get(value.name)
        if known is None:
            zero = int(encoding.zero_point)
            format = encoding.format or Integer.holding(encoding.low - zero, encoding.high - zero)
            self.builder.input(value.name, value.shape, format, exponent, encoding)
        elif known != encoding:
            raise node.refuse(
                f"it quantises the input '{value.name}' in another way than a quantizer before it",
                allowed="one quantizer for every float input",
                hint="quantise it once, and let both branches read that",
            )
        return value.name

    def scaled(self, node: NodeView, tensor: str, power: int, suffix: str = "_scale") -> str:
        """The tensor times a power of two."""
        if power == 0:
            return tensor
        return self.affine(node, tensor, Dyadic.power(power), None, suffix)

    def affine(
        self, node: NodeView, x: str, multiplier: Dyadic, offset: Dyadic | None = None, suffix: str = ""
    ) -> str:
        """``x * multiplier + offset`` by constants per channel or per tensor."""
        name = f"{node.name}{suffix}"
        factor = self.constant(f"{name}_multiplier", *_per_channel(multiplier))
        addend = None if offset is None else self.constant(f"{name}_offset", *_per_channel(offset))
        x = x if self._by_channel(x) else self.builder.uniform(f"{name}_aligned", x, source=node.name)
        return self.builder.affine(name, x, factor, addend, source=node.name)

    def _by_channel(self, x: str) -> bool:
        return self.builder.type(x).exponent.axis in (None, 0)

    def _clamp(self, node: NodeView, value: Clamped) -> str:
        """A Clip of its own: exact, at an exponent that holds its bounds."""
        bounds = [bound for bound in (value.low, value.high) if bound is not None]
        x = value.tensor
        if any(bounds):
            x = self.builder.uniform(f"{value.source}_aligned", x, source=value.source)
        finest = min((bound_exponent(b) for b in bounds if b), default=0)
        current = min(self.builder.type(x).exponent.values)
        if finest < current:
            if current - finest > SHORT:
                raise node.inexact(f"the bounds of '{value.source}' are not on a coarse grid")
            x = self.builder.exact_at(f"{value.source}_fine", x, finest, source=value.source)
        return self._clamp_aligned(value, x)

    def _clamp_aligned(self, value: Clamped, x: str) -> str:
        exponent = self.builder.type(x).exponent
        unit = Fraction(2) ** min(exponent.values)
        x_low, x_high = self.builder.ranges[x].bounds
        low = x_low if value.low is None else int(value.low / unit)
        high = x_high if value.high is None else int(value.high / unit)
        if low <= x_low and high >= x_high:
            return x
        format = Integer.holding(min(max(x_low, low), high), max(min(x_high, high), low))
        return self.builder.requant(
            value.source,
            x,
            format,
            exponent,
            rounding=Rounding.TRN,
            overflow=Overflow.SAT,
            low=low if low > x_low and low != format.mantissa_low else None,
            high=high if high < x_high and high != format.mantissa_high else None,
            source=value.source,
        )


Rule: TypeAlias = Callable[[State, NodeView], "Lowered | Sequence[Lowered]"]
RULES: dict[str, Rule] = {}
"""How each ONNX operator is lowered; the modules of this package fill it."""


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Register the rule of an operator."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return register


def raw_input(model: ModelWrapper, name: str) -> RawInput:
    """A graph input as the model declares it: an integer by element type or by annotation, else a float."""
    shape = tuple((model.get_tensor_shape(name) or [])[1:])
    element = np.dtype(_numpy_type(model, name))
    if element.kind in "iub":
        limits = (0, 1) if element.kind == "b" else (int(np.iinfo(element).min), int(np.iinfo(element).max))
        return RawInput(name, shape, limits)
    datatype = model.get_tensor_datatype(name)
    if datatype.is_integer() and not str(datatype.name).startswith("SCALEDINT"):
        return RawInput(name, shape, (int(datatype.min()), int(datatype.max())))
    return RawInput(name, shape, None)


def _numpy_type(model: ModelWrapper, name: str) -> Any:
    (value,) = (v for v in model.graph.input if v.name == name)
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)


def without_batch(node: NodeView, value: Dyadic, rank: int) -> Dyadic:
    """A constant without the batch axis that it broadcasts over."""
    if value.ndim <= rank:
        return value
    if value.ndim > rank + 1 or value.shape[0] != 1:
        raise node.refuse(f"a constant of shape {value.shape} would broadcast along the batch axis")
    return value.moved(lambda array: array[0])


def is_per_channel(value: Dyadic, shape: Sequence[int]) -> bool:
    """Whether a constant differs along axis 0 of an activation at most."""
    lead = (1,) * (len(shape) - value.ndim) + value.shape
    return all(size == 1 for size in lead[1:]) and (not lead or lead[0] in (1, *shape[:1]))


def _per_channel(value: Dyadic) -> tuple[Dyadic, int | None, tuple[int, ...]]:
    """A constant of one number per channel as the axis and shape that Affine takes."""
    size = int(np.prod(value.shape, dtype=np.int64))
    flat = value.moved(lambda array: array.reshape(-1))
    return (flat, 0, (size,)) if size > 1 else (flat, None, ())


def bound_exponent(value: Fraction) -> int:
    """The coarsest exponent whose grid holds a dyadic number."""
    twos = (abs(value.numerator) & -abs(value.numerator)).bit_length() - 1
    return twos - (value.denominator.bit_length() - 1)


def with_exponent(value: RawInput, more: int) -> RawInput:
    """An input times another power of two."""
    return replace(value, exponent=value.exponent + more)
