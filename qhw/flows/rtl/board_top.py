"""A design on a board: a serial line around its streams, at the board's pins."""

from __future__ import annotations

from qhw.boards import Board
from qhw.flows.rtl.circuit import TOP, Circuit, axis_bits, instance
from qhw.flows.rtl.pin_file import Pins, boards_with_pins, pins_of

BOARD_TOP = "board"
BAUD = 1_000_000
"""Bits a second of the serial line: a whole number of clock cycles at any clock of whole MHz."""

_SHOWN = {"ready": "ready", "input": "x_ready", "output": "y_valid", "lost": "lost"}
"""The signal that each LED shows."""


def why_no_board(circuit: Circuit, board: Board) -> str:
    """Why a design has no module ``board``; empty where it has one."""
    pins = pins_of(board)
    if pins is None:
        return f"qhw has no pin file of {board.name}; it has those of {', '.join(boards_with_pins())}"
    if not len(circuit.inputs) == len(circuit.outputs) == 1:
        return (
            f"the design has {len(circuit.inputs)} inputs and {len(circuit.outputs)} outputs, and one serial "
            "line carries one of each"
        )
    if board.clock_mhz != pins.clock_mhz:
        return (
            f"it is built for {board.clock_mhz:g} MHz, and the oscillator of {board.name} has "
            f"{pins.clock_mhz:g} MHz"
        )
    return ""


def board_text(circuit: Circuit, pins: Pins, identity: bytes) -> str:
    """The module that the pins belong to: a reset, the design, and its loader, which tells its identity.

    Args:
        identity: 8 bytes, see :func:`qhw.flows.rtl.project.identity`.

    The LEDs, as many as the board has: a reset is over, the design waits for an input, an output waits, a
    byte was lost.
    """
    x, y = circuit.inputs[0], circuit.outputs[0]
    x_bits, y_bits = axis_bits(x), axis_bits(y)
    settings: dict[str, int | str] = {
        "X": x_bits // 8,
        "Y": y_bits // 8,
        "BYTES": x.words * (x_bits // 8),
        "DIVIDER": max(2, round(pins.clock_mhz * 1e6 / BAUD)),
        "IDENTITY": f"64'h{identity.hex()}",
    }
    loader = {name: name for name in ("clk", "receive", "transmit", "x_ready", "y_valid", "x", "y")}
    loader |= {"reset": "~ready", "x_valid": "x_valid", "y_ready": "y_ready", "lost": "lost"}
    design = {"aclk": "clk", "aresetn": "ready"}
    design |= {"s_axis_tdata": "x", "s_axis_tvalid": "x_valid", "s_axis_tready": "x_ready"}
    design |= {"s_axis_tlast": "1'b0", "m_axis_tdata": "y", "m_axis_tvalid": "y_valid"}
    design |= {"m_axis_tready": "y_ready", "m_axis_tlast": ""}
    return "\n".join(
        [
            f"// The design behind a serial line of {BAUD:,} baud, 8 bits, no parity, 1 stop bit:",
            f"// an image is a byte 1 and {settings['BYTES']} bytes in, {y.words * (y_bits // 8)} bytes out.",
            f"module {BOARD_TOP} (",
            ",\n".join(_ports(pins)),
            ");",
            *_reset(pins),
            "    wire x_valid, x_ready, y_valid, y_ready, lost;",
            f"    wire [{x_bits - 1}:0] x;",
            f"    wire [{y_bits - 1}:0] y;",
            *_shown(pins),
            instance("uart_loader", "loader", settings, loader),
            instance(TOP, "design_", {}, design),
            "endmodule\n",
        ]
    )


def _ports(pins: Pins) -> list[str]:
    leds = len(pins.leds)
    inputs = ["clk", "receive", *(["button"] if pins.button else [])]
    outputs = ["transmit", *(["high"] if pins.high else [])]
    width = f"[{leds - 1}:0] " if leds > 1 else ""
    return [
        f"    input  {', '.join(inputs)}",
        f"    output {', '.join(outputs)}",
        *([f"    output {width}led"] if leds else []),
    ]


def _reset(pins: Pins) -> list[str]:
    if pins.button is None:
        return [
            "    // A reset of 16 cycles after the configuration.",
            "    reg  [4:0] started = 0;",
            "    wire ready = started[4];",
            "    always @(posedge clk) if (~ready) started <= started + 1'b1;",
        ]
    return [
        "    // A reset of 16 cycles after the configuration, and while the button is pressed.",
        "    reg  [4:0] started = 0;",
        "    reg  [1:0] pressed = 0;",
        "    wire ready = started[4];",
        "    always @(posedge clk) begin",
        f"        pressed <= {{pressed, {'' if pins.button.active else '~'}button}};",
        "        started <= pressed[1] ? 5'd0 : ready ? started : started + 1'b1;",
        "    end",
    ]


def _shown(pins: Pins) -> list[str]:
    lit = [f"{'' if pin.active else '~'}{_SHOWN[name]}" for name, pin in reversed(list(pins.leds.items()))]
    return [
        *(["    assign high = 1'b1;"] if pins.high else []),
        *([f"    assign led = {{{', '.join(lit)}}};"] if lit else []),
    ]
