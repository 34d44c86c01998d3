"""What a calibration run measured, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qhw.report.tables import Table

if TYPE_CHECKING:
    from qhw.cost.calibrate import Calibration


def calibration_tables(calibration: Calibration) -> list[Table]:
    """A row per unit, and the designs that the tool refused."""
    rows = tuple((unit, n.rows, n.held_out, n.failed) for unit, n in calibration.units.items())
    note = (
        f"{calibration.measured:,} designs measured now, {calibration.left:,} left; "
        f"{len(calibration.rows):,} rows in {calibration.path}"
    )
    columns = ("unit", "rows", "held out", "out of time or memory")
    measured = Table(f"Measured, {calibration.family}", columns, rows, note)
    if not calibration.refused:
        return [measured]
    return [measured, Table("Refused", ("design", "why"), tuple(calibration.refused.items()))]
