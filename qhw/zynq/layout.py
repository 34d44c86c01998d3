"""How a tensor lies in memory, where AXI DMA reads and writes it: elements, words, beats."""

from __future__ import annotations

from dataclasses import dataclass

from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat

BEAT_BITS = 64
"""Bits of the data of a DMA engine's streams, and of the high-performance ports of Zynq-7000."""


@dataclass(frozen=True, eq=False)
class DmaTensor:
    """A tensor at an end of a design.

    An element lies in 8, 16, 32 or 64 bits, sign-extended where it is signed. A word of the design, a few
    elements, takes the next power of two of them within a beat, or whole beats where it is longer than one.
    An image takes whole beats.

    Args:
        tensor: the graph's.
        shape: the tensor's.
        order: the place in the row-major tensor of each element, as they come.
        lanes: elements of the design's word.
        bits: of an element.
        signed: whether an element is two's complement.
        format: of elements that are codes and no integers; None where they are.
    """

    tensor: str
    shape: tuple[int, ...]
    order: IntArray
    lanes: int
    bits: int
    signed: bool
    format: TableFormat | None = None

    @property
    def is_carried(self) -> bool:
        """Whether an element fits a beat."""
        return self.bits <= BEAT_BITS

    @property
    def container_bits(self) -> int:
        """Bits that an element takes in memory."""
        return max(8, 1 << (self.bits - 1).bit_length())

    @property
    def words(self) -> int:
        """Words of an image."""
        return int(self.order.size) // self.lanes

    @property
    def word_elements(self) -> int:
        """Elements that a word takes in memory."""
        in_beat = BEAT_BITS // self.container_bits
        padded = 1 << (self.lanes - 1).bit_length()
        return padded if padded <= in_beat else -(-self.lanes // in_beat) * in_beat

    @property
    def beats(self) -> int:
        """Beats of an image."""
        return -(-self.words * self.word_elements * self.container_bits // BEAT_BITS)

    @property
    def image_elements(self) -> int:
        """Elements that an image takes in memory."""
        return self.beats * BEAT_BITS // self.container_bits
