"""The Yosys commands from a Verilog module to a mapped netlist, by device family.

They are what Yosys's own synth_xilinx and synth_lattice run (0.70), in their order, with three changes: every
``$mul`` goes to rows on carry chains (DSP slices are instances, a choice of the design), abc is given the
mapper, and memories are mapped only where the design says so, which saves a second a design.

Families that were not measured (Gowin, iCE40) take Yosys's own flow as it is, behind the same rows; the
multipliers that a design instantiates are those of ECP5, and become products for that flow to map.
"""

from __future__ import annotations

from typing import Literal

from qhw.devices import fabric_of

Mapper = Literal["area", "delay"]

MULTIPLIERS = "mul_rows.v"
"""The mapping of ``$mul``, in the folder where the commands run."""

INFERRED = "mul18_inferred.v"
"""The mapping of ECP5's multipliers to products, in the same folder."""

_ELABORATED = (
    "proc", "flatten", "tribuf -logic", "deminout", "opt_expr", "opt_clean", "opt -nodffe -nosdff", "fsm",
    "opt", "wreduce", "peepopt", "opt_clean",
)  # fmt: skip

_MULTIPLIED = ("wreduce", f"techmap -map {MULTIPLIERS}", "opt -full")


def commands(
    family: str,
    top: str,
    mapper: Mapper,
    *,
    memories: bool,
    vendor_cells: bool,
    srl: bool,
    scramble: int | None = None,
) -> list[str]:
    """Yosys commands from the elaboration of ``top`` to a netlist of the family's cells.

    Args:
        family: the FPGA family, e.g. ``ecp5``.
        memories: whether arrays may become memories (else registers and logic).
        vendor_cells: whether the design instantiates cells of the device.
        srl: whether shift registers may become SRL cells (Xilinx).
        scramble: a seed, from 1 on, of new names for every wire and cell; the circuit stays what it is.
    """
    renamed = [] if scramble is None else [f"rename -scramble-name -seed {scramble}"]
    if family == "ecp5":
        return _ecp5(top, mapper, memories, renamed)
    if fabric_of(family).priced_as:
        return _stock(family, top)
    rare = ["read_verilog -lib +/xilinx/cells_xtra.v"] if memories or vendor_cells else []
    return [*rare, *_xilinx(fabric_of(family).yosys, top, mapper, memories, srl, renamed)]


def _xilinx(
    family: str, top: str, mapper: Mapper, memories: bool, srl: bool, renamed: list[str]
) -> list[str]:
    options = f"-family {family} -flatten -noiopad -noclkbuf -nowidelut -nodsp -top {top}"
    options += ("" if srl else " -nosrl") + (" -uram" if family == "xcup" else "")

    def stage(first: str, last: str) -> str:
        return f"synth_xilinx {options} -run {first}:{last}"

    area = [
        "opt_expr -mux_undef -noclkinv",
        "abc -lut 6",
        "clean",
        *(["xilinx_srl -fixed -minlen 3"] if srl else []),
        "techmap -map +/xilinx/lut_map.v -map +/xilinx/cells_map.v -D LUT_WIDTH=6",
        "xilinx_dffopt",
        "opt_lut_ins -tech xilinx",
    ]
    return [
        f"read_verilog -lib {'-specify ' if mapper == 'delay' else ''}+/xilinx/cells_sim.v",
        f"hierarchy -check -top {top}",
        *_ELABORATED,
        *renamed,
        *(["pmux2shiftx", "clean"] if srl else []),
        "sort",
        *_MULTIPLIED,
        stage("coarse", "map_memory"),
        *([stage("map_memory", "map_ffram")] if memories else []),
        stage("map_ffram", "map_luts"),
        *(area if mapper == "area" else [stage("map_luts", "finalize")]),
        "clean",
    ]


def _ecp5(top: str, mapper: Mapper, memories: bool, renamed: list[str]) -> list[str]:
    def stage(first: str, last: str) -> str:
        return f"synth_lattice -family ecp5 -nodsp -nowidelut -top {top} -run {first}:{last}"

    return [
        f"read_verilog -lib {'-specify ' if mapper == 'delay' else ''}"
        "+/lattice/cells_sim_ecp5.v +/lattice/cells_bb_ecp5.v",
        f"hierarchy -check -top {top}",
        *_ELABORATED,
        *renamed,
        "share",
        *_MULTIPLIED,
        "techmap -map +/cmp2lut.v -D LUT_WIDTH=4",
        "opt_expr",
        "opt_clean",
        "alumacc",
        "opt",
        "memory -nomap",
        "opt_clean",
        *([stage("map_ram", "map_ffram")] if memories else []),
        stage("map_ffram", "map_luts"),
        *(["abc -lut 4", "clean"] if mapper == "area" else [stage("map_luts", "map_cells")]),
        stage("map_cells", "check"),
        "clean",
    ]


def _stock(family: str, top: str) -> list[str]:
    flow, library = {
        # Both kinds of device have the cells that are used here.
        "gowin": ("synth_gowin -family gw2a -setundef", "+/gowin/cells_sim.v +/gowin/cells_xtra_gw2a.v"),
        "ice40": ("synth_ice40 -device u -dsp", "-D ICE40_U +/ice40/cells_sim.v"),
    }[family]
    return [
        "read_verilog -lib +/lattice/cells_bb_ecp5.v",
        f"hierarchy -check -top {top}",
        *_ELABORATED,
        # Where the device has no memory of LUTs, the flow takes what it has.
        *(
            []
            if 1 in fabric_of(family).memories
            else ["setattr -unset ram_style m:* a:ram_style=distributed %i"]
        ),
        *_MULTIPLIED,
        f"techmap -autoproc -map {INFERRED}",
        "opt_clean",
        "delete =A:blackbox",
        f"read_verilog -lib -specify {library}",
        f"{flow} -top {top} -run coarse:check",
        "hierarchy -check",
        "clean",
    ]
