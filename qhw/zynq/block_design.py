"""Tcl for Vivado: the processing system of a Zynq, AXI DMA, a design between its streams, up to a bitstream.

The names of cells, pins and properties are those of AMD's documents: PG021 (AXI DMA), PG247 (SmartConnect),
PG164 (processor system reset), PG082 and PG201 (the processing systems), UG835 (commands).
"""

from __future__ import annotations

from dataclasses import dataclass

from qhw.boards import Board
from qhw.zynq.shell import SHELL, bus

DESIGN = "system"
LENGTH_BITS = 26
"""Bits of a DMA engine's register of a transfer's length: 64 MiB less a byte."""

MOST_STREAMS = 4
"""DMA engines of a design at most: their ports fit one SmartConnect."""


@dataclass(frozen=True)
class _System:
    """A processing system's names.

    Args:
        ip, rule: its core, and the automation that takes over a board's settings.
        properties: what it is told beside these.
        clock, reset: the first clock and reset for the fabric.
        master, slave: the port to registers, and the one to memory.
        clocks: of those ports.
        address_bits: of memory.
    """

    ip: str
    automation: str
    properties: tuple[tuple[str, str], ...]
    clock: str
    reset: str
    master: str
    slave: str
    clocks: tuple[str, str]
    address_bits: int


_ZYNQ_7000 = _System(
    "processing_system7",
    'make_external "FIXED_IO, DDR" apply_board_preset $preset Master "Disable" Slave "Disable"',
    (
        ("CONFIG.PCW_USE_M_AXI_GP0", "1"),
        ("CONFIG.PCW_USE_S_AXI_HP0", "1"),
        ("CONFIG.PCW_S_AXI_HP0_DATA_WIDTH", "64"),
        ("CONFIG.PCW_EN_CLK0_PORT", "1"),
        ("CONFIG.PCW_EN_RST0_PORT", "1"),
        ("CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ", "{clock}"),
    ),
    "FCLK_CLK0",
    "FCLK_RESET0_N",
    "M_AXI_GP0",
    "S_AXI_HP0",
    ("M_AXI_GP0_ACLK", "S_AXI_HP0_ACLK"),
    32,
)
_ZYNQ_ULTRASCALE = _System(
    "zynq_ultra_ps_e",
    "apply_board_preset $preset",
    (
        ("CONFIG.PSU__USE__M_AXI_GP0", "1"),
        ("CONFIG.PSU__USE__M_AXI_GP1", "0"),
        ("CONFIG.PSU__USE__M_AXI_GP2", "0"),
        ("CONFIG.PSU__USE__S_AXI_GP2", "1"),
        ("CONFIG.PSU__SAXIGP2__DATA_WIDTH", "128"),
        ("CONFIG.PSU__FPGA_PL0_ENABLE", "1"),
        ("CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ", "{clock}"),
    ),
    "pl_clk0",
    "pl_resetn0",
    "M_AXI_HPM0_FPD",
    "S_AXI_HP0_FPD",
    ("maxihpm0_fpd_aclk", "saxihp0_fpd_aclk"),
    40,
)
_SYSTEMS = {"7series": _ZYNQ_7000, "ultrascale-plus": _ZYNQ_ULTRASCALE}


def has_processing_system(board: Board) -> bool:
    """Whether a block design can be written for a board: it has a Zynq, and Vivado knows it."""
    return bool(board.vivado_board) and board.family in _SYSTEMS


