"""Errors of a unit's closed forms on measured circuits that they were not fitted to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qhw.cost.calibration.fit import Spread, predicted_lut
from qhw.cost.calibration.measured import Row
from qhw.rtl.base import ClosedForms

FF_SLACK, FF_SHARE = 2, 0.05
"""Flip-flops by which a count may be off: an absolute number, or a share."""


@dataclass(frozen=True)
class UnitErrors:
    """The errors of one unit's model over some measured designs.

    Args:
        designs: the number of designs.
        lut_percent, lut: spread of the absolute errors, relative and in LUT.
        ff_exact: share of designs whose flip-flops are predicted exactly.
        ff_beyond: designs whose flip-flops are off by more than 2 and by more than 5 %.
        dsp_exact, memory_exact: share of designs whose DSP slices, block and UltraRAMs are predicted exactly.
    """

    designs: int
    lut_percent: Spread
    lut: Spread
    ff_exact: float
    ff_beyond: int
    dsp_exact: float
    memory_exact: float

    @classmethod
    def of(
        cls, model: ClosedForms, weights: Mapping[str, float], rows: Sequence[Row], family: str
    ) -> UnitErrors:
        """The errors over the rows that have counts."""
        used = [row for row in rows if row.result.counts]
        off = [predicted_lut(model, weights, row.values) - row.counts.lut for row in used]
        ff_off = [model.flip_flops(row.values) - row.counts.ff for row in used]
        memories = [_memories_agree(model, row, family) for row in used]
        return cls(
            designs=len(used),
            lut_percent=Spread.of(
                100 * error / max(row.counts.lut, 1) for error, row in zip(off, used, strict=True)
            ),
            lut=Spread.of(off),
            ff_exact=_share(error == 0 for error in ff_off),
            ff_beyond=sum(
                abs(error) > max(FF_SLACK, FF_SHARE * row.counts.ff)
                for error, row in zip(ff_off, used, strict=True)
            ),
            dsp_exact=_share(model.dsp(row.values) == row.counts.dsp for row in used),
            memory_exact=_share(memories),
        )


def _memories_agree(model: ClosedForms, row: Row, family: str) -> bool:
    told = model.bram18(row.values, family), model.uram(row.values, family)
    return told == (row.counts.bram18, row.counts.uram)


def _share(truths: Iterable[bool]) -> float:
    given = list(truths)
    return sum(given) / len(given) if given else float("nan")
