"""Trees of adders, and counts of binary lanes that agree."""

from __future__ import annotations

from collections.abc import Mapping

from qhw.cost import lut4, structure
from qhw.cost.cells import cells_of
from qhw.cost.structure import levels
from qhw.cost.unit_models import Features, UnitModel, Values


def _adder_tree(values: Values) -> Features:
    numbers, bits = values["N"], values["W"]
    if values["S"]:
        single = numbers // 2 if bits == 1 else 0
        return {"tree bits": structure.adder_tree(numbers, bits), "sums of two bits": single}
    tree = structure.unsigned_tree(numbers, bits, bits)
    return {"tree bits": tree.bits, "sums of two bits": tree.single}


def _adder_tree_of_lut4(values: Values) -> Features:
    return {"tree LUTs": lut4.adder_tree(values["N"], values["W"])}


def _adder_tree_registers(values: Values) -> int:
    return values["N"] * values["W"] + structure.tree_registers(values["N"], values["W"])


def _counts(values: Values) -> tuple[int, int]:
    """Groups of three lanes, what the six inputs of a LUT hold, and the bits of the last one's count."""
    return -(-values["L"] // 3), 1 if values["L"] % 3 == 1 else 2


def _xnor_popcount(values: Values) -> Features:
    groups, last = _counts(values)
    return {
        "count bits": 2 * groups - (last == 1),
        "tree bits": structure.unsigned_tree(groups, 2, last).bits,
        "accumulator bits": values["A"],
    }


def _xnor_popcount_of_lut4(values: Values) -> Features:
    groups = -(-values["L"] // 3)
    lanes = values["L"] - 3 * (groups - 1)
    return {
        "count LUTs": 4 * (groups - 1) + (4 if lanes == 3 else lanes),
        "tree LUTs": lut4.adder_tree(groups, 2),
        "accumulator LUTs": lut4.accumulator(values["A"]),
    }


def _xnor_popcount_registers(values: Values) -> int:
    groups, last = _counts(values)
    counts = 2 * groups - (last == 1) + structure.unsigned_tree(groups, 2, last).registers
    return 2 * values["L"] + counts + 2 + levels(groups) + values["A"]


def models(family: str) -> Mapping[str, UnitModel]:
    """The models of the units that sum many numbers, in one family's cells."""
    wide = cells_of(family).inputs == 6
    tree, popcount = (_adder_tree, _xnor_popcount) if wide else (_adder_tree_of_lut4, _xnor_popcount_of_lut4)
    return {
        "adder_tree": UnitModel(tree, _adder_tree_registers),
        "xnor_popcount": UnitModel(popcount, _xnor_popcount_registers),
    }
