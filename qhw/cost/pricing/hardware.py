"""The calibrated units that build an operation; every count may be an array over design points.

A :class:`Hardware` speaks for one family of devices. Its amounts are sums of units that were measured; wires,
shifts by constants and renamed codes take nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from qhw.cost.pricing.calibrated import CostModel, cost_model
from qhw.cost.pricing.published import signed_digits
from qhw.cost.pricing.usage import Amount, Usage
from qhw.devices import Fabric, fabric_of
from qhw.errors import InputError, closest
from qhw.formats.base import Format
from qhw.formats.modes import IntArray, Rounding
from qhw.formats.operand import MultiplierOperand, product_width
from qhw.formats.table import TableFormat
from qhw.rtl import UNITS
from qhw.rtl.packed_mac import packed_products
from qhw.rtl.shared.integers import DSP_OPERANDS
from qhw.rtl.shared.memories import BLOCK_RAM, LUT_MEMORY, SHIFT_REGISTER
from qhw.rtl.shared.rounding import ROUNDINGS

Multipliers: TypeAlias = Literal["auto", "lut", "dsp", "packed"]
"""Multipliers of integers: LUTs up to 8 bits of both operands and DSP slices beyond, as the vendor's tools
map them; LUTs alone; a DSP slice each; DSP slices that several products share where they fit."""

ROM_DEPTH = 64
"""Words up to which weights lie in LUT memory: the bits of one LUT (UG574)."""

TABLE_DEPTH = 256
"""Entries up to which a table lies in LUT memory: four LUTs a bit."""

FIFO_SRL_DEPTH, FIFO_SRL_BITS = 2, 1024
"""Up to which Vitis HLS makes a stream of shift registers unless told otherwise (UG1399, config_storage)."""

BISECTED = 16
"""Thresholds from which on they are bisected."""

_READ_IN_PLACE = 2
"""Bits of an exponent up to which no LUT of its own takes it apart; beyond, one a bit and one for zero."""

_IN_LUT = 8
"""Bits of both operands up to which tools multiply in LUTs."""


def check_multipliers(name: str) -> None:
    """Refuse an unknown choice of multipliers."""
    known = get_args(Multipliers)
    if name not in known:
        raise InputError(
            f"unknown choice of multipliers {name!r}", allowed=", ".join(known), hint=closest(name, known)
        )


@dataclass(frozen=True)
class Hardware:
    """The units of a family, put together.

    Args:
        model: the family's calibrated models.
        multipliers: how integers are multiplied; see :data:`Multipliers`.
    """

    model: CostModel
    multipliers: Multipliers = "auto"

    @classmethod
    def of(cls, family: str, multipliers: Multipliers = "auto") -> Hardware:
        """The units of a family by its committed model; raises InputError for a family without one."""
        check_multipliers(multipliers)
        return cls(cost_model(family), multipliers)

    @property
    def fabric(self) -> Fabric:
        """The family's cells."""
        return fabric_of(self.model.family)

    def dots(self, a: Format, b: Format, lanes: Amount, elements: Amount, accumulator_bits: Amount) -> Usage:
        """``elements`` multiply-accumulators of vectors of ``lanes`` numbers each.

        Args:
            a, b: formats of the operands; b are the weights.
        """
        x, w = a.operand(), b.operand()
        if x.kind == "khot":
            x = _as_integer(x)
        if x.kind == w.kind == "binary":
            one = self.model.usage("xnor_popcount", L=lanes, A=accumulator_bits)
        elif _are_integers(x, w):
            return self._integer_dots(_as_integer(x), _as_integer(w), lanes, elements, accumulator_bits)
        elif x.kind == w.kind == "minifloat":
            one = self.model.usage(
                "minifloat_dot", **_fields(x, "A"), **_fields(w, "B"), L=lanes, A=accumulator_bits
            )
        else:
            one = self._chained(x, w, lanes, accumulator_bits)
        return one.times(elements)

    def dot_edges(self, a: Format, b: Format, lanes: Amount) -> Amount:
        """Clock edges from the operands of :meth:`dots` to their sum."""
        x, w = a.operand(), b.operand()
        tree = np.ceil(np.log2(lanes))
        if x.kind == w.kind == "minifloat":
            return UNITS["minifloat_dot"].latency({**_fields(x, "A"), **_fields(w, "B"), "L": 1}) + tree
        return 3 + (_are_integers(x, w) and self._in_dsp(_as_integer(x), _as_integer(w))) + tree

    def shared(self, a: Format, b: Format, lanes: Amount, same: bool) -> Usage:
        """The resources that all elements of :meth:`dots` share: the delays of the signal that starts a sum.

        Where they are given the ``same`` a, its registers too, unless those are in a DSP slice, and of a
        minifloat what takes its exponent apart. Nothing is counted as shared where several products are in a
        slice, or where no dot product was measured.
        """
        x, w = a.operand(), b.operand()
        delays = self.dot_edges(a, b, lanes) - 1
        if x.kind == w.kind == "minifloat":
            exponent = x.exponent_bits + 1 if x.exponent_bits > _READ_IN_PLACE else 0
            each = Usage(lut=float(exponent), ff=float(a.width))
        elif _are_integers(x, w) and self.multipliers != "packed":
            in_slice = self._in_dsp(_as_integer(x), _as_integer(w))
            each = Usage(ff=0.0 if in_slice else float(_as_integer(x).width))
        else:
            return Usage()
        return each.times(np.asarray(lanes) * same) + Usage(ff=delays)

    def control(self, pixels: Amount, output_folds: Amount, input_folds: Amount, edges: Amount) -> Usage:
        """The counters and the handshake of a folded layer.

        Args:
            edges: clock edges from a word of inputs to the numbers that it ends.
        """
        return self.model.usage("layer_control", P=pixels, F=output_folds, I=input_folds, D=edges)

    def _integer_dots(
        self,
        a: MultiplierOperand,
        b: MultiplierOperand,
        lanes: Amount,
        elements: Amount,
        accumulator_bits: Amount,
    ) -> Usage:
        parameters = {
            "WA": a.width,
            "WB": b.width,
            "SA": int(a.signed),
            "SB": int(b.signed),
            "L": lanes,
            "A": accumulator_bits,
        }
        if not self._in_dsp(a, b):
            return self.model.usage("integer_dot", **parameters, MULTIPLIER=0).times(elements)
        if self.multipliers == "packed" and b.signed and self._packs(a, b) > 1:
            return self._packed_dots(a, b, lanes, elements, accumulator_bits)
        one = self.model.usage("integer_dot", **parameters, MULTIPLIER=self.fabric.multiplier)
        slices = self._slices(a, b)
        # Parts of a product that is too wide for one slice are added up in LUTs.
        parts = Usage(lut=float((slices - 1) * (a.width + b.width)), dsp=float(slices - 1))
        return (one + parts.times(lanes)).times(elements)

    def _in_dsp(self, a: MultiplierOperand, b: MultiplierOperand) -> bool:
        """Whether a slice multiplies: never by -1, 0 and 1, for which a gate and a carry do."""
        if self.multipliers == "auto":
            return a.width + b.width > _IN_LUT and min(a.significant, b.significant) > 1
        return self.multipliers != "lut"

    def multiplier(self, a: MultiplierOperand, b: MultiplierOperand) -> int:
        """The MULTIPLIER parameter of a product of integers: 0 for LUTs, else the family's slice."""
        return self.fabric.multiplier if self._in_dsp(a, b) else 0

    def _port(self) -> tuple[int, int]:
        return DSP_OPERANDS[self.fabric.multiplier]

    def _slices(self, a: MultiplierOperand, b: MultiplierOperand) -> int:
        """DSP slices of one product: operands beyond a port are cut, each further part taking a bit less."""
        bits = sorted((a.width + (not a.signed), b.width + (not b.signed)))
        parts = [
            max(1, -(-(width - 1) // (port - 1)))
            for width, port in zip(bits, sorted(self._port()), strict=True)
        ]
        return parts[0] * parts[1]

    def _packs(self, a: MultiplierOperand, b: MultiplierOperand) -> int:
        if not self.fabric.packs or a.width + (not a.signed) > self._port()[1]:
            return 1
        return packed_products(a.width, b.width, self._port()[0])

    def _packed_dots(
        self,
        a: MultiplierOperand,
        b: MultiplierOperand,
        lanes: Amount,
        elements: Amount,
        accumulator_bits: Amount,
    ) -> Usage:
        """Elements in groups that share a slice for each lane; lanes are added up behind the slices."""
        most = np.minimum(self._packs(a, b), np.asarray(elements))
        product = a.width + b.width
        groups = np.ceil(np.asarray(elements) / most)
        slices = self.model.usage(
            "packed_mac",
            WA=a.width,
            WB=b.width,
            SA=int(a.signed),
            P=most,
            A=np.where(np.asarray(lanes) > 1, product, accumulator_bits),
            MULTIPLIER=self.fabric.multiplier,
        )
        tree = self.sums(lanes, product)
        total = self.sums(2, accumulator_bits).times(np.asarray(lanes) > 1)
        return slices.times(groups * lanes) + (tree + total).times(elements)

    def _chained(
        self, x: MultiplierOperand, w: MultiplierOperand, lanes: Amount, accumulator_bits: Amount
    ) -> Usage:
        """Lanes that multiply and add one after the other, where no dot product was measured."""
        product = product_width(x, w)
        last = self._mac(x, w, accumulator_bits)
        return last + self._mac(x, w, product + 1).times(np.asarray(lanes) - 1)

    def _mac(self, x: MultiplierOperand, w: MultiplierOperand, accumulator_bits: Amount) -> Usage:
        integer, other = (x, w) if x.kind in ("integer", "binary") else (w, x)
        if w.kind == "khot":
            weight = {"WB": w.width, "K": w.terms, "CSD": int(w.csd), "A": accumulator_bits}
            if x.kind == "minifloat":
                return self.model.usage("khot_minifloat_mac", **_fields(x, "A"), **weight)
            return self.model.usage("khot_mac", WA=x.width, SA=int(x.signed), **weight)
        minifloat = _fields(other, "B")
        return self.model.usage(
            "mixed_mac", WA=integer.width, SA=int(integer.signed), **minifloat, A=accumulator_bits
        )

    def sums(self, count: Amount, bits: Amount) -> Usage:
        """The sum of ``count`` numbers, by a registered tree; nothing for one number."""
        several = np.asarray(count) > 1
        return self.model.usage("adder_tree", N=np.maximum(count, 2), W=bits, S=1).times(several)

    def maximum(self, count: Amount, bits: Amount, signed: bool) -> Usage:
        """The largest of ``count`` numbers."""
        return self.model.usage("max_pool", W=bits, N=np.maximum(count, 2), S=int(signed))

    def constant_products(self, constants: IntArray, bits: int) -> Usage:
        """A number times a constant, by adding and subtracting shifted copies: the mean over the constants.

        One register in front and one behind; all copies are of the same number.
        """
        width = bits + int(np.abs(constants).max(initial=1)).bit_length()
        digits, often = np.unique(np.maximum(signed_digits(constants).ravel(), 1), return_counts=True)
        lut = np.average(np.broadcast_to(self.sums(digits, width).lut, len(digits)), weights=often)
        return Usage(lut=float(lut), ff=float(bits + width))

    def constant_dots(self, weights: IntArray, x: MultiplierOperand) -> Usage:
        """A whole matrix of constants, unrolled: for each output, a tree over shifted copies of the inputs.

        Args:
            weights: the matrix, shape (inputs, outputs).
        """
        digits, often = np.unique(np.maximum(signed_digits(weights).sum(axis=0), 1), return_counts=True)
        trees = self.sums(digits, x.width)
        # The tree's input registers are those of the inputs, which all outputs share.
        sums = trees.ff - digits * x.width * (digits > 1)
        return Usage(
            lut=float((np.broadcast_to(trees.lut, len(digits)) * often).sum()),
            ff=float((sums * often).sum() + weights.shape[0] * x.width),
        )

    def weights(self, depth: Amount, bits: Amount, in_lut: int = ROM_DEPTH) -> Usage:
        """The memory that weights lie in; none at depth 1, where they are constants.

        Args:
            in_lut: words up to which it is LUT memory, and block RAM beyond.
        """
        words = np.asarray(depth)
        style = np.where(words <= in_lut, LUT_MEMORY, BLOCK_RAM)
        memory = self.model.usage("weight_memory", D=np.maximum(words, 2), W=np.maximum(bits, 1), STYLE=style)
        return memory.times(words > 1)

    def fifo(self, depth: Amount, bits: Amount) -> Usage:
        """The stream between two layers: two words in registers, LUTs while it is small, block RAM beyond."""
        words, width = np.maximum(depth, 2), np.asarray(bits)
        return self.model.usage("fifo", D=words, W=width, STYLE=self.queue_style(words, width))

    def queue_style(self, words: Amount, bits: Amount) -> Any:
        """How a queue of so many words is made; where LUTs are no shift registers, they are a memory."""
        few, small = np.asarray(words) <= FIFO_SRL_DEPTH, np.asarray(words) * bits <= FIFO_SRL_BITS
        in_luts = SHIFT_REGISTER if self.fabric.lut_inputs == 6 else LUT_MEMORY
        style = np.where(few, SHIFT_REGISTER, np.where(small, in_luts, BLOCK_RAM))
        return style if style.shape else int(style)

    def window(self, rows: int, columns: int, row_length: int, bits: int) -> Usage:
        """The line buffer and window that slide over an image: rows x columns pixels.

        Rows are shift registers, as hls4ml's line buffer keeps them; one row needs none.
        """
        if rows < 2:
            return Usage(ff=float(columns * bits))
        square = self.model.usage(
            "line_buffer", K=rows, W=bits, N=max(row_length, rows), STYLE=SHIFT_REGISTER
        )
        return square + Usage(ff=float(rows * (columns - rows) * bits))

    def buffer(
        self,
        side: int,
        image: Sequence[int],
        words: Amount,
        folds: Amount,
        bits: Amount,
        depthwise: bool = False,
    ) -> Usage:
        """The rows of an image that a window of ``side`` pixels lies on, read in the order of a folded layer.

        Args:
            image: its rows and columns, padding included.
            words: words of a pixel, ``bits`` bits each.
            folds: reads of every window; depthwise, each word's window is read alone, and once.
        """
        rows, columns = image
        span = ((side - 1) * columns + side) * np.asarray(words)
        return self.model.usage(
            "window_buffer",
            K=side,
            N=columns,
            M=rows,
            C=words,
            DEPTHWISE=int(depthwise),
            F=1 if depthwise else folds,
            W=bits,
            STYLE=np.where(span > ROM_DEPTH, BLOCK_RAM, LUT_MEMORY),
        )

    def selection(self, count: Amount, bits: Amount) -> Usage:
        """One of ``count`` words, by multiplexers."""
        steps = np.asarray(count) - 1
        return Usage(lut=bits * (-(-steps // 3) if self.fabric.lut_inputs == 6 else steps))

    def requantise(
        self, x: Format, result: Format, dropped: int, rounding: Rounding, saturates: bool
    ) -> Usage:
        """Rounding and saturation of one number; a shift alone is wires."""
        bits, out = x.width, result.width
        if not saturates:
            out = min(out, max(bits - max(dropped, 0), 1))
        values = {
            "WI": max(bits, dropped + 1) if dropped > 0 else bits,
            "WO": out,
            "S": max(dropped, 0),
            "SI": int(x.mantissa_low < 0),
            "SO": int(result.mantissa_low < 0),
            "ROUNDING": ROUNDINGS.index(rounding),
        }
        return self.model.usage("requantize", **values)

    def to_minifloat(self, bits: int, result: TableFormat, below: int) -> Usage:
        """An integer of some bits to a format that is encoded by shifting, as minifloats are.

        Args:
            below: bits by which its smallest step lies above the integer's unit.
        """
        fields = result.operand()
        rounding = ROUNDINGS.index(result.rounding)
        return self.model.usage(
            "fixed_to_minifloat",
            A=bits,
            E=fields.exponent_bits,
            M=fields.mantissa_bits,
            P=max(below, 0),
            ROUNDING=rounding,
        )

    def threshold(self, bits: int, count: int, signed: bool) -> Usage:
        """One number against ``count`` thresholds: against all at once, or by bisection where they are many.

        A step of the bisection is a comparison, and a memory holds the thresholds (``hls``'s elementwise.h).
        """
        if count < BISECTED:
            return self.model.usage("threshold", A=bits, T=count, S=int(signed))
        step = self.model.usage("threshold", A=bits, T=1, S=int(signed))
        return step.times(count.bit_length()) + self.table(count, bits)

    def table(self, entries: int, bits: int) -> Usage:
        """A look-up table of one number; there is one for each lane, so that it stays in LUTs for longer."""
        return self.weights(max(entries, 2), bits, in_lut=TABLE_DEPTH)


def _are_integers(x: MultiplierOperand, w: MultiplierOperand) -> bool:
    """Whether a product is that of integers; binary numbers count agreements."""
    return "minifloat" not in (x.kind, w.kind) and w.kind != "khot" and not x.kind == w.kind == "binary"


def _as_integer(operand: MultiplierOperand) -> MultiplierOperand:
    """The number itself, where no unit takes its parts."""
    significant = operand.width if operand.kind in ("minifloat", "khot") else operand.significant
    return replace(operand, kind="integer", significant=significant)


def _fields(operand: MultiplierOperand, which: str) -> dict[str, Any]:
    return {f"E{which}": operand.exponent_bits, f"M{which}": operand.mantissa_bits}
