"""What components take of a family of devices, counted: the pieces that several of them have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.memories import BLOCK_RAM, LUT_MEMORY, block_ram, lut_memory_features, multiplexer
from qhw.rtl.shared.structure import counter_bits, levels

_COUNTER = {True: 1.2, False: 1.0}
"""LUTs of a counter over those of its form, on Xilinx devices and others, as `layer_control` was fitted."""


@dataclass(frozen=True)
class Taken:
    """LUTs, flip-flops, and block RAMs of 18 Kb (ECP5: DP16KD)."""

    lut: float = 0.0
    ff: float = 0.0
    bram18: float = 0.0

    def __add__(self, other: Taken) -> Taken:
        return Taken(self.lut + other.lut, self.ff + other.ff, self.bram18 + other.bram18)


@dataclass(frozen=True)
class Columns:
    """The bits of a memory of constants, each as a number over the words.

    Args:
        words: how many.
        bits: of each bit of a word, its value in every word.
    """

    words: int
    bits: tuple[int, ...]

    @property
    def varying(self) -> set[int]:
        """Those that are not the same in all words; equal ones are there once."""
        return {bit for bit in self.bits if bit not in (0, (1 << self.words) - 1)}

    @property
    def addresses(self) -> set[int]:
        """The bits of the address, likewise."""
        count = max(self.words - 1, 1).bit_length()
        return {sum(1 << word for word in range(self.words) if word >> place & 1) for place in range(count)}

    @classmethod
    def of(cls, words: list[int], width: int) -> Columns:
        """The bits of words of that width."""
        text = [f"{word:0{width}b}" for word in reversed(words)]
        return cls(len(words), tuple(int("".join(bits), 2) for bits in zip(*text, strict=True))[::-1])


@dataclass(frozen=True)
class Counting:
    """The pieces in the cells of a family; ``columns`` are the bits of a component's constants, if any."""

    family: str
    columns: Columns | None = None

    @cached_property
    def cells(self) -> Cells:
        """The LUTs and carry cells."""
        return cells_of(self.family)

    @property
    def is_xilinx(self) -> bool:
        """Whether LUTs have six inputs."""
        return self.cells.inputs == 6

    def counter(self, count: int) -> Taken:
        """``cycle.v`` and a comparison with its last count."""
        luts = self.cells.counter(count) * _COUNTER[self.is_xilinx]
        return Taken(lut=float(luts), ff=float(counter_bits(count)))

    def memory(self, words: int, width: int, style: int) -> Taken:
        """A memory with a port to write and one to read."""
        if style == LUT_MEMORY:
            found = lut_memory_features(words, width, self.family)
            return Taken(lut=float(found["memory LUTs"] + found["selected bits"]), ff=float(width))
        tiles = block_ram(words, width, self.family)
        selected = width * multiplexer(tiles.banks, self.family)
        return Taken(lut=float(selected), ff=float(levels(tiles.banks)), bram18=float(tiles.units))

    def constants(self, style: int) -> Taken:
        """A memory of constants: only the bits that vary."""
        columns = self.columns
        assert columns is not None
        if columns.words == 1:
            return Taken()
        if style != BLOCK_RAM:
            different = columns.varying
            inside = different - columns.addresses
            return Taken(lut=float(len(inside) * self._column(columns)), ff=float(len(different)))
        width = sum(bit not in (0, (1 << columns.words) - 1) for bit in columns.bits)
        tiles = block_ram(columns.words, max(width, 1), self.family)
        selected = width * multiplexer(tiles.banks, self.family)
        return Taken(lut=float(selected), ff=float(levels(tiles.banks)), bram18=float(tiles.units))

    def _column(self, columns: Columns) -> float:
        """LUTs of one bit of a small memory, by the inputs of the function."""
        inputs = max(columns.words - 1, 1).bit_length()
        if inputs <= self.cells.inputs:
            return 1.0
        leaves = ceil(columns.words / (1 << self.cells.inputs))
        return leaves + multiplexer(leaves, self.family)
