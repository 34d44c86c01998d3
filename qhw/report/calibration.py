"""Tables of a calibration run's measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qhw.report.tables import Table

if TYPE_CHECKING:
    from qhw.cost.calibration.calibrate import Calibration


def calibration_tables(calibration: Calibration) -> list[Table]:
    """A row per unit with the errors of its model, and the designs that the tool refused."""
    rows = tuple(
        (unit, n.rows, n.held_out, n.failed, *_errors(calibration, unit))
        for unit, n in calibration.units.items()
    )
    note = (
        f"{calibration.measured:,} designs measured now, {calibration.left:,} left; "
        f"{len(calibration.rows):,} rows in {calibration.path}"
    )
    columns = ("unit", "rows", "held out", "failed", "LUT median %", "95th %", "FF exact")
    measured = Table(f"Measured, {calibration.family}", columns, rows, note)
    if not calibration.refused:
        return [measured]
    return [measured, Table("Refused", ("design", "why"), tuple(calibration.refused.items()))]


def _errors(calibration: Calibration, unit: str) -> tuple[str, str, str]:
    """On held-out designs; blank where there are none."""
    found = calibration.fitted.units[unit].held_out
    if not found.designs:
        return "", "", ""
    return f"{found.lut_percent.median:.1f}", f"{found.lut_percent.p95:.1f}", f"{found.ff_exact:.0%}"
