"""Multiply-accumulators and dot products of integers, in LUTs or in DSP slices."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from qhw.cost import structure
from qhw.cost.cells import Cells, cells_of
from qhw.cost.structure import levels
from qhw.cost.unit_models import Features, UnitModel, Values

_DSP48 = (1, 2)
"""Values of MULTIPLIER whose slice accumulates, too."""


def _products(cells: Cells, values: Values) -> Features:
    """Multipliers of LUTs; none where DSP slices multiply."""
    if values["MULTIPLIER"]:
        return {}
    operands = values["WA"], values["WB"], bool(values["SA"]), bool(values["SB"])
    return cells.multipliers(values.get("L", 1), *operands)


def _is_signed(values: Values) -> bool:
    return bool(values["SA"] or values["SB"])


def _mac(cells: Cells, values: Values) -> Features:
    if values["MULTIPLIER"] in _DSP48:
        return {"start of a sum": 1}
    return {**_products(cells, values), **cells.accumulator(values["A"])}


def _mac_registers(values: Values) -> int:
    if values["MULTIPLIER"] in _DSP48:
        return 1
    operands = values["WA"] + values["WB"]
    in_logic = 0 if values["MULTIPLIER"] else operands + product_registers(values)
    return in_logic + values["A"] + 2


def product_registers(values: Values) -> int:
    """Behind one multiplier; a bit that is constant, or equal to the one below it, has none of its own."""
    a, b = values["WA"], values["WB"]
    if a == b == 1:
        return 1
    gates_only = (a == 1 and not values["SA"]) or (b == 1 and not values["SB"])
    return a + b - gates_only


def _tree_width(values: Values) -> int:
    """Bits of what the tree adds up: the top bit of a gated unsigned number is 0."""
    gated = not _is_signed(values) and min(values["WA"], values["WB"]) == 1
    return values["WA"] + values["WB"] - (gated and not values["MULTIPLIER"])


def _dot(cells: Cells, values: Values) -> Features:
    return {
        **_products(cells, values),
        **cells.tree(values["L"], _tree_width(values)),
        **cells.accumulator(values["A"]),
    }


def _dot_registers(values: Values) -> int:
    lanes, multiplier = values["L"], values["MULTIPLIER"]
    operands = values["WA"] + values["WB"]
    in_logic = 0 if multiplier else lanes * (operands + product_registers(values))
    tree = structure.tree_registers(lanes, _tree_width(values))
    first = 2 + levels(lanes) + (multiplier in _DSP48)
    return in_logic + tree + first + values["A"]


def _packed(values: Values) -> Features:
    products = values["P"]
    return {"accumulator bits": products * values["A"], "carries": products - 1}


def _packed_registers(values: Values) -> int:
    # The last bits of a, those of every weight but the first, and `first` are delayed until the product.
    return values["P"] * values["A"] + 4 * (values["P"] - 1) + 8


def models(family: str) -> Mapping[str, UnitModel]:
    """The models of the integer units, in one family's cells."""
    own = cells_of(family)
    return {
        "integer_mac": UnitModel(
            partial(_mac, own), _mac_registers, dsp=lambda values: int(values["MULTIPLIER"] > 0)
        ),
        "integer_dot": UnitModel(
            partial(_dot, own),
            _dot_registers,
            dsp=lambda values: values["L"] * int(values["MULTIPLIER"] > 0),
        ),
        "packed_mac": UnitModel(_packed, _packed_registers, dsp=lambda values: 1),
    }
