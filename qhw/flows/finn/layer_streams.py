"""The AXI streams of a FINN layer: which words a tensor's elements travel in, and in which order.

A word holds the last axis of FINN's folded shape, its first element in the lowest bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.errors import InputError, UnsupportedError
from qhw.formats.modes import IntArray
from qhw.outside import read_bytes
from qhw.rtl.base import Port
from qhw.rtl.simulation.verilator import Words, pack

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

WORD = 32
"""Bits of the words that simulations read and write: a stream's word is padded to whole ones."""


@dataclass(frozen=True)
class Stream:
    """A stream of a layer.

    Args:
        port: the name of its ports without their endings, e.g. ``in0_V``.
        tensor: what travels on it.
        shape: the tensor's, without the batch axis.
        lanes: elements of a word.
        bits: of an element.
        low, high: the numbers that an element may be.
        window: kernel positions, where a depthwise window travels in blocks of channels; the tensor has its
            kernel positions outermost.
        block: channels of such a block.
    """

    port: str
    tensor: str
    shape: tuple[int, ...]
    lanes: int
    bits: int
    low: int
    high: int
    window: int = 1
    block: int = 1

    @property
    def width(self) -> int:
        """Bits of a word; AXI pads them to whole bytes."""
        return self.lanes * self.bits

    @property
    def row(self) -> int:
        """32-bit words that a word takes in a simulation's files."""
        return -(-self.width // WORD)

    @property
    def words(self) -> int:
        """Words of one vector."""
        return math.prod(self.shape) // self.lanes

    def packed(self, values: NDArray[np.floating[Any]]) -> Words:
        """Values (N, *shape) as rows of words, in the order in which they travel."""
        return pack([Port("data", self.bits, self.lanes)], {"data": self._codes(self.ordered(values))})

    def ordered(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (N, *shape) as rows of elements, shape (words, lanes)."""
        if self.window > 1:
            blocks = values.reshape(-1, self.window, self.shape[-1] // self.window // self.block, self.block)
            values = blocks.transpose(0, 2, 1, 3)
        return values.reshape(-1, self.lanes)

    def _codes(self, values: NDArray[Any]) -> IntArray:
        codes = values.astype(np.int64)
        return (codes + 1) // 2 if self._is_bipolar else codes

    @property
    def _is_bipolar(self) -> bool:
        """Whether the two numbers are -1 and 1, as the bits 0 and 1."""
        return self.bits == 1 and self.low < 0

    def unpacked(self, rows: Words) -> IntArray:
        """The elements of rows of words, shape (words, lanes)."""
        bits = np.unpackbits(np.ascontiguousarray(rows).view(np.uint8), axis=1, bitorder="little")
        lanes = bits[:, : self.width].reshape(-1, self.bits)
        padded = np.pad(lanes, ((0, 0), (0, 64 - self.bits)))
        codes = np.packbits(padded, axis=1, bitorder="little").view("<i8").reshape(-1, self.lanes)
        if self._is_bipolar:
            return 2 * codes - 1
        if self.low < 0:
            codes -= (codes >> (self.bits - 1)) << self.bits
        return codes

    def differences(self, rows: Words, values: NDArray[Any]) -> tuple[int, str | None]:
        """How many elements of what a simulation gave are not those of values (N, *shape), and the first.

        Elements that never came differ, and so do elements that came too many.
        """
        count, first = 0, None
        for start, part in chunks(self, values):
            given = rows[start * self.words : (start + len(part)) * self.words]
            wrong, where = self._compared(given, part, start)
            count, first = count + wrong, first or where
        expected = len(values) * self.words
        count += abs(len(rows) - expected) * self.lanes
        if len(rows) != expected:
            first = first or f"{self.tensor}: {len(rows)} of {expected} words came"
        return count, first

    def _compared(self, rows: Words, values: NDArray[Any], start: int) -> tuple[int, str | None]:
        """The same for the words that came, of vectors from ``start`` on."""
        given, ordered = rows.copy(), self.ordered(values)[: len(rows)]
        if spare := -self.width % WORD:
            given[:, -1] &= np.uint32((1 << (WORD - spare)) - 1)  # AXI leaves the padding open
        odd = np.any(given != self.packed(values)[: len(rows)], axis=1)
        # Words hold the lowest bits alone: numbers that do not fit are compared as numbers.
        odd |= np.any((ordered < self.low) | (ordered > self.high) | (ordered % 1 != 0), axis=1)
        suspects = np.flatnonzero(odd)
        numbers = self.unpacked(given[suspects])
        wrong = numbers != ordered[suspects]
        if not wrong.any():
            return 0, None
        row, lane = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        where = self._place(start, int(suspects[row]) * self.lanes + int(lane))
        expected = ordered[suspects[row], lane]
        return int(wrong.sum()), f"{where}: {numbers[row, lane]}, expected {expected:g}"

    def _place(self, start: int, position: int) -> str:
        """Where the element at a position of the stream, from vector ``start`` on, lies in its tensor."""
        size = math.prod(self.shape)
        vector, rest = divmod(position, size)
        order = self.ordered(np.arange(size).reshape(1, *self.shape)).reshape(-1)
        index = ", ".join(str(int(i)) for i in np.unravel_index(int(order[rest]), self.shape))
        return f"{self.tensor}, vector {start + vector}, element ({index})"


def input_streams(model: ModelWrapper, node: Any, operator: Any) -> list[Stream]:
    """The streams of a layer's computed inputs; raises UnsupportedError for one that is not of integers."""
    return [
        _stream(
            f"in{index}_V",
            name,
            operator.get_input_datatype(index),
            operator.get_normal_input_shape(index),
            operator.get_folded_input_shape(index),
            _window(operator, reads=True),
        )
        for index, name in enumerate(node.input)
        if model.get_initializer(name) is None
    ]


def output_streams(node: Any, operator: Any) -> list[Stream]:
    """The streams of a layer's outputs; errors as for :func:`input_streams`."""
    return [
        _stream(
            f"out{index}_V",
            name,
            operator.get_output_datatype(index),
            operator.get_normal_output_shape(index),
            operator.get_folded_output_shape(index),
            _window(operator, reads=False),
        )
        for index, name in enumerate(node.output)
    ]


def _stream(
    port: str, tensor: str, kind: Any, shape: Any, folded: Any, window: tuple[int, int] = (1, 1)
) -> Stream:
    if not kind.is_integer():
        raise UnsupportedError(f"{tensor} is of {kind.name}: streams of integers alone are simulated")
    low, high = int(kind.min()), int(kind.max())
    sizes = tuple(int(size) for size in shape)
    return Stream(port, tensor, sizes[1:], int(folded[-1]), kind.bitwidth(), low, high, *window)


def _window(operator: Any, *, reads: bool) -> tuple[int, int]:
    """Kernel positions and block of a stream that carries depthwise windows; (1, 1) for another."""
    kind = operator.onnx_node.op_type.rsplit("_", 1)[0]
    if kind == "ConvolutionInputGenerator" and not reads and operator.get_nodeattr("depthwise"):
        return math.prod(operator.get_nodeattr("ConvKernelDim")), operator.get_nodeattr("SIMD")
    if kind == "VVAU" and reads:
        return math.prod(operator.get_nodeattr("Kernel")), operator.get_nodeattr("PE")
    if kind == "Pool" and reads:
        return math.prod(operator.get_nodeattr("KernelSize")), operator.get_nodeattr("PE")
    return 1, 1


def checked(stream: Stream, values: NDArray[Any] | None) -> NDArray[Any]:
    """The values of a stream's tensor; raises InputError where there are none, or of another shape."""
    if values is None:
        raise InputError(f"no array is given for tensor '{stream.tensor}' of the dataflow model")
    if values.shape[1:] != stream.shape:
        raise InputError(
            f"tensor '{stream.tensor}' of the dataflow model has shape {values.shape}",
            allowed=f"(N, *{stream.shape})",
        )
    return values


_CHUNK = 1 << 20
"""Elements that are packed at a time: bounds the memory."""

_LONGEST = 64 << 30
"""Bytes of a simulation's files, which lie in a folder made for them."""


def chunks(stream: Stream, values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Values (N, *shape) some vectors at a time, with the number of the first."""
    step = max(1, _CHUNK // math.prod(stream.shape))
    for start in range(0, len(values), step):
        yield start, values[start : start + step]


def write_words(path: Path, stream: Stream, values: NDArray[Any]) -> None:
    """Write values (N, *shape) as the words that a simulation reads."""
    with path.open("wb") as file:
        for _, part in chunks(stream, values):
            file.write(stream.packed(part).tobytes())


def read_words(path: Path, stream: Stream) -> Words:
    """The words that a simulation wrote, shape (words, row)."""
    content = read_bytes(path, "simulation's output", _LONGEST)
    return np.frombuffer(content, dtype=np.uint32).reshape(-1, stream.row)
