"""The Verilog between AXI DMA and a network: registers, counted images, packets of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhw.zynq.layout import BEAT_BITS, DmaTensor

LIBRARY = Path(__file__).parent / "verilog"
SHELL = "accelerator_axi"


def bus(index: int, count: int, side: str) -> str:
    """The name of one of a design's AXI streams: ``s_axis``, or ``s0_axis`` where there are several."""
    return f"{side}_axis" if count == 1 else f"{side}{index}_axis"


def shell_text(
    inputs: Sequence[DmaTensor], outputs: Sequence[DmaTensor], identity: bytes, inside: str | None = None
) -> str:
    """The module that the block design instantiates.

    Its streams are beats of 64 bits with TKEEP and TLAST, ``s_axis`` and ``m_axis``, and its registers the
    AXI4-Lite slave ``s_axi`` (``axi_registers.v``).

    Args:
        identity: 8 bytes that its registers tell.
        inside: Verilog of the network between the wires ``given0``, ``given0_valid``, ``given0_ready`` of
            each input and ``taken0``, ``taken0_valid``, ``taken0_ready``, ``taken0_last`` of each output,
            under ``aclk`` and ``network_resetn``. Without it the network is another cell of the block
            design, and these are ports: the streams ``x_axis`` to it and ``y_axis`` from it.
    """
    buses = [bus(i, len(inputs), "s") for i in range(len(inputs))]
    buses += [bus(i, len(outputs), "m") for i in range(len(outputs))]
    outer = [(bus(i, len(inputs), "x"), "master") for i in range(len(inputs))]
    outer += [(bus(i, len(outputs), "y"), "slave") for i in range(len(outputs))]
    if inside is None:
        buses += [name for name, _ in outer]
    associated = f"ASSOCIATED_BUSIF {':'.join(['s_axi', *buses])}, ASSOCIATED_RESET aresetn"
    ports = [
        '    (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK",',
        f'       X_INTERFACE_PARAMETER = "{associated}" *)',
        "    input  aclk,",
        *_reset_attributes("aresetn"),
        "    input  aresetn,",
        *_lite_ports(),
    ]
    streams = [(bus(i, len(inputs), "s"), "slave") for i in range(len(inputs))]
    streams += [(bus(i, len(outputs), "m"), "master") for i in range(len(outputs))]
    listed = [_stream_ports(*stream) for stream in (*streams, *(outer if inside is None else ()))]
    if inside is None:
        listed.append([*_reset_attributes("network_resetn"), "    output network_resetn"])
    body = [line for part in listed for line in (*part[:-1], part[-1] + ",")]
    body[-1] = body[-1].removesuffix(",")
    wires = ["    wire begun, delivered, misaligned;", "    wire [31:0] packet;"]
    if inside is not None:
        wires.append("    wire network_resetn;")
    for i in range(len(inputs)):
        wires += _input_text(i, inputs)
    for i in range(len(outputs)):
        wires += _output_text(i, outputs)
    wires.append("    assign begun = begun0;")
    wires.append("    assign delivered = taken0_last & taken0_valid & taken0_ready;")
    wires.append(f"    assign misaligned = {' | '.join(f'misaligned{i}' for i in range(len(inputs)))};")
    return "\n".join(
        [
            f"module {SHELL} (",
            *ports,
            *body,
            ");",
            *wires,
            *_registers(identity),
            *([inside] if inside is not None else _to_the_cell(len(inputs), len(outputs))),
            "endmodule\n",
        ]
    )


def _reset_attributes(name: str) -> list[str]:
    return [
        f'    (* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 {name} RST",',
        '       X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)',
    ]


def _lite_ports() -> list[str]:
    given = [(f"{c}addr", 8) for c in ("aw", "ar")] + [("wdata", 32), ("wstrb", 4)]
    given += [(name, 1) for name in ("awvalid", "wvalid", "bready", "arvalid", "rready")]
    shown = [(name, 1) for name in ("awready", "wready", "arready", "bvalid", "rvalid")]
    shown += [("bresp", 2), ("rresp", 2), ("rdata", 32)]
    lines = []
    for way, pins in (("input ", given), ("output", shown)):
        for name, bits in pins:
            width = f"[{bits - 1}:0] " if bits > 1 else ""
            lines.append(f"    {way} {width}s_axi_{name},")
    return lines


