"""The memory of a layer's weights."""

from __future__ import annotations

from functools import partial

import numpy as np

from qhw.rtl.base import (
    Axis,
    ClosedForms,
    Control,
    Features,
    MeasuredUnit,
    Parameter,
    Port,
    Ports,
    Space,
    Streams,
    Values,
)
from qhw.rtl.shared.energy import MEMORY_PJ_PER_BIT
from qhw.rtl.shared.memories import (
    FIRST_READ,
    LUT_MEMORY,
    MEMORY,
    MEMORY_STYLES,
    XILINX,
    bram18,
    check_words,
    multiplexer,
    ram,
    uram,
)
from qhw.rtl.shared.streams import column, rows_of
from qhw.rtl.shared.structure import levels


def _reference(values: Values, inputs: Streams) -> Streams:
    """An array of words that is written, else read; y is what was read last."""
    words = [0] * values["D"]
    y, rows = 0, []
    names = ("read", "write", "read_address", "write_address", "x")
    for read, write, source, target, x in rows_of(inputs, *names):
        if write:
            words[target] = x
        elif read:
            y = words[source]
        rows.append(y)
    return {"y": column(rows, values["W"])}


def _address(name: str, words: int) -> Port:
    return Port(name, (words - 1).bit_length(), codes=np.arange(words))


_WEIGHT_WORDS = (16, 32, 48, 64, 100, 128, 200, 256, 300, 512, 784, 1024, 2048, 4096)


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


def _features(family: str, values: Values) -> Features:
    words, width = values["D"], values["W"]
    if values["STYLE"] != LUT_MEMORY:
        return {"port": 1, "selected bits": width * multiplexer(ram(values, family).banks, family)}
    bank = _ONE_PORT_WORDS if family in XILINX else 16
    banks = -(-words // bank)
    return {
        "port": 1,
        "memory LUTs": one_port_memory(words, width, family),
        "address bits": min(words - 1, _ONE_PORT_WORDS - 1).bit_length(),
        "selected bits": width * multiplexer(banks, family),
        "banks": banks if banks > 1 else 0,
    }


def _registers(family: str, values: Values) -> int:
    if values["STYLE"] == LUT_MEMORY:
        return values["W"]
    return levels(ram(values, family).banks)


def _energy(v: Values) -> float:
    return v["W"] * MEMORY_PJ_PER_BIT


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, family), partial(_registers, family), bram18=bram18, uram=uram)


UNIT = MeasuredUnit(
    name="weight_memory",
    summary="D words, written while they are loaded and read otherwise",
    ranges=(
        Parameter("D", 2, 1 << 20, "words"),
        Parameter("W", 1, 4096, "bits of a word"),
        Parameter("STYLE", 1, 3, MEMORY_STYLES),
    ),
    sources=(*MEMORY, "weight_memory"),
    ports=lambda values: Ports(
        (
            _address("read_address", values["D"]),
            _address("write_address", values["D"]),
            Port("x", values["W"]),
        ),
        (Port("y", values["W"]),),
        (Control("read", (1.0, 0.5)), Control("write", (0.02, 0.5, 0.9))),
    ),
    latency=lambda values: 1,
    reference=_reference,
    rule=lambda values: check_words("weight_memory", values),
    warm_up=lambda values: FIRST_READ,
    memories=True,
    space=Space(
        place=18,
        points=60,
        axes=(
            Axis("D", choices=_WEIGHT_WORDS),
            Axis("W", 1, 72),
            Axis("STYLE", 1, 3),
        ),
    ),
    closed_forms=_closed_forms,
    energy_pj=_energy,
)
