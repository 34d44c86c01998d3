"""Parts that many units share, counted in the cells of a family: what a unit's features are made of."""

from __future__ import annotations

from typing import Protocol

from qhw.devices import fabric_of
from qhw.rtl.base import Features
from qhw.rtl.shared import lut4, structure


class Cells(Protocol):
    """The LUTs and carry cells of a family of devices; a LUT has ``inputs`` inputs."""

    inputs: int

    def multipliers(
        self, count: int, a_bits: int, b_bits: int, a_signed: bool = False, b_signed: bool = False
    ) -> Features:
        """Counts of structure in ``count`` products of two integers."""

    def tree(self, inputs: int, bits: int) -> Features:
        """Counts of structure in a sum tree (``cost_models/rtl/sum_tree.v``)."""

    def accumulator(self, bits: int) -> Features:
        """Counts of structure in an accumulator (``accumulate.v``)."""

    def signed_accumulator(self, bits: int, term_bits: int) -> Features:
        """Counts of structure in an accumulator of terms with a sign (``accumulate_signed.v``)."""

    def reduction(self, inputs: int) -> int:
        """LUTs that find whether any of some bits is set."""

    def counter(self, count: int) -> int:
        """LUTs of ``cycle.v`` and of a comparison with its last count."""


class Lut6:
    """Xilinx: LUTs of six inputs, whose carry position takes in the gates in front of it."""

    inputs = 6

    def multipliers(
        self, count: int, a_bits: int, b_bits: int, a_signed: bool = False, b_signed: bool = False
    ) -> Features:
        """Carry bits, and gates alone."""
        part = structure.multiplier(a_bits, b_bits, a_signed, b_signed)
        return {"multiplier bits": count * (part.rows + part.tree), "gates": count * part.gates}

    def tree(self, inputs: int, bits: int) -> Features:
        """Carry bits."""
        return {"tree bits": structure.adder_tree(inputs, bits)}

    def accumulator(self, bits: int) -> Features:
        """Carry bits; those of an unsigned sum that nothing is added to only carry."""
        return {"accumulator bits": bits}

    def signed_accumulator(self, bits: int, term_bits: int) -> Features:
        """Carry bits; the lowest position makes the carry."""
        return {"accumulator bits": bits + 1}

    def reduction(self, inputs: int) -> int:
        """Five new bits a LUT."""
        return structure.reduction(inputs)

    def counter(self, count: int) -> int:
        """The carry chain's own count for nothing but the lowest bit."""
        return structure.counter(count)


class Lut4:
    """ECP5: LUTs of four inputs, and carry cells apart from them."""

    inputs = 4

    def multipliers(
        self, count: int, a_bits: int, b_bits: int, a_signed: bool = False, b_signed: bool = False
    ) -> Features:
        """LUTs."""
        return {"multiplier LUTs": count * lut4.multiplier(a_bits, b_bits, a_signed, b_signed)}

    def tree(self, inputs: int, bits: int) -> Features:
        """LUTs."""
        return {"tree LUTs": lut4.adder_tree(inputs, bits)}

    def accumulator(self, bits: int) -> Features:
        """LUTs."""
        return {"accumulator LUTs": lut4.accumulator(bits)}

    def signed_accumulator(self, bits: int, term_bits: int) -> Features:
        """LUTs."""
        return {"accumulator LUTs": lut4.signed_accumulator(bits, term_bits)}

    def reduction(self, inputs: int) -> int:
        """Three new bits a LUT."""
        return lut4.reduction(inputs)

    def counter(self, count: int) -> int:
        """The carry chain's, too."""
        return lut4.counter(count)


def cells_of(family: str) -> Cells:
    """The cells of a device family."""
    return Lut6() if fabric_of(family).lut_inputs == 6 else Lut4()