def block_design_text(board: Board, inputs: int, outputs: int, network: str | None) -> str:
    """The block design.

    Args:
        inputs, outputs: how many streams go in and come out.
        network: the core (``vendor:library:name:version``) of the network, between the streams ``x_axis`` and
            ``y_axis`` of the shell; None where the shell holds it.
    """
    system = _SYSTEMS[board.family]
    engines, clock = max(inputs, outputs), f"{board.clock_mhz:g}"
    memory = [f"dma_{i}/M_AXI_MM2S" for i in range(inputs)] + [f"dma_{i}/M_AXI_S2MM" for i in range(outputs)]
    slaves = ["accelerator/s_axi", *(f"dma_{i}/S_AXI_LITE" for i in range(engines))]
    lines = [
        "# The processing system, DMA engines, and the design between their streams. Sourced by build.tcl.",
        f"create_bd_design {DESIGN}",
        "",
        f"create_bd_cell -type ip -vlnv xilinx.com:ip:{system.ip} ps",
        "set preset [expr {[get_property board_part [current_project]] ne {}}]",
        f"apply_bd_automation -rule xilinx.com:bd_rule:{system.ip} \\",
        f"    -config [subst {{{system.automation}}}] [get_bd_cells ps]",
        *_set("ps", [(name, value.format(clock=clock)) for name, value in system.properties]),
        "",
        "create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset resets",
        f"create_bd_cell -type module -reference {SHELL} accelerator",
    ]
    if network is not None:
        lines.append(f"create_bd_cell -type ip -vlnv {network} network")
    for i in range(engines):
        lines += [
            f"create_bd_cell -type ip -vlnv xilinx.com:ip:axi_dma dma_{i}",
            *_engine(i, inputs, outputs, system),
        ]
    for cell, ins, outs in (("registers", 1, len(slaves)), ("memory", len(memory), 1)):
        lines.append(f"create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect {cell}")
        lines += _set(cell, [("CONFIG.NUM_SI", str(ins)), ("CONFIG.NUM_MI", str(outs))])
    lines += ["", *_joined(system, slaves, memory, inputs, outputs, network is not None)]
    lines += ["", *_clocked(system, inputs, outputs, network is not None)]
    return "\n".join([*lines, "", "assign_bd_address", "validate_bd_design", "save_bd_design", ""])


def _set(cell: str, properties: list[tuple[str, str]]) -> list[str]:
    listed = [f"    {name} {{{value}}} \\" for name, value in properties]
    return ["set_property -dict [list \\", *listed, f"] [get_bd_cells {cell}]"]


def _engine(index: int, inputs: int, outputs: int, system: _System) -> list[str]:
    properties = [
        ("CONFIG.c_include_sg", "0"),
        ("CONFIG.c_sg_length_width", str(LENGTH_BITS)),
        ("CONFIG.c_addr_width", str(system.address_bits)),
        ("CONFIG.c_include_mm2s", str(int(index < inputs))),
        ("CONFIG.c_include_s2mm", str(int(index < outputs))),
    ]
    if index < inputs:
        properties += [("CONFIG.c_m_axi_mm2s_data_width", "64"), ("CONFIG.c_m_axis_mm2s_tdata_width", "64")]
    if index < outputs:
        properties += [("CONFIG.c_m_axi_s2mm_data_width", "64")]
    return _set(f"dma_{index}", properties)


def _joined(
    system: _System, slaves: list[str], memory: list[str], inputs: int, outputs: int, apart: bool
) -> list[str]:
    pairs = [(f"ps/{system.master}", "registers/S00_AXI")]
    pairs += [(f"registers/M{i:02}_AXI", slave) for i, slave in enumerate(slaves)]
    pairs += [(master, f"memory/S{i:02}_AXI") for i, master in enumerate(memory)]
    pairs.append(("memory/M00_AXI", f"ps/{system.slave}"))
    pairs += [(f"dma_{i}/M_AXIS_MM2S", f"accelerator/{bus(i, inputs, 's')}") for i in range(inputs)]
    pairs += [(f"accelerator/{bus(i, outputs, 'm')}", f"dma_{i}/S_AXIS_S2MM") for i in range(outputs)]
    if apart:
        for i in range(inputs):
            pairs.append((f"accelerator/{bus(i, inputs, 'x')}", f"network/{bus(i, inputs, 's')}"))
        for i in range(outputs):
            pairs.append((f"network/{bus(i, outputs, 'm')}", f"accelerator/{bus(i, outputs, 'y')}"))
    return [f"connect_bd_intf_net [get_bd_intf_pins {a}] [get_bd_intf_pins {b}]" for a, b in pairs]


def _clocked(system: _System, inputs: int, outputs: int, apart: bool) -> list[str]:
    engines = range(max(inputs, outputs))
    clocks = [f"ps/{pin}" for pin in system.clocks]
    clocks += ["resets/slowest_sync_clk", "registers/aclk", "memory/aclk", "accelerator/aclk"]
    for i in engines:
        clocks.append(f"dma_{i}/s_axi_lite_aclk")
        clocks += [f"dma_{i}/m_axi_mm2s_aclk"] if i < inputs else []
        clocks += [f"dma_{i}/m_axi_s2mm_aclk"] if i < outputs else []
    resets = ["registers/aresetn", "memory/aresetn", "accelerator/aresetn"]
    resets += [f"dma_{i}/axi_resetn" for i in engines]
    lines = [f"connect_bd_net [get_bd_pins ps/{system.reset}] [get_bd_pins resets/ext_reset_in]"]
    if apart:
        clocks.append("network/ap_clk")
        lines.append("connect_bd_net [get_bd_pins accelerator/network_resetn] [get_bd_pins network/ap_rst_n]")
    lines += [f"connect_bd_net [get_bd_pins ps/{system.clock}] [get_bd_pins {pin}]" for pin in clocks]
    return lines + [
        f"connect_bd_net [get_bd_pins resets/peripheral_aresetn] [get_bd_pins {pin}]" for pin in resets
    ]


