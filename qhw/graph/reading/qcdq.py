"""QuantizeLinear, Clip and DequantizeLinear as QONNX's Quant, with exactly their meaning.

ONNX rounds before it adds the zero point, ``saturate(round(x / scale) + zero)``; QONNX adds it before it
rounds, so that a tie may fall to the other side. A quantizer with a zero point therefore becomes a Quant
without one where the codes less the zero point are a plain range, and else a Clip to the ends of that range,
which lie on the grid, in front of a wider Quant. Between QuantizeLinear and DequantizeLinear may stand what
moves integer codes; it then moves the numbers that they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from qhw.errors import InputError, UnsupportedError
from qhw.graph.onnx_tools import attributes, describe, words
from qhw.graph.reading.draft import STANDARD, Draft
from qhw.graph.reading.operators import QDQ_OPS, QHW_DOMAIN, QONNX_DOMAIN

_LIMITS: dict[int, tuple[int, int]] = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-(1 << 15), (1 << 15) - 1),
    TensorProto.UINT16: (0, (1 << 16) - 1),
    TensorProto.INT32: (-(1 << 31), (1 << 31) - 1),
    TensorProto.UINT32: (0, (1 << 32) - 1),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT2: (-2, 1),
    TensorProto.UINT2: (0, 3),
}
"""Codes of the integer types that quantised tensors have."""

_FORMATS: dict[int, str] = {
    TensorProto.FLOAT8E4M3FN: "e4m3fn",
    TensorProto.FLOAT8E5M2: "e5m2ieee",
    TensorProto.FLOAT8E4M3FNUZ: "e4m3fnuz",
    TensorProto.FLOAT8E5M2FNUZ: "e5m2fnuz",
    TensorProto.FLOAT4E2M1: "e2m1",
}
"""Formats of the floating-point types that quantised tensors have."""

_MOVING = words(
    "Concat DepthToSpace Flatten Gather Identity MaxPool Reshape Slice SpaceToDepth Split Squeeze Transpose "
    "Unsqueeze"
)
"""Operators allowed between the two: they move codes and change none."""


@dataclass(frozen=True)
class Codes:
    """What the integers of a tensor stand for: ``(code - zero) * scale``, codes in [low, high].

    ``scale`` and ``zero`` broadcast over the tensor; ``kind`` is the ONNX element type.
    """

    kind: int
    scale: NDArray[np.float32]
    zero: NDArray[np.int64]
    low: int
    high: int

    def means_the_same(self, other: Codes) -> bool:
        """Whether codes of both stand for the same numbers."""
        return (
            self.kind == other.kind
            and np.array_equal(np.squeeze(self.scale), np.squeeze(other.scale))
            and np.array_equal(np.squeeze(self.zero), np.squeeze(other.zero))
        )


def fuse_qdq(draft: Draft) -> bool:
    """QuantizeLinear, what moves its codes, and DequantizeLinear become quantizers and movements of numbers.

    Returns:
        whether there were any.

    Raises:
        UnsupportedError, InputError: a node has no such meaning; the message names it.
    """
    if not any(node.op_type in QDQ_OPS and node.domain == STANDARD for node in draft.graph.node):
        return False
    _Fusion(draft).run()
    return True


class _Fusion:
    def __init__(self, draft: Draft):
        self.draft = draft
        self.codes: dict[str, Codes] = {}
        """Tensors that held codes and now hold the numbers that they stand for."""
        self.numbers: dict[str, str] = {}
        """The name of the first DequantizeLinear's result, for the codes that it reads."""
        self.clips = self._clips()

    def _clips(self) -> dict[str, NodeProto]:
        """The Clip that alone reads a QuantizeLinear's codes, by the name of these."""
        found = {}
        for name, readers in self.draft.readers().items():
            if len(readers) == 1 and readers[0].op_type == "Clip" and readers[0].input[0] == name:
                found[name] = readers[0]
        return found

    def run(self) -> None:
        self.draft.rewrite(self._changed)
        for name in self.draft.outputs:
            if name in self.codes:
                raise UnsupportedError(
                    f"The output '{name}' holds the codes of a QuantizeLinear",
                    allowed="outputs that are numbers",
                    hint="end the model with a DequantizeLinear",
                )
        self._rename()

    def _rename(self) -> None:
        """Numbers get the name that a DequantizeLinear gave them: the codes are no tensor any more."""
        for node in self.draft.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = self.numbers.get(name, name)

    def _changed(self, node: NodeProto) -> list[NodeProto] | None:
        if node.domain != STANDARD:
            return None
        if node.op_type == "QuantizeLinear":
            return self._quantize(node)
        if node.op_type == "DequantizeLinear":
            return self._dequantize(node)
        if not any(name in self.codes for name in node.input):
            return None
        if node.op_type == "Clip":
            return self._clip(node)
        return self._moved(node)

    # --- the three kinds of nodes ---

    def _quantize(self, node: NodeProto) -> list[NodeProto]:
        codes = self._codes_of(node, node.input[0])
        low, high = self._clipped(node.output[0], codes)
        codes = Codes(codes.kind, codes.scale, codes.zero, low, high)
        self.codes[node.output[0]] = codes
        return self._quantizer(node, node.input[0], node.output[0], codes)

    def _dequantize(self, node: NodeProto) -> list[NodeProto]:
        source = node.input[0]
        codes = self._codes_of(node, source)
        known = self.codes.get(source)
        if known is not None:
            if not codes.means_the_same(known):
                raise UnsupportedError(
                    f"{describe(node)} has another scale or zero point than the QuantizeLinear before it",
                    hint="export both with the same parameters; a change of scale is a Mul",
                )
            if self.numbers.setdefault(source, node.output[0]) == node.output[0]:
                return []
            return [self.draft.node(node, "Identity", [source], node.output[0])]
        if source not in self.draft.constants:
            raise UnsupportedError(
                f"{describe(node)} reads '{source}', integers that no QuantizeLinear has made",
                hint="give the model float inputs, each with a QuantizeLinear and a DequantizeLinear",
            )
        integers = self.draft.constants[source]
        if codes.kind in _FORMATS:
            value = integers.astype(np.float32) * codes.scale
            return self._quantizer(node, self.draft.constant(f"{source}_value", value), node.output[0], codes)
        shifted = integers.astype(np.int64) - codes.zero
        value = np.asarray(shifted.astype(np.float32) * codes.scale, dtype=np.float32)
        low, high = int(shifted.min(initial=0)), int(shifted.max(initial=0))
        stored = self.draft.constant(f"{source}_value", value)
        limits = _LIMITS[codes.kind]
        width = (limits[1] - limits[0]).bit_length()
        bits, signed, narrow = _constant_type(low, high, width)
        return [self._quant(node, stored, node.output[0], codes.scale, bits, signed, narrow)]

    def _clip(self, node: NodeProto) -> list[NodeProto]:
        """Its bounds are in the quantizer already."""
        source = node.input[0]
        clip = self.clips.get(source)
        if clip is None or clip.name != node.name or source not in self.codes:
            raise UnsupportedError(
                f"{describe(node)} clips codes that something else reads or has moved, too",
                hint="let one Clip alone follow the QuantizeLinear",
            )
        self.codes[node.output[0]] = self.codes[source]
        return [self.draft.node(node, "Identity", [source], node.output[0])]

    def _moved(self, node: NodeProto) -> list[NodeProto] | None:
        known = [self.codes.get(name) for name in node.input]
        data = known if node.op_type == "Concat" else known[:1]
        first = data[0]
        if node.op_type not in _MOVING or first is None or any(c is None for c in data):
            raise UnsupportedError(
                f"{describe(node)} computes with the codes of a QuantizeLinear",
                allowed=f"between QuantizeLinear and DequantizeLinear: {', '.join(sorted(_MOVING))}, Clip",
                hint="quantise in the QDQ format, with a DequantizeLinear in front of every operator",
            )
        if any(c is not None and not c.means_the_same(first) for c in data) or first.scale.size > 1:
            raise UnsupportedError(
                f"{describe(node)} joins codes of different scales, or has one scale per channel",
                hint="put a DequantizeLinear in front of it",
            )
        for name in node.output:
            self.codes[name] = first
        return None

    # --- parameters ---

    def _codes_of(self, node: NodeProto, tensor: str) -> Codes:
        """What the codes of a QuantizeLinear or DequantizeLinear stand for, broadcast over ``tensor``."""
        options = attributes(node)
        if options.get("block_size"):
            raise UnsupportedError(
                f"{describe(node)} has a scale per block of {options['block_size']}",
                allowed="one scale per tensor or per channel",
            )
        scale = self._parameter(node, 1, "scale")
        zero_name = node.input[2] if len(node.input) > 2 else ""
        zero = self._parameter(node, 2, "zero point") if zero_name else np.zeros((), dtype=np.int64)
        kind = self._kind(node, tensor, zero_name, options)
        if kind not in _LIMITS and kind not in _FORMATS:
            name = TensorProto.DataType.Name(kind)
            raise UnsupportedError(
                f"{describe(node)} has codes of type {name}",
                allowed=", ".join(TensorProto.DataType.Name(k) for k in (*_LIMITS, *_FORMATS)),
            )
        if not (scale > 0).all():
            raise InputError(f"{describe(node)} has a scale that is not positive", allowed="numbers above 0")
        if kind in _FORMATS:
            if zero.any():
                raise UnsupportedError(f"{describe(node)} has a zero point", allowed="0 for float codes")
            low = high = 0
        else:
            low, high = _LIMITS[kind]
        shape = self._broadcast(node, tensor, scale.size, options)
        whole = np.asarray(zero).astype(np.int64)
        if whole.size not in (1, scale.size):
            raise InputError(
                f"{describe(node)} has {whole.size} zero points for {scale.size} scales",
                allowed="one for all, or one for each scale",
            )
        whole = whole.reshape(shape if whole.size > 1 else ())
        return Codes(kind, scale.astype(np.float32).reshape(shape), whole, low, high)

    def _parameter(self, node: NodeProto, index: int, what: str) -> NDArray[Any]:
        name = node.input[index]
        if name not in self.draft.constants:
            raise UnsupportedError(
                f"{describe(node)}: its {what} '{name}' is computed",
                allowed="constants",
                hint="quantise statically (quantize_static), and export in evaluation mode",
            )
        return self.draft.constants[name]

    def _kind(self, node: NodeProto, tensor: str, zero: str, options: dict[str, Any]) -> int:
        """The element type of the codes: by the zero point, the constant, an attribute, or uint8."""
        if node.op_type == "DequantizeLinear" and tensor in self.draft.constants:
            return self.draft.types[tensor]
        if zero:
            return self.draft.types[zero]
        known = self.codes.get(tensor)
        if node.op_type == "DequantizeLinear" and known is not None:
            return known.kind
        return int(options.get("output_dtype") or TensorProto.UINT8)

    def _broadcast(self, node: NodeProto, tensor: str, size: int, options: dict[str, Any]) -> tuple[int, ...]:
        """The shape in which one number per index of the axis broadcasts over the tensor."""
        if size == 1:
            return ()
        shape = self.draft.shape(tensor)
        axis = int(options.get("axis", 1))
        if not -len(shape) <= axis < len(shape) or shape[axis] != size:
            raise InputError(
                f"{describe(node)} has {size} scales along axis {axis} of a tensor of shape {shape}",
                hint="state the axis that has one scale per index",
            )
        return tuple(size if i == axis % len(shape) else 1 for i in range(len(shape)))

    def _clipped(self, output: str, codes: Codes) -> tuple[int, int]:
        """The bounds of the codes that a QuantizeLinear writes, with those of the Clip behind it."""
        clip, bounds = self.clips.get(output), [codes.low, codes.high]
        if clip is None:
            return codes.low, codes.high
        for index, name in enumerate([*clip.input[1:], "", ""][:2]):
            if name:
                bound = int(self._parameter(clip, index + 1, "bound").reshape(-1)[0])
                bounds[index] = min(max(bound, codes.low), codes.high)
        if bounds[0] > bounds[1]:
            raise InputError(f"{describe(clip)} has bounds {bounds[0]} and {bounds[1]}")
        return bounds[0], bounds[1]

    # --- what is made ---

    def _quantizer(self, node: NodeProto, x: str, output: str, codes: Codes) -> list[NodeProto]:
        if codes.kind in _FORMATS:
            return [self._format_quant(node, x, output, codes)]
        lows, highs = codes.low - codes.zero, codes.high - codes.zero
        low, high = int(lows.min()), int(highs.max())
        plain = _plain_range(low, high) if lows.size == 1 or not np.ptp(lows) else None
        if plain is not None:
            return [self._quant(node, x, output, codes.scale, *plain)]
        ends = [
            np.asarray(bound.astype(np.float32) * codes.scale, dtype=np.float32) for bound in (lows, highs)
        ]
        if ends[0].size == 1:
            bounds = [
                self.draft.constant(f"{node.name}_{end}", value.reshape(()))
                for end, value in zip(("low", "high"), ends, strict=True)
            ]
            before = [self.draft.node(node, "Clip", [x, *bounds], suffix="_clip")]
        else:
            above = self.draft.node(
                node, "Max", [x, self.draft.constant(f"{node.name}_low", ends[0])], suffix="_max"
            )
            below = self.draft.node(
                node,
                "Min",
                [above.output[0], self.draft.constant(f"{node.name}_high", ends[1])],
                suffix="_min",
            )
            before = [above, below]
        bits, signed = _holding(low, high)
        made = self._quant(node, before[-1].output[0], output, codes.scale, bits, signed, 0)
        return [*before, made]

    def _quant(
        self,
        node: NodeProto,
        x: str,
        output: str,
        scale: NDArray[np.float32],
        bits: int,
        signed: int,
        narrow: int,
    ) -> NodeProto:
        parameters = {"scale": scale, "zero": np.float32(0), "bits": np.float32(bits)}
        stored = [self.draft.constant(f"{node.name}_{k}", np.asarray(v)) for k, v in parameters.items()]
        made = self.draft.node(
            node, "Quant", [x, *stored], output, signed=signed, narrow=narrow, rounding_mode="ROUND"
        )
        made.domain = QONNX_DOMAIN
        return made

    def _format_quant(self, node: NodeProto, x: str, output: str, codes: Codes) -> NodeProto:
        if not attributes(node).get("saturate", 1):
            raise UnsupportedError(f"{describe(node)} does not saturate", allowed="saturate=1")
        scale = self.draft.constant(f"{node.name}_scale", codes.scale)
        made = self.draft.node(node, "FormatQuant", [x, scale], output, format=_FORMATS[codes.kind])
        made.domain = QHW_DOMAIN
        return made


def _plain_range(low: int, high: int) -> tuple[int, int, int] | None:
    """Bits, signed and narrow of the Quant whose codes are exactly these; None if there is none."""
    span = high - low + 1
    if low == 0 and span & (span - 1) == 0 and span > 1:
        return span.bit_length() - 1, 0, 0
    if low == -high - 1 and span & (span - 1) == 0:
        return span.bit_length() - 1, 1, 0
    if low == -high and (high + 1) & high == 0 and high > 0:
        return high.bit_length() + 1, 1, 1
    return None


def _holding(low: int, high: int) -> tuple[int, int]:
    """Bits and sign of the smallest Quant that has all codes from low to high."""
    if low >= 0:
        return max(1, high.bit_length()), 0
    return max((-low - 1).bit_length(), high.bit_length()) + 1, 1


def _constant_type(low: int, high: int, width: int) -> tuple[int, int, int]:
    """Bits, signed and narrow of a constant's Quant: its type's own width, where its codes fit in that."""
    bits, signed = _holding(low, high)
    if signed or bits < width:
        signed = 1
    return (max(bits, width), signed, 0) if signed else (bits, 0, 0)
