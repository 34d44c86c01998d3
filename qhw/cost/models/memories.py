"""Queues and weight memories: LUT memory, block RAM and UltraRAM as cells of fixed shapes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import NamedTuple

from qhw.cost import lut4, structure
from qhw.cost.cells import Cells, cells_of
from qhw.cost.structure import levels
from qhw.cost.unit_models import Features, UnitModel, Values
from qhw.devices import fabric_of, fabrics
from qhw.rtl.memories import BLOCK_RAM, LUT_MEMORY, SHIFT_REGISTER, ULTRA_RAM

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
}
"""RAMB18 and RAMB36 with a port to read and one to write (UG473, UG573); DP16KD (FPGA-TN-02204)."""

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


def one_port_memory(words: int, width: int, family: str) -> int:
    """LUTs of ``one_port_memory`` in ``cost_models/rtl/weight_memory.v``."""
    if family not in XILINX:
        return 6 * -(-words // 16) * -(-width // 4)
    whole, rest = divmod(words, _ONE_PORT_WORDS)
    return whole * 4 * width + _one_port_rest(rest, width)


_ONE_PORT_WORDS = 256


def _one_port_rest(words: int, width: int) -> int:
    """Cells of 32, 64, 128 or 256 words; a LUT holds two bits of 32."""
    if words > 32:
        return (1 << (words - 1).bit_length()) // 64 * width
    return -(-width // 2) if words else 0


def lut_memory_features(words: int, width: int, family: str) -> Features:
    """LUTs of a memory with a port to read and one to write, and of what joins its banks."""
    banks = memory_banks(words)[0] if family in XILINX else -(-words // 16)
    return {
        "memory LUTs": lut_memory(words, width, family),
        "selected bits": width * multiplexer(banks, family),
        "banks": banks if banks > 1 else 0,
    }


def _queue_memory(values: Values, family: str) -> Features:
    words, width, style = values["D"], values["W"], values["STYLE"]
    if style == LUT_MEMORY:
        return lut_memory_features(words, width, family)
    if style == SHIFT_REGISTER:
        chains = -(-words // _CHAIN)
        return {
            "memory LUTs": shift_register_luts(words, width),
            "selected bits": width * (multiplexer(chains, family) if words > 2 else 1),
        }
    return {"selected bits": width * multiplexer(_ram(values, family).banks, family)}


_CHAIN = 128
"""Bits of shift register behind the multiplexers of a slice."""


def shift_register_luts(words: int, width: int) -> int:
    """LUTs of 32 bits each; two words stay in flip-flops."""
    return width * -(-words // 32) if words > 2 else 0


def _fifo(family: str, values: Values) -> Features:
    return {**_queue_memory(values, family), "queue": 1, **_queue_control(cells_of(family), values)}


def _queue_control(cells: Cells, values: Values) -> Features:
    """Its addresses, the count and the comparisons with it; on ECP5 each chain has LUTs of its own."""
    words = values["D"]
    count, address = words.bit_length(), (words - 1).bit_length()
    addressed = values["STYLE"] != SHIFT_REGISTER
    if cells.inputs == 4:
        return {
            "count LUTs": lut4.adder(count) + 2 * lut4.reduction(count),
            "address LUTs": 2 * lut4.counter(words) if addressed else lut4.adder(address),
        }
    wraps = not structure.is_power(words)
    return {
        "addresses": addressed,
        "count bits": count,
        "full": wraps * structure.reduction(count),
        "wrapping address bits": addressed * wraps * address,
        "place bits": (not addressed) * address,
    }


def _fifo_registers(family: str, values: Values) -> int:
    words, width, style = values["D"], values["W"], values["STYLE"]
    count, address = words.bit_length(), (words - 1).bit_length()
    if style == SHIFT_REGISTER:
        return 1 + count + address + width + (words * width if words == 2 else 0)
    if style == LUT_MEMORY:
        return 1 + count + 2 * address + width
    return 1 + count + 2 * address + levels(_ram(values, family).banks)


def _ram(values: Values, family: str) -> Tiles:
    if values["STYLE"] == ULTRA_RAM:
        return ultra_ram(values["D"], values["W"])
    return block_ram(values["D"], values["W"], family)


def _bram18(values: Values, family: str) -> int:
    return _ram(values, family).units if values["STYLE"] == BLOCK_RAM else 0


def _uram(values: Values, family: str) -> int:
    return _ram(values, family).units if values["STYLE"] == ULTRA_RAM else 0


def _weight_memory(family: str, values: Values) -> Features:
    words, width = values["D"], values["W"]
    if values["STYLE"] != LUT_MEMORY:
        return {"port": 1, "selected bits": width * multiplexer(_ram(values, family).banks, family)}
    bank = _ONE_PORT_WORDS if family in XILINX else 16
    banks = -(-words // bank)
    return {
        "port": 1,
        "memory LUTs": one_port_memory(words, width, family),
        "address bits": min(words - 1, _ONE_PORT_WORDS - 1).bit_length(),
        "selected bits": width * multiplexer(banks, family),
        "banks": banks if banks > 1 else 0,
    }


def _weight_registers(family: str, values: Values) -> int:
    if values["STYLE"] == LUT_MEMORY:
        return values["W"]
    return levels(_ram(values, family).banks)


def models(family: str) -> Mapping[str, UnitModel]:
    """The models of the units that keep words, in one family's cells."""
    return {
        "fifo": UnitModel(
            partial(_fifo, family), partial(_fifo_registers, family), bram18=_bram18, uram=_uram
        ),
        "weight_memory": UnitModel(
            partial(_weight_memory, family), partial(_weight_registers, family), bram18=_bram18, uram=_uram
        ),
    }
