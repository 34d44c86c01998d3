"""Memories of LUTs, block RAM and UltraRAM, as cells of fixed shapes."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from qhw.devices import fabric_of, fabrics
from qhw.errors import InputError
from qhw.rtl.base import Features, Values

SHIFT_REGISTER, LUT_MEMORY, BLOCK_RAM, ULTRA_RAM = range(4)
"""The kinds of memory that a unit's STYLE parameter chooses from."""

MEMORY_STYLES = "1 LUT memory, 2 block RAM, 3 UltraRAM"
MEMORY = ("memory",)

_MOST_WORDS = {SHIFT_REGISTER: 1024, LUT_MEMORY: 4096}
"""Beyond these, words in LUTs take thousands of multiplexers, and no design does it."""


def check_words(unit: str, values: Values, name: str = "D") -> None:
    """Raise InputError for more words than the style is for."""
    most = _MOST_WORDS.get(values["STYLE"])
    if most is not None and values[name] > most:
        raise InputError(
            f"{name} of {unit} is {values[name]} with STYLE={values['STYLE']}",
            allowed=f"up to {most}",
            hint="keep the words in block RAM (STYLE=2)",
        )


FIRST_READ = 200
"""Steps after which something has been read, and the output is defined."""

XILINX = tuple(name for name, fabric in fabrics().items() if fabric.lut_inputs == 6)
"""Families whose memories are made of the same cells."""


class Shape(NamedTuple):
    """A memory cell: its shape, the blocks that it counts as, and its cost to the mapper."""

    rows: int
    bits: int
    units: int
    cost: float


class Tiles(NamedTuple):
    """Cells of a memory, by their count, and the banks that its words are spread over."""

    units: int
    banks: int


_BYTE = 9
"""Bits of a RAM that are written apart from others."""

_HALVES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))

_BLOCK_SHAPES = {
    "xilinx": (
        *(Shape(rows, bits, 1, 129) for rows, bits in _HALVES),
        *(Shape(rows, 2 * bits, 2, 257) for rows, bits in _HALVES),
        *(Shape(2 * rows, bits, 2, 257) for rows, bits in _HALVES),
    ),
    "ecp5": tuple(Shape(rows, bits, 1, 128) for rows, bits in _HALVES),
    "gowin": tuple(Shape(rows, bits, 1, 128) for rows, bits in _HALVES),
    "ice40": tuple(Shape(256 << i, 16 >> i, 1, 64) for i in range(4)),
}
"""RAMB18 and RAMB36 with a port to read and one to write (UG473, UG573); DP16KD (FPGA-TN-02204); SDPB and
SDPX9B (Gowin UG285); SB_RAM40_4K (FPGA-TN-02002)."""

_ULTRA_SHAPES = (Shape(4096, 72, 1, 1024),)
"""URAM288 (UG573)."""

_MULTIPLEXER_COST = 0.5
"""The mapper's own cost of a bit that selects between two banks."""


@cache
def tiles(shapes: tuple[Shape, ...], words: int, width: int) -> Tiles:
    """The cells of one shape that cost the least with the multiplexers behind them."""
    return min((_spread(shape, words, width) for shape in shapes), key=lambda choice: choice[0])[1]


def _spread(shape: Shape, words: int, width: int) -> tuple[float, Tiles]:
    """A memory's cost in one shape; banks of the last, narrow lane share cells byte by byte."""
    banks, (lanes, rest) = -(-words // shape.rows), divmod(width, shape.bits)
    fitting = max(shape.bits // _BYTE, 1) // -(-rest // _BYTE) if rest else 1
    shared = 1 << (fitting.bit_length() - 1)
    cells = lanes * banks + (-(-banks // shared) if rest else 0)
    cost = cells * shape.cost + _MULTIPLEXER_COST * width * (banks - 1)
    return cost, Tiles(cells * shape.units, banks)


def block_ram(words: int, width: int, family: str) -> Tiles:
    """RAMs of 18 Kb."""
    return tiles(_BLOCK_SHAPES["xilinx" if family in XILINX else family], words, width)


def ultra_ram(words: int, width: int) -> Tiles:
    """UltraRAMs of 288 Kb that hold the words."""
    return tiles(_ULTRA_SHAPES, words, width)


def multiplexer(inputs: int, family: str) -> int:
    """LUTs that select one of some bits: one of four where a LUT has six inputs, else of two.

    With four inputs, a LUT in seven was seen to be saved by what is decoded anyway.
    """
    return -(-(inputs - 1) // 3) if family in XILINX else inputs - 1 - (inputs + 3) // 7


_SHALLOW = 1.7
"""Twice as wide cells of 32 words are used up to this multiple of the banks of 64 words."""


def memory_banks(words: int) -> tuple[int, bool]:
    """Banks of LUT memory behind two ports, and whether they are of 32 words (else 64)."""
    of_32, of_64 = -(-words // 32), -(-words // 64)
    shallow = of_32 < _SHALLOW * of_64
    return (of_32 if shallow else of_64), shallow


def lut_memory(words: int, width: int, family: str) -> int:
    """LUTs of a memory with a port to read and one to write."""
    if family not in XILINX:
        return 6 * -(-words // 16) * -(-width // 4)
    banks, shallow = memory_banks(words)
    bits = -(-width // 2) if shallow else width
    return banks * (bits + -(-bits // fabric_of(family).slice_data_bits))


def lut_memory_features(words: int, width: int, family: str) -> Features:
    """LUTs of a memory with a port to read and one to write, and of what joins its banks."""
    banks = memory_banks(words)[0] if family in XILINX else -(-words // 16)
    return {
        "memory LUTs": lut_memory(words, width, family),
        "selected bits": width * multiplexer(banks, family),
        "banks": banks if banks > 1 else 0,
    }


def ram(values: Values, family: str) -> Tiles:
    """The RAMs of a unit's D words of W bits, as its STYLE says."""
    if values["STYLE"] == ULTRA_RAM:
        return ultra_ram(values["D"], values["W"])
    return block_ram(values["D"], values["W"], family)


def bram18(values: Values, family: str) -> int:
    """Block RAMs of a unit's D words of W bits."""
    return ram(values, family).units if values["STYLE"] == BLOCK_RAM else 0


def uram(values: Values, family: str) -> int:
    """UltraRAMs of a unit's D words of W bits."""
    return ram(values, family).units if values["STYLE"] == ULTRA_RAM else 0
