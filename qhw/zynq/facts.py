"""What a driver on the board knows of a design: JSON values, from the graph and the layout of its ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray
from qhw.formats.requantise import saturating
from qhw.formats.table import TableFormat
from qhw.graph.ir import ExactGraph, InputEncoding, OutputScale
from qhw.zynq.layout import DmaTensor

SCHEMA = 1


def driver_facts(
    graph: ExactGraph,
    inputs: Sequence[DmaTensor],
    outputs: Sequence[DmaTensor],
    *,
    identity: bytes,
    registers: str,
    clock_mhz: float,
) -> dict[str, Any]:
    """The contents of ``accelerator.json``.

    Args:
        identity: 8 bytes, which the board answers with.
        registers: the cell of the block design that has the registers.
    """
    return {
        "schema": SCHEMA,
        "name": graph.name,
        "identity": identity.hex(),
        "registers": registers,
        "clock_mhz": clock_mhz,
        "inputs": [_tensor_facts(end) | {"encoding": encoding_facts(graph, end.tensor)} for end in inputs],
        "outputs": [_tensor_facts(end) | output_facts(graph, end.tensor) for end in outputs],
    }


def _tensor_facts(end: DmaTensor) -> dict[str, Any]:
    axes = _axes(end)
    facts: dict[str, Any] = {
        "tensor": end.tensor,
        "shape": list(end.shape),
        "axes": axes,
        "order": None if axes is not None else [int(place) for place in end.order],
        "lanes": end.lanes,
        "words": end.words,
        "word_elements": end.word_elements,
        "image_elements": end.image_elements,
        "bits": end.bits,
        "dtype": f"{'' if end.signed else 'u'}int{end.container_bits}",
        "codes": None,
    }
    if end.format is not None:
        numbers = end.format.numbers
        usual = np.setdiff1d(end.format.codes(), np.array(list(end.format.special_codes), dtype=np.int64))
        mantissas = end.format.mantissa_of(usual)
        facts["codes"] = {
            "numbers": [int(number) for number in numbers],
            "codes": [int(code) for code in end.format.code_of(numbers)],
            "mantissas": {str(code): int(m) for code, m in zip(usual, mantissas, strict=True)},
        }
    return facts


def _axes(end: DmaTensor) -> list[int] | None:
    """The axes in the order in which they travel, where the order of the elements is one of axes."""
    rank = len(end.shape)
    places = np.arange(end.order.size).reshape(end.shape)
    for axes in (list(range(rank)), [*range(1, rank), 0]):
        if rank and np.array_equal(places.transpose(axes).reshape(-1), end.order):
            return axes
    return None


def encoding_facts(graph: ExactGraph, name: str) -> dict[str, Any]:
    """An input's encoding, as ``encoding.py`` reads it; without one, its integers are what the user has."""
    format = graph.tensors[name].format
    encoding = graph.input_encodings.get(name)
    if encoding is None:
        low, high = format.mantissa_low, format.mantissa_high
        return {"exact": True, "low": low, "high": high, "zero_point": 0}
    before = [{"op": step.op, "operands": list(step.operands)} for step in encoding.before]
    names = ("exact", "scale", "zero_point", "low", "high")
    facts = {name: getattr(encoding, name) for name in names}
    return facts | {"rounding": encoding.rounding.value, "before": before} | _steps(encoding)


def _steps(encoding: InputEncoding) -> dict[str, Any]:
    """The numbers of the format that an input is rounded to, and where each but the first begins."""
    if encoding.format is None:
        return {}
    format = saturating(encoding.format, encoding.rounding)
    return {
        "numbers": [int(number) for number in format.numbers],
        "thresholds": [float(value) for value in step_thresholds(format)],
    }


def step_thresholds(format: TableFormat) -> NDArray[np.float64]:
    """The lowest float64 that rounds to each number of a format but the first, found by bisection."""
    numbers = format.numbers
    values = np.ldexp(numbers.astype(np.float64), format.exponent)
    low, high = _ordered(values[:-1]), _ordered(values[1:])
    upper = numbers[1:]
    while (low + 1 < high).any():
        middle = (low >> 1) + (high >> 1) + (low & high & 1)  # their sum or difference may be too large
        reached = format.to_mantissa(_from_ordered(middle)) >= upper
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return _from_ordered(high)


def _ordered(values: NDArray[np.float64]) -> IntArray:
    """Integers that rise as the float64 numbers do."""
    bits = (values + 0.0).view(np.int64)
    return np.asarray(np.where(bits < 0, -(bits & np.int64((1 << 63) - 1)), bits))


def _from_ordered(places: IntArray) -> NDArray[np.float64]:
    magnitudes = np.abs(places).view(np.float64)
    return np.asarray(np.where(places < 0, -magnitudes, magnitudes))


def output_facts(graph: ExactGraph, name: str) -> dict[str, Any]:
    """An output's exponent, scale and offset, as they broadcast over its values."""
    kind = graph.tensors[name]
    rank = len(kind.shape)
    scale, offset = graph.output_scales.get(name, OutputScale((1.0,))).arrays(rank)
    return {
        "exponent": kind.exponent.broadcast(rank).tolist(),
        "scale": scale.tolist(),
        "offset": offset.tolist(),
    }
