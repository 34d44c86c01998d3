"""Models of a folded layer's control: counters on carry chains, and the addresses of a window's words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from qhw.cost import lut4
from qhw.cost.cells import Cells, cells_of
from qhw.cost.models.memories import block_ram, lut_memory_features, multiplexer, ultra_ram
from qhw.cost.structure import counter_bits, levels
from qhw.cost.unit_models import Features, UnitModel, Values
from qhw.rtl.control import window_span, window_words
from qhw.rtl.memories import BLOCK_RAM, LUT_MEMORY, ULTRA_RAM


def _control_counters(values: Values) -> tuple[int, ...]:
    """Steps of each counter: the weights' address, a sum's words where there are several sums, the pixels."""
    words = values["I"] if values["F"] > 1 else 1
    return values["F"] * values["I"], words, values["P"]


def _layer_control(cells: Cells, values: Values) -> Features:
    return {
        "handshake": 1,
        "counter LUTs": sum(map(cells.counter, _control_counters(values))),
        "sums of several words": values["I"] > 1,
    }


def _layer_control_registers(values: Values) -> int:
    """Besides the counters: whether a sum starts, and two flags for every edge on the way to the outputs."""
    flags = values["D"] * (1 if values["F"] * values["P"] == 1 else 2)
    return sum(map(counter_bits, _control_counters(values))) + flags + (values["I"] > 1)


def _window_counters(values: Values) -> tuple[int, ...]:
    """Steps of each counter: a row of the window, its rows, folds and places (none for a single pixel)."""
    side, depthwise = values["K"], values["DEPTHWISE"]
    along = side if depthwise else side * values["C"]
    places = (values["N"] - side + 1, values["M"] - side + 1) if side > 1 else (1, 1)
    return along, side, values["C"] if depthwise else values["F"], *places


def _moves(values: Values) -> list[int]:
    """Steps of the read address at the end of each loop that there is, the innermost first."""
    side, words, span = values["K"], values["C"], window_span(values)
    if values["DEPTHWISE"]:
        back = words + 1 - span
        steps = [words, (values["N"] - side + 1) * words, back, back, 1 - span + side * words, 1]
    else:
        down = (values["N"] - side) * words + 1
        steps = [1, down, 1 - span, 1 - span + words, 1 - span + side * words, 1]
    counts = (*_window_counters(values), 2)
    return [step % window_words(values) for step, count in zip(steps, counts, strict=True) if count > 1]


def _releases(values: Values) -> list[int]:
    """Words that are not needed at the end of a place, of a row of places, of the image."""
    side, words = values["K"], values["C"]
    if side == 1:
        return [words]
    across, down = values["N"] - side + 1, values["M"] - side + 1
    return [
        *([words] if across > 1 else []),
        *([side * words] if down > 1 else []),
        window_span(values),
    ]


def _chosen_bits(numbers: list[int]) -> int:
    """Bits of a choice among constants that are not the same in all of them."""
    differ = 0
    for number in numbers:
        differ |= number ^ numbers[0]
    return differ.bit_count()


def _lowest_bit(numbers: list[int]) -> int:
    """Below which all numbers are 0: the level only counts up there."""
    return min((number & -number).bit_length() - 1 for number in numbers)


def _window_buffer(family: str, values: Values) -> Features:
    counters, cells = _window_counters(values), cells_of(family)
    return {
        **_window_memory(family, values),
        "buffer": 1,
        "counter LUTs": sum(map(cells.counter, counters)),
        "chosen address bits": _chosen_bits(_moves(values)),
        **_window_sums(cells, counter_bits(window_words(values)), _lowest_bit(_releases(values))),
    }


def _window_sums(cells: Cells, address: int, passed: int) -> Features:
    """LUTs of the addresses and the level; on ECP5 every addition and comparison is a chain of its own."""
    level = address + 1
    if cells.inputs == 6:
        return {"level bits": level - passed}
    return {
        "address LUTs": lut4.increment(address) + lut4.adder(address),
        "level LUTs": lut4.adder(level - passed) + 2 * lut4.adder(level),
    }


def _window_memory(family: str, values: Values) -> Features:
    words, width = window_words(values), values["W"]
    if values["STYLE"] == LUT_MEMORY:
        return lut_memory_features(words, width, family)
    banks = ultra_ram(words, width) if values["STYLE"] == ULTRA_RAM else block_ram(words, width, family)
    return {"selected bits": width * multiplexer(banks.banks, family)}


def _window_registers(family: str, values: Values) -> int:
    address = counter_bits(window_words(values))
    counted = sum(map(counter_bits, _window_counters(values))) + 3 * address + 1
    words, width = window_words(values), values["W"]
    if values["STYLE"] == LUT_MEMORY:
        return counted + width
    banks = ultra_ram(words, width) if values["STYLE"] == ULTRA_RAM else block_ram(words, width, family)
    return counted + levels(banks.banks)


def _window_bram18(values: Values, family: str) -> int:
    words, width = window_words(values), values["W"]
    return block_ram(words, width, family).units if values["STYLE"] == BLOCK_RAM else 0


def _window_uram(values: Values, family: str) -> int:
    return ultra_ram(window_words(values), values["W"]).units if values["STYLE"] == ULTRA_RAM else 0


def models(family: str) -> Mapping[str, UnitModel]:
    """The models of the units that drive a layer, in one family's cells."""
    return {
        "layer_control": UnitModel(partial(_layer_control, cells_of(family)), _layer_control_registers),
        "window_buffer": UnitModel(
            partial(_window_buffer, family),
            partial(_window_registers, family),
            bram18=_window_bram18,
            uram=_window_uram,
        ),
    }
