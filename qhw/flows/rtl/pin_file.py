"""Which pins of a board the design and its loader are at: one TOML file a board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhw.boards import Board
from qhw.outside.text import read_toml

PINS = Path(__file__).parent / "pins"
_LARGEST_FILE = 1 << 16


@dataclass(frozen=True)
class Pin:
    """A pin of the device.

    Args:
        site: its name in the package.
        io: the standard of its bank.
        pull: a resistor: none, up, down.
        drive: mA; the device's own strength without one.
        active: the level at which a button is pressed, or an LED lit.
    """

    site: str
    io: str = "LVCMOS33"
    pull: str = "none"
    drive: int | None = None
    active: int = 1


@dataclass(frozen=True)
class Pins:
    """The pins of module ``board``.

    Args:
        clock_mhz: the oscillator at ``clk``.
        line: the pins of the loader's line, by their names: ``receive`` and ``transmit`` of a serial one;
            ``sck``, ``mosi``, ``miso`` and ``cs`` of SPI.
        button: a reset; boards may have none.
        high: a pin that has to be 1.
        leds: of ``ready``, ``input``, ``output`` and ``lost`` those that the board has, in this order.
    """

    clock_mhz: float
    clk: Pin
    line: Mapping[str, Pin]
    button: Pin | None
    high: Pin | None
    leds: Mapping[str, Pin]

    @property
    def ports(self) -> dict[str, Pin]:
        """The pin of every bit of a port, by its name in Verilog."""
        one = {"clk": self.clk, **self.line, "button": self.button, "high": self.high}
        # A port of one bit is no vector.
        leds = [f"led[{i}]" for i in range(len(self.leds))] if len(self.leds) > 1 else ["led"]
        named = zip(leds, self.leds.values(), strict=False)
        return {name: pin for name, pin in one.items() if pin is not None} | dict(named)


UART, SPI = "uart", "spi"
"""Loaders: what lies between a host and a design."""


def boards_with_pins(loader: str = UART) -> tuple[str, ...]:
    """Names of the boards that have a pin file, with the pins of a loader."""
    names = sorted(path.stem for path in PINS.glob("*.toml"))
    return tuple(name for name in names if loader == UART or loader in _given(name))


def _given(name: str) -> dict[str, Any]:
    return read_toml(PINS / f"{name}.toml", "pin file", _LARGEST_FILE)


def pins_of(board: Board, loader: str = UART) -> Pins | None:
    """A board's pins; None where it has no pin file, or none of the loader's pins."""
    if board.name not in boards_with_pins(loader):
        return None
    given = _given(board.name)
    line = given if loader == UART else given[loader]
    names = ("receive", "transmit") if loader == UART else ("sck", "mosi", "miso", "cs")
    leds, button, high = given.get("led", {}), given.get("button"), given.get("high")
    return Pins(
        clock_mhz=float(given["clock_mhz"]),
        clk=Pin(**given["clk"]),
        line={name: Pin(**line[name]) for name in names},
        button=Pin(**button) if button else None,
        high=Pin(**high) if high else None,
        leds={name: Pin(**leds[name]) for name in ("ready", "input", "output", "lost") if name in leds},
    )
