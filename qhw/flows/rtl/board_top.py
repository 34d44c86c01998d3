"""A design on a board: a serial line around its streams, and the pins."""

from __future__ import annotations

from pathlib import Path

from qhw.boards import Board
from qhw.flows.rtl.circuit import TOP, Circuit, axis_bits, instance

PINS = Path(__file__).parent / "pins"
BOARD_TOP = "board"
BAUD = 1_000_000
"""Bits a second of the serial line: a whole number of clock cycles at any clock of whole MHz."""


def pin_file(board: Board) -> Path | None:
    """The constraints of a board's pins; None where it has none, or the design does not fit a serial line."""
    path = PINS / f"{board.name}.lpf"
    return path if path.is_file() else None


def is_loadable(circuit: Circuit) -> bool:
    """Whether one serial line carries everything that goes in and comes out."""
    return len(circuit.inputs) == len(circuit.outputs) == 1


def constraints_text(board: Board) -> str | None:
    """The constraints of a board's pins and of its clock; None where there is no pin file."""
    path = pin_file(board)
    if path is None:
        return None
    return path.read_text() + f'FREQUENCY PORT "clk" {board.clock_mhz:g} MHZ;\n'


def board_text(circuit: Circuit, board: Board, identity: bytes) -> str:
    """The module that the pins belong to: a reset, the design, and its loader, which tells its identity.

    Args:
        identity: 8 bytes, see :func:`qhw.flows.rtl.project.identity`.

    The LEDs: a reset is over, the design waits for an input, an output waits, a byte was lost.
    """
    x, y = circuit.inputs[0], circuit.outputs[0]
    x_bits, y_bits = axis_bits(x), axis_bits(y)
    settings: dict[str, int | str] = {
        "X": x_bits // 8,
        "Y": y_bits // 8,
        "BYTES": x.words * (x_bits // 8),
        "DIVIDER": max(2, round(board.clock_mhz * 1e6 / BAUD)),
        "IDENTITY": f"64'h{identity.hex()}",
    }
    loader = {name: name for name in ("clk", "receive", "transmit", "x_ready", "y_valid", "x", "y")}
    loader |= {"reset": "~ready", "x_valid": "x_valid", "y_ready": "y_ready", "lost": "lost"}
    design = {"aclk": "clk", "aresetn": "ready"}
    design |= {"s_axis_tdata": "x", "s_axis_tvalid": "x_valid", "s_axis_tready": "x_ready"}
    design |= {"s_axis_tlast": "1'b0", "m_axis_tdata": "y", "m_axis_tvalid": "y_valid"}
    design |= {"m_axis_tready": "y_ready", "m_axis_tlast": ""}
    return f"""\
// The design behind a serial line of {BAUD:,} baud, 8 bits, no parity, 1 stop bit: an image is
// a byte 1 and {settings["BYTES"]} bytes in, and {y.words * (y_bits // 8)} bytes out.
module {BOARD_TOP} (
    input  clk, receive, button,
    output transmit, high,
    output [3:0] led
);
    // A reset of 16 cycles after the configuration, and while the button is pressed.
    reg  [4:0] started = 0;
    reg  [1:0] pressed = 0;
    wire ready = started[4];
    always @(posedge clk) begin
        pressed <= {{pressed, button}};
        started <= pressed[1] ? 5'd0 : ready ? started : started + 1'b1;
    end
    wire x_valid, x_ready, y_valid, y_ready, lost;
    wire [{x_bits - 1}:0] x;
    wire [{y_bits - 1}:0] y;
    assign high = 1'b1;
    assign led = {{lost, y_valid, x_ready, ready}};
{instance("uart_loader", "loader", settings, loader)}
{instance(TOP, "design_", {}, design)}
endmodule
"""
