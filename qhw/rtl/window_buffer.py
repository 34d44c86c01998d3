"""The rows of an image that a window lies on, whose words come in the order of a folded layer."""

from __future__ import annotations

from functools import partial

import numpy as np

from qhw.errors import InputError
from qhw.formats.modes import IntArray
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
from qhw.rtl.shared import lut4
from qhw.rtl.shared.arithmetic import at_least
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.memories import (
    BLOCK_RAM,
    LUT_MEMORY,
    MEMORY,
    MEMORY_STYLES,
    ULTRA_RAM,
    block_ram,
    check_words,
    lut_memory_features,
    multiplexer,
    ultra_ram,
)
from qhw.rtl.shared.streams import COUNTER, RESET, WILLING, columns_of, rows_of
from qhw.rtl.shared.structure import counter_bits, levels


def window_span(values: Values) -> int:
    """Words from the first to the last under a window."""
    return ((values["K"] - 1) * values["N"] + values["K"]) * values["C"]


def window_words(values: Values) -> int:
    """Words of the memory: a power of two."""
    return 1 << max(1, (window_span(values) - 1).bit_length())


def _reading_order(values: Values) -> tuple[IntArray, IntArray]:
    """The number of each word that an image's windows read, and how many words each read makes needless."""
    side, words = values["K"], values["C"]
    places = [(y, x) for y in range(values["M"] - side + 1) for x in range(values["N"] - side + 1)]
    starts = np.array([(y * values["N"] + x) * words for y, x in places])
    taps = np.array([(r * values["N"] + c) * words for r in range(side) for c in range(side)])
    channels = np.arange(words)
    if values["DEPTHWISE"]:
        window = (channels[:, None] + taps).ravel()
    else:
        window = np.tile((taps[:, None] + channels).ravel(), values["F"])
    following = np.append(starts[1:], values["M"] * values["N"] * words)
    released = np.repeat(starts[:, None], len(window), axis=1)
    released[:, -1] = following
    return (starts[:, None] + window).ravel(), released.ravel()


def _reference(values: Values, inputs: Streams) -> Streams:
    """All words that ever came, and a place in the reading order of the endless row of images."""
    order, released = _reading_order(values)
    image, span, most = values["M"] * values["N"] * values["C"], window_span(values), window_words(values)
    words: list[int] = []
    at, base, start, y = 0, 0, 0, 0
    rows = []
    for reset, x_valid, read, x in rows_of(inputs, "reset", "x_valid", "read", "x"):
        write = x_valid and len(words) - start < most
        if read and len(words) - start >= span:
            y, start = words[base + order[at]], base + int(released[at])
            at = (at + 1) % len(order)
            base += 0 if at else image
        if write:
            words.append(x)
        if reset:
            words, at, base, start = [], 0, 0, 0
        rows.append((int(len(words) - start < most), int(len(words) - start >= span), y))
    return columns_of(("x_ready", "y_valid", "y"), rows, wide=True)


def _rule(values: Values) -> None:
    for name in ("N", "M"):
        at_least("window_buffer", values, name, values["K"], "the window is wider than the image")
    if values["DEPTHWISE"] and values["F"] > 1:
        raise InputError(
            f"F of window_buffer is {values['F']} with DEPTHWISE=1, whose folds are C",
            allowed="1",
        )
    check_words("window_buffer", {**values, "D": window_words(values)})


_SIDES = (7, 8, 9, 12, 14, 16, 18, 28, 30, 32, 34, 56, 58, 64, 112, 114, 224)


def _counters(values: Values) -> tuple[int, ...]:
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
    counts = (*_counters(values), 2)
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


def _features(family: str, values: Values) -> Features:
    counters, cells = _counters(values), cells_of(family)
    return {
        **_memory(family, values),
        "buffer": 1,
        "counter LUTs": sum(map(cells.counter, counters)),
        "chosen address bits": _chosen_bits(_moves(values)),
        **_sums(cells, counter_bits(window_words(values)), _lowest_bit(_releases(values))),
    }


def _sums(cells: Cells, address: int, passed: int) -> Features:
    """LUTs of the addresses and the level; on ECP5 every addition and comparison is a chain of its own."""
    level = address + 1
    if cells.inputs == 6:
        return {"level bits": level - passed}
    return {
        "address LUTs": lut4.increment(address) + lut4.adder(address),
        "level LUTs": lut4.adder(level - passed) + 2 * lut4.adder(level),
    }


def _memory(family: str, values: Values) -> Features:
    words, width = window_words(values), values["W"]
    if values["STYLE"] == LUT_MEMORY:
        return lut_memory_features(words, width, family)
    banks = ultra_ram(words, width) if values["STYLE"] == ULTRA_RAM else block_ram(words, width, family)
    return {"selected bits": width * multiplexer(banks.banks, family)}


def _registers(family: str, values: Values) -> int:
    address = counter_bits(window_words(values))
    counted = sum(map(counter_bits, _counters(values))) + 3 * address + 1
    words, width = window_words(values), values["W"]
    if values["STYLE"] == LUT_MEMORY:
        return counted + width
    banks = ultra_ram(words, width) if values["STYLE"] == ULTRA_RAM else block_ram(words, width, family)
    return counted + levels(banks.banks)


def _bram18(values: Values, family: str) -> int:
    words, width = window_words(values), values["W"]
    return block_ram(words, width, family).units if values["STYLE"] == BLOCK_RAM else 0


def _uram(values: Values, family: str) -> int:
    return ultra_ram(window_words(values), values["W"]).units if values["STYLE"] == ULTRA_RAM else 0


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, family), partial(_registers, family), bram18=_bram18, uram=_uram)


UNIT = MeasuredUnit(
    name="window_buffer",
    summary="the rows of an image that a K x K window lies on, and its words in the order of a folded layer",
    ranges=(
        Parameter("K", 1, 16, "pixels along the window's side"),
        Parameter("N", 1, 1 << 12, "pixels of a row"),
        Parameter("M", 1, 1 << 12, "rows"),
        Parameter("C", 1, 1 << 12, "words of a pixel"),
        Parameter(
            "DEPTHWISE", 0, 1, "whether the words of a pixel are read one window after the other", default=0
        ),
        Parameter("F", 1, 1 << 12, "times that a window is read"),
        Parameter("W", 1, 1024, "bits of a word"),
        Parameter("STYLE", 1, 3, MEMORY_STYLES),
    ),
    sources=(*COUNTER, *MEMORY, "window_buffer"),
    ports=lambda values: Ports(
        (Port("x", values["W"]),),
        (Port("x_ready", 1), Port("y_valid", 1), Port("y", values["W"])),
        (RESET, Control("x_valid", WILLING), Control("read", WILLING)),
    ),
    latency=lambda values: 1,
    reference=_reference,
    rule=_rule,
    warm_up=lambda values: 25 * window_span(values) + 25,
    memories=True,
    space=Space(
        place=20,
        points=60,
        axes=(
            *(Axis("K", choices=(1, 2, 3, 3, 3, 5)), Axis("N", choices=_SIDES), Axis("M", choices=_SIDES)),
            *(Axis("C", choices=(1, 1, 2, 3, 4, 6, 8, 12, 16, 32)), Axis("DEPTHWISE", choices=(0, 0, 1))),
            Axis("F", 1, lambda values: 1 if values["DEPTHWISE"] else 24),
            *(Axis("W", 1, 72), Axis("STYLE", 1, 3)),
        ),
    ),
    closed_forms=_closed_forms,
)
