"""Vivado's scripts, run by tclsh with commands that write down what they are asked: every name is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from qhw.boards import list_boards, load_board
from qhw.formats.integer import Integer
from qhw.graph.builder import GraphBuilder
from qhw.zynq.block_design import LENGTH_BITS, has_processing_system
from qhw.zynq.driver import LARGEST_TRANSFER
from qhw.zynq.folder import Network, takes, why_not, write_zynq
from qhw.zynq.layout import DmaTensor

BOARDS = [name for name in list_boards() if has_processing_system(load_board(name))]

STREAM = {"tdata", "tkeep", "tvalid", "tready", "tlast"}
LITE = {f"{channel}{signal}" for channel in ("aw", "w", "b", "ar", "r") for signal in ("valid", "ready")}
LITE |= {"awaddr", "araddr", "wdata", "wstrb", "bresp", "rresp", "rdata"}

AMD = {
    "zynq_ultra_ps_e": {
        "M_AXI_HPM0_FPD": "master",
        "S_AXI_HP0_FPD": "slave",
        "pl_clk0": "output",
        "pl_resetn0": "output",
        "maxihpm0_fpd_aclk": "input",
        "saxihp0_fpd_aclk": "input",
    },
    "processing_system7": {
        "M_AXI_GP0": "master",
        "S_AXI_HP0": "slave",
        "FCLK_CLK0": "output",
        "FCLK_RESET0_N": "output",
        "M_AXI_GP0_ACLK": "input",
        "S_AXI_HP0_ACLK": "input",
    },
    "axi_dma": {
        "S_AXI_LITE": "slave",
        "M_AXI_MM2S": "master",
        "M_AXI_S2MM": "master",
        "M_AXIS_MM2S": "master",
        "S_AXIS_S2MM": "slave",
        "s_axi_lite_aclk": "input",
        "m_axi_mm2s_aclk": "input",
        "m_axi_s2mm_aclk": "input",
        "axi_resetn": "input",
    },
    "proc_sys_reset": {"slowest_sync_clk": "input", "ext_reset_in": "input", "peripheral_aresetn": "output"},
    "smartconnect": {"aclk": "input", "aresetn": "input"},
}
"""The pins of AMD's cores that must be connected, from PG082, PG201, PG021, PG164 and PG247."""

STAND_IN = """
set log [open recorded.txt w]
proc record args { puts $::log [join $args \\t]; flush $::log }
foreach name {set_property add_files update_compile_order update_ip_catalog make_wrapper
        launch_runs wait_on_run open_run report_utilization report_timing_summary create_bd_design
        create_bd_cell connect_bd_intf_net connect_bd_net apply_bd_automation assign_bd_address
        validate_bd_design
        save_bd_design set_msg_config} {
    proc $name args "record $name {*}\\$args"
}
foreach name {get_bd_cells get_bd_pins get_bd_intf_pins get_files get_runs get_filesets} {
    proc $name args {lindex $args end}
}
proc create_project {force name folder of part} {
    record create_project $force $name $folder $of $part
    set made [file join $folder $name.gen sources_1 bd system hw_handoff]
    file mkdir $made
    close [open [file join $made system.hwh] w]
}
proc current_project {} {return project}
proc get_board_parts args {return {vendor:board:part0:1.9 vendor:board:part0:1.10}}
proc get_property {name of} {
    switch $name {
        board_part {return vendor:board:part0:1.10}
        PROGRESS {return 100%}
        STATS.WNS {return $::env(SLACK)}
        DIRECTORY {return [file join [pwd] run]}
        STATUS {return done}
    }
    error "property $name"
}
file mkdir run
close [open run/system_wrapper.bit w]
source zynq/build.tcl
"""


@dataclass
class Recorded:
    """What a block design is asked for."""

    cells: dict[str, str] = field(default_factory=dict)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    joined: list[tuple[str, str]] = field(default_factory=list)
    wired: list[tuple[str, str]] = field(default_factory=list)
    others: list[list[str]] = field(default_factory=list)


def tensor(name: str, size: int = 12, bits: int = 8) -> DmaTensor:
    return DmaTensor(name, (size,), np.arange(size), 4, bits, True)


