"""What places, routes and packs the designs of a family."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qhw.errors import ToolMissingError
from qhw.flows.rtl.pin_file import Pin

NETLIST, REPORT = "mapped.json", "report.json"
"""What nextpnr reads, and what it writes about the clock and the cells."""


@dataclass(frozen=True)
class Step:
    """A tool's run in a folder.

    Args:
        tool: its name in messages.
        module: the Python module that it comes in.
        entry: the function of the module that takes the arguments from ``sys.argv``.
        makes: the file that there is behind it.
    """

    tool: str
    module: str
    entry: str
    arguments: Sequence[str]
    makes: str

    @property
    def command(self) -> list[str]:
        """The command; raises ToolMissingError where the module is not installed."""
        package = self.module.split(".")[0]
        if importlib.util.find_spec(package) is None:
            raise ToolMissingError(
                f"A bitstream needs {self.tool}, which is not installed", hint="pip install 'qhw[synth]'"
            )
        run = f"import sys, {self.module} as m; sys.argv[0] = {self.tool!r}; sys.exit(m.{self.entry}())"
        return [sys.executable, "-P", "-c", run, *self.arguments]


@dataclass(frozen=True)
class Router:
    """The tools of a family.

    Args:
        constraints: the name of the file of pins.
        pin: the lines of one port at its pin.
        clock: the line of the clock at port ``clk``, in MHz; empty where nextpnr is told.
        takes: whether it knows a part.
        steps: from the netlist and the constraints to the bitstream: of a part, a clock in MHz.
    """

    constraints: str
    pin: Callable[[str, Pin], str]
    clock: Callable[[float], str]
    takes: Callable[[str], bool]
    steps: Callable[[str, float], Sequence[Step]]

    def constraints_text(self, ports: Mapping[str, Pin], clock_mhz: float) -> str:
        """The file of pins."""
        return "".join(self.pin(name, pin) for name, pin in ports.items()) + self.clock(clock_mhz)


def common(clock_mhz: float) -> list[str]:
    """The options of every nextpnr."""
    aim = ["--freq", f"{clock_mhz:g}", "--seed", "1", "--timing-allow-fail", "-q"]
    return ["--json", NETLIST, "--report", REPORT, *aim]