_BUILD = """\
# Vivado, from the project's Verilog to bitstream/: vivado -mode batch -source zynq/build.tcl
# What it makes in between lies in vivado/.
set zynq [file dirname [file normalize [info script]]]
set project [file dirname $zynq]
set work [file join $project vivado]
set target [file join $project bitstream]

file mkdir $work
create_project -force accelerator [file join $work accelerator] -part {PART}
# The board's files set up memory and pins of the processing system. PYNQ's image has done that already when a
# bitstream is loaded, so a bitstream can be made without them.
set board [lindex [lsort -dictionary [get_board_parts -quiet {BOARD}]] end]
if {$board eq {}} {
    puts "WARNING: Vivado knows no board {BOARD}: the processing system keeps its own settings"
} else {
    set_property board_part $board [current_project]
}

# Memories are named relative to the project; Vivado is given their whole paths, and must find each.
set copies [file join $work sources]
file delete -force $copies
file mkdir $copies
foreach source [lsort [glob -nocomplain -directory $project {SOURCES}]] {
    set file [open $source r]
    set text [read $file]
    close $file
    set copy [open [file join $copies [file tail $source]] w]
    puts -nonewline $copy [string map [list "\\"memories/" "\\"[file join $project memories]/"] $text]
    close $copy
}
add_files -norecurse [glob -directory $copies *.v]
set_msg_config -id {Synth 8-4445} -new_severity ERROR
add_files -fileset constrs_1 -norecurse [file join $zynq constraints.xdc]
CORES
update_compile_order -fileset sources_1

source [file join $zynq block_design.tcl]
set design [get_files DESIGN.bd]
make_wrapper -files $design -top -import
set_property top DESIGN_wrapper [get_filesets sources_1]
update_compile_order -fileset sources_1

launch_runs impl_1 -to_step write_bitstream -jobs 4
wait_on_run impl_1
if {[get_property PROGRESS [get_runs impl_1]] ne "100%"} {
    puts "ERROR: [get_property STATUS [get_runs impl_1]]: see [get_property DIRECTORY [get_runs impl_1]]"
    exit 1
}
set slack [get_property STATS.WNS [get_runs impl_1]]
if {$slack < 0} {
    puts "ERROR: the clock of {CLOCK} MHz is missed by [expr {-$slack}] ns: build with a lower --clock-mhz"
    exit 1
}

open_run impl_1
file delete -force $target
file mkdir $target
report_utilization -hierarchical -file [file join $target utilization.rpt]
report_timing_summary -file [file join $target timing.rpt]
file copy [file join [get_property DIRECTORY [get_runs impl_1]] DESIGN_wrapper.bit] \\
    [file join $target accelerator.bit]
# Versions of Vivado differ in where they put it.
set made [file join sources_1 bd DESIGN hw_handoff DESIGN.hwh]
set folder [file join $work accelerator]
set handoffs [glob -nocomplain -directory $folder accelerator.gen/$made accelerator.srcs/$made]
file copy [lindex $handoffs 0] [file join $target accelerator.hwh]
foreach part [glob -directory [file join $zynq driver] *] {
    file copy $part $target
}
puts "bitstream: [file join $target accelerator.bit]"
"""

_CORES = """\
set_property ip_repo_paths [list [file join $work ip solution1 impl ip]] [current_project]
update_ip_catalog"""


def build_text(board: Board, sources: tuple[str, ...], *, cores: bool) -> str:
    """The script that makes a bitstream.

    Args:
        sources: patterns of the Verilog files, relative to the project.
        cores: whether the network is a core that Vitis HLS has exported.
    """
    fields = {
        "{PART}": board.part,
        "{BOARD}": f"*:{board.vivado_board}:*",
        "{CLOCK}": f"{board.clock_mhz:g}",
        "{SOURCES}": " ".join(sources),
        "CORES\n": f"{_CORES}\n" if cores else "",
        "DESIGN": DESIGN,
    }
    text = _BUILD
    for name, value in fields.items():
        text = text.replace(name, value)
    return text


CONSTRAINTS = """\
# The design has no pins of its own, and its clock comes from the processing system, whose core constrains it.
set_property BITSTREAM.GENERAL.COMPRESS TRUE [current_design]
"""