def written(folder: Path, board: str, inputs: int, outputs: int, core: str | None) -> Path:
    b = GraphBuilder("net")
    names = [b.input(f"x{i}", (12,), Integer(8)) for i in range(max(inputs, outputs))]
    graph = b.finish([b.requant(f"y{i}", name, Integer(8), 1) for i, name in enumerate(names)])
    network = Network(
        [tensor(f"x{i}") for i in range(inputs)],
        [tensor(f"y{i}") for i in range(outputs)],
        b"qhw12345",
        core=core,
        inside=None if core else "    // the network",
        sources=("rtl/*.v",),
    )
    (folder / "rtl").mkdir(parents=True)
    (folder / "rtl" / "net.v").write_text('module net; initial $readmemh("memories/w.mem", m); endmodule\n')
    write_zynq(network, graph, load_board(board), folder)
    return folder


def recorded(folder: Path, slack: str = "0.1") -> tuple[Recorded, subprocess.CompletedProcess[str]]:
    (folder / "run.tcl").write_text(STAND_IN)
    done = subprocess.run(
        ["tclsh", "run.tcl"], cwd=folder, capture_output=True, text=True, timeout=60, env={"SLACK": slack}
    )
    assert not done.stderr, done.stderr
    found = Recorded()
    for line in (folder / "recorded.txt").read_text().splitlines():
        name, *words = line.split("\t")
        if name == "create_bd_cell":
            found.cells[words[-1]] = words[-2]
        elif name == "set_property" and words[0] == "-dict":
            pairs = words[1].split()
            settings = found.settings.setdefault(words[-1], {})
            settings |= dict(zip(pairs[::2], pairs[1::2], strict=True))
        elif name == "connect_bd_intf_net":
            found.joined.append((words[0], words[1]))
        elif name == "connect_bd_net":
            found.wired.append((words[0], words[1]))
        else:
            found.others.append([name, *words])
    return found, done


def pins_of(cell: str, found: Recorded, verilog: Path) -> dict[str, str]:
    """The pins of a cell that must be connected: those of the Verilog's ports, or of AMD's documents."""
    kind, settings = found.cells[cell].split(":")[2:3] or [found.cells[cell]], found.settings.get(cell, {})
    core = kind[0]
    if core == "accelerator_axi":
        return interfaces((verilog / f"{core}.v").read_text())
    if core == "smartconnect":
        ends = {f"S{i:02}_AXI": "slave" for i in range(int(settings["CONFIG.NUM_SI"]))}
        return AMD[core] | ends | {f"M{i:02}_AXI": "master" for i in range(int(settings["CONFIG.NUM_MI"]))}
    if core == "axi_dma":
        missing = [side for side in ("mm2s", "s2mm") if settings[f"CONFIG.c_include_{side}"] == "0"]
        return {pin: way for pin, way in AMD[core].items() if not any(m in pin.lower() for m in missing)}
    if core == "net_axi":
        given = interfaces((verilog / "accelerator_axi.v").read_text())
        streams = {name for name in given if re.fullmatch(r"[xy]\d?_axis", name)}
        ends = {n.replace("x", "s", 1): "slave" for n in streams if n[0] == "x"}
        ends |= {n.replace("y", "m", 1): "master" for n in streams if n[0] == "y"}
        return ends | {"ap_clk": "input", "ap_rst_n": "input"}
    return AMD[core]