def _stream_ports(name: str, mode: str) -> list[str]:
    into, out = ("input ", "output") if mode == "slave" else ("output", "input ")
    return [
        f"    {into} [{BEAT_BITS - 1}:0] {name}_tdata,",
        f"    {into} [{BEAT_BITS // 8 - 1}:0] {name}_tkeep,",
        f"    {into} {name}_tvalid, {name}_tlast,",
        f"    {out} {name}_tready",
    ]


def _input_text(index: int, inputs: Sequence[DmaTensor]) -> list[str]:
    """Beats of an image go in while the network is not in reset; how the host cuts them is only checked."""
    name, given = bus(index, len(inputs), "s"), f"given{index}"
    return [
        f"    wire [{BEAT_BITS - 1}:0] {given} = {name}_tdata;",
        f"    wire {given}_valid = {name}_tvalid & network_resetn, {given}_ready;",
        f"    wire begun{index}, misaligned{index};",
        f"    assign {name}_tready = {given}_ready & network_resetn;",
        f"    image_beats #(.BEATS({inputs[index].beats})) beats{index} (",
        f"        .clk(aclk), .resetn(network_resetn), .step({given}_valid & {given}_ready),",
        f"        .last({name}_tlast), .begun(begun{index}), .misaligned(misaligned{index})",
        "    );",
    ]


def _output_text(index: int, outputs: Sequence[DmaTensor]) -> list[str]:
    name, taken = bus(index, len(outputs), "m"), f"taken{index}"
    return [
        f"    wire [{BEAT_BITS - 1}:0] {taken};",
        f"    wire {taken}_valid, {taken}_last, {taken}_ready = {name}_tready & network_resetn;",
        f"    assign {name}_tdata = {taken};",
        f"    assign {name}_tkeep = {{{BEAT_BITS // 8}{{1'b1}}}};",
        f"    assign {name}_tvalid = {taken}_valid & network_resetn;",
        f"    image_packets packets{index} (",
        f"        .clk(aclk), .resetn(network_resetn), .step({name}_tvalid & {name}_tready),",
        f"        .image_last({taken}_last), .packet(packet), .last({name}_tlast)",
        "    );",
    ]


def _registers(identity: bytes) -> list[str]:
    names = [line.split()[-1].removesuffix(",") for line in _lite_ports()]
    pins = [f".{name}({name})" for name in names]
    rows = [", ".join(pins[i : i + 4]) for i in range(0, len(pins), 4)]
    return [
        f"    axi_registers #(.IDENTITY(64'h{identity.hex()})) registers (",
        "        .aclk(aclk), .aresetn(aresetn),",
        *(f"        {row}," for row in rows),
        "        .begun(begun), .delivered(delivered), .misaligned(misaligned),",
        "        .network_resetn(network_resetn), .packet(packet)",
        "    );",
    ]


def _to_the_cell(inputs: int, outputs: int) -> list[str]:
    """The wires of the network as ports."""
    lines = []
    for i in range(inputs):
        name, source = bus(i, inputs, "x"), bus(i, inputs, "s")
        lines += [
            f"    assign {name}_tdata = given{i};",
            f"    assign {name}_tkeep = {source}_tkeep;",
            f"    assign {name}_tlast = {source}_tlast;",
            f"    assign {name}_tvalid = given{i}_valid;",
            f"    assign given{i}_ready = {name}_tready;",
        ]
    for i in range(outputs):
        name = bus(i, outputs, "y")
        lines += [
            f"    assign taken{i} = {name}_tdata;",
            f"    assign taken{i}_valid = {name}_tvalid;",
            f"    assign taken{i}_last = {name}_tlast;",
            f"    assign {name}_tready = taken{i}_ready;",
        ]
    return lines
