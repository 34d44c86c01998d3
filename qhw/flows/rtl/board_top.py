"""A design on a board: a serial line or SPI around its streams, at the board's pins."""

from __future__ import annotations

from qhw.boards import Board
from qhw.flows.rtl.circuit import TOP, WEIGHTS, Circuit, axis_bits, instance
from qhw.flows.rtl.pin_file import UART, Pins, boards_with_pins, pins_of

UART_LOADER, SPI_LOADER = "uart_loader", "spi_loader"
BOARD_TOP = "board"
BAUD = 1_000_000
"""Bits a second of the serial line: a whole number of clock cycles at any clock of whole MHz."""

_SHOWN = {"ready": "ready", "input": "x_ready", "output": "y_valid", "lost": "lost"}
"""The signal that each LED shows."""


def why_no_board(circuit: Circuit, board: Board, loader: str = UART) -> str:
    """Why a design has no module ``board``; empty where it has one."""
    pins = pins_of(board, loader)
    if pins is None:
        what = "no pin file" if pins_of(board) is None else f"no {loader.upper()} pins in the pin file"
        return f"qhw has {what} of {board.name}; it has those of {', '.join(boards_with_pins(loader))}"
    if not len(circuit.inputs) == len(circuit.outputs) == 1:
        return (
            f"the design has {len(circuit.inputs)} inputs and {len(circuit.outputs)} outputs, and a loader "
            "carries one of each"
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
    serial = "receive" in pins.line
    settings: dict[str, int | str] = {
        "X": x_bits // 8,
        "Y": y_bits // 8,
        "BYTES": x.words * (x_bits // 8),
        "WEIGHTS": len(circuit.weights_image),
        "IDENTITY": f"64'h{identity.hex()}",
    }
    if serial:
        settings["DIVIDER"] = max(2, round(pins.clock_mhz * 1e6 / BAUD))
    weights = [f"weights_{what}" for what in ("valid", "ready", "last")]
    streams = [f"{name}{what}" for name in "xy" for what in ("", "_valid", "_ready")]
    same = ("clk", *pins.line, *streams, "lost", "weights", *weights)
    loader = {name: name for name in same} | {"reset": "~ready"}
    design = {"aclk": "clk", "aresetn": "ready"}
    design |= {"s_axis_tdata": "x", "s_axis_tvalid": "x_valid", "s_axis_tready": "x_ready"}
    design |= {"s_axis_tlast": "1'b0", "m_axis_tdata": "y", "m_axis_tvalid": "y_valid"}
    design |= {"m_axis_tready": "y_ready", "m_axis_tlast": ""}
    if circuit.loaded:
        design |= {f"{WEIGHTS}_t{what}": f"weights_{what}" for what in ("valid", "ready", "last")}
        design[f"{WEIGHTS}_tdata"] = "weights"
    line = f"a serial line of {BAUD:,} baud, 8 bits, no parity, 1 stop bit" if serial else "SPI, mode 0"
    return "\n".join(
        [
            f"// The design behind {line}:",
            f"// an image is a byte 1 and {settings['BYTES']} bytes in, {y.words * (y_bits // 8)} bytes out.",
            f"module {BOARD_TOP} (",
            ",\n".join(_ports(pins)),
            ");",
            *_reset(pins),
            f"    wire x_valid, x_ready, y_valid, y_ready, lost, {', '.join(weights)};",
            "    wire [7:0] weights;",
            *([] if circuit.loaded else ["    assign weights_ready = 1'b0;"]),
            f"    wire [{x_bits - 1}:0] x;",
            f"    wire [{y_bits - 1}:0] y;",
            *_shown(pins),
            instance(UART_LOADER if serial else SPI_LOADER, "loader", settings, loader),
            instance(TOP, "design_", {}, design),
            "endmodule\n",
        ]
    )


def _ports(pins: Pins) -> list[str]:
    leds = len(pins.leds)
    driven = [name for name in pins.line if name in ("transmit", "miso")]
    line = [name for name in pins.line if name not in driven]
    inputs = ["clk", *line, *(["button"] if pins.button else [])]
    outputs = [*driven, *(["high"] if pins.high else [])]
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