def interfaces(text: str) -> dict[str, str]:
    """The interfaces and other pins that Vivado sees in a Verilog module's ports, and which way they go."""
    ports: dict[str, str] = {}
    for way, names in re.findall(r"^    (input|output)\s+(?:\[\d+:0\] )?([\w, ]+?),?$", text, re.M):
        ports |= dict.fromkeys(names.replace(" ", "").split(","), way)
    found = {}
    for name, way in ports.items():
        bus, _, signal = name.rpartition("_")
        if bus.endswith(("_axis", "s_axi")):
            if signal in ("tvalid", "wvalid"):
                found[bus] = "master" if way == "output" else "slave"
                of = {other.rpartition("_")[2] for other in ports if other.rpartition("_")[0] == bus}
                assert of == (STREAM if bus.endswith("_axis") else LITE)
        else:
            found[name] = way
    return found


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="tclsh is not installed")
@pytest.mark.parametrize(
    ("board", "inputs", "outputs", "core"),
    [
        *((board, 1, 1, None) for board in BOARDS),
        ("ultra96", 1, 1, "qhw:hls:net_axi:1.0"),
        ("pynq-z1", 3, 2, None),
        ("kv260", 1, 2, "qhw:hls:net_axi:1.0"),
    ],
)
def test_every_pin_is_there_and_connected_once(
    tmp_path: Path, board: str, inputs: int, outputs: int, core: str | None
) -> None:
    folder = written(tmp_path / "a [exec touch x] $y; {", board, inputs, outputs, core)
    found, done = recorded(folder)
    pins = {cell: pins_of(cell, found, folder / "zynq" / "verilog") for cell in found.cells}
    assert len(found.joined) == len(set(found.joined))
    for master, slave in found.joined:
        for pin, way in ((master, "master"), (slave, "slave")):
            cell, name = pin.split("/")
            assert pins[cell][name] == way, pin
    for source, sink in found.wired:
        for pin, way in ((source, "output"), (sink, "input")):
            cell, name = pin.split("/")
            assert pins[cell][name] == way, pin
    ends = Counter(pin for pair in found.joined for pin in pair) + Counter(sink for _, sink in found.wired)
    needed = {f"{cell}/{pin}" for cell, of in pins.items() for pin, way in of.items() if way != "output"}
    assert set(ends) == needed
    assert set(ends.values()) == {1}
    assert ["assign_bd_address"] in found.others
    assert ["set_property", "board_part", "vendor:board:part0:1.10", "project"] in found.others
    made = {path.name for path in (folder / "bitstream").iterdir()}
    assert made >= {"accelerator.bit", "accelerator.hwh", "accelerator.json", "driver.py", "encoding.py"}
    copied = (folder / "vivado" / "sources" / "net.v").read_text()
    assert f'"{folder.resolve()}/memories/w.mem"' in copied
    assert not list(tmp_path.rglob("x"))
    assert done.returncode == 0


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="tclsh is not installed")
def test_a_clock_that_is_missed_gives_no_bitstream(tmp_path: Path) -> None:
    folder = written(tmp_path / "project", "zcu104", 1, 1, None)
    _, done = recorded(folder, "-0.25")
    assert done.returncode == 1
    assert "the clock of 200 MHz is missed by 0.25 ns" in done.stdout
    assert not (folder / "bitstream").exists()


def test_the_driver_and_the_engines_agree(tmp_path: Path) -> None:
    folder = written(tmp_path / "project", "kv260", 2, 1, None)
    assert LARGEST_TRANSFER == (1 << LENGTH_BITS) - 1
    facts = json.loads((folder / "zynq" / "driver" / "accelerator.json").read_text())
    assert facts["registers"] in (folder / "zynq" / "block_design.tcl").read_text()
    text = (folder / "zynq" / "verilog" / "accelerator_axi.v").read_text()
    assert f"IDENTITY(64'h{facts['identity']})" in text
    script = (folder / "zynq" / "build.sh").read_text()
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_what_no_engine_carries() -> None:
    board, wide = load_board("kv260"), tensor("x", bits=65)
    assert takes(board, [tensor("x")], [tensor("y")])
    assert not takes(board, [wide], [tensor("y")])
    assert not takes(board, [tensor("x")] * 5, [tensor("y")])
    assert not takes(load_board("u250"), [tensor("x")], [tensor("y")])
    assert not takes(load_board("ulx3s"), [tensor("x")], [tensor("y")])
    assert "'x' has 65" in why_not([wide], [tensor("y")])
    assert "5 inputs and 1 outputs" in why_not([tensor("x")] * 5, [tensor("y")])
    assert set(BOARDS) == {
        *("ultra96", "ultra96-v2", "kv260", "pynq-z1", "pynq-z2", "zcu104", "zcu102", "aup-zu3")
    }
