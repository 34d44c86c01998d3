"""A project behind AXI DMA: its top function between beats of 64 bits, exported as a core for Vivado."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhw.boards import Board
from qhw.flows.hls4ml.carry import Carried
from qhw.graph.ir import ExactGraph
from qhw.outside import read_bytes
from qhw.resources import resource_dir
from qhw.zynq.folder import Network, takes, write_zynq
from qhw.zynq.layout import DmaTensor
from qhw.zynq.shell import bus

MARK = b"qhw"
_LARGEST_FILE = 1 << 30
_CORE = "qhw:hls:{name}_axi:1.0"


@dataclass(frozen=True)
class End:
    """An end of the top function.

    Args:
        variable: hls4ml's: its C++ type and definition.
        tensor: how it lies in memory.
        stream: whether it is a stream of words; else an array of elements.
    """

    variable: Any
    tensor: DmaTensor
    stream: bool

    @property
    def name(self) -> str:
        return str(self.variable.name)

    @property
    def definition(self) -> str:
        """The variable in C++."""
        return f"{self.variable.definition_cpp()};"

    def from_beats(self, beats: str) -> str:
        """C++ that reads an image from a stream of beats."""
        t = self.tensor
        return f"qhw::{self._of('words_from_beats', 'elements_from_beats', f'{t.container_bits}')}" + (
            f"({beats}, {self.name});"
        )

    def to_beats(self, beats: str) -> str:
        """C++ that writes an image to a stream of beats."""
        t = self.tensor
        signed = "true" if t.signed else "false"
        return (
            f"qhw::{self._of('beats_from_words', 'beats_from_elements', f'{t.container_bits}, {signed}')}"
            + (f"({self.name}, {beats});")
        )

    def _of(self, words: str, elements: str, container: str) -> str:
        t, kind = self.tensor, self.variable.type.name
        if self.stream:
            return f"{words}<{kind}, {t.lanes}, {t.bits}, {container}, {t.words}>"
        return f"{elements}<{kind}, {t.bits}, {container}, {t.words}>"


@dataclass(frozen=True)
class BehindDma:
    """A project's top function and its ends, in order."""

    name: str
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]

    @property
    def tensors(self) -> tuple[list[DmaTensor], list[DmaTensor]]:
        """Its ends in memory."""
        return [end.tensor for end in self.inputs], [end.tensor for end in self.outputs]

    def streams(self) -> list[str]:
        """The names of its streams of beats."""
        given = [bus(i, len(self.inputs), "s") for i in range(len(self.inputs))]
        return given + [bus(i, len(self.outputs), "m") for i in range(len(self.outputs))]


def behind_dma(model: Any, description: Any, io_type: str, board: Board) -> BehindDma | None:
    """The ends of a project in memory; None where the board has no Zynq, or an element does not fit a beat.

    Args:
        model: hls4ml's.
        description: the project's.
    """
    stream = io_type == "io_stream"

    def ends(variables: Sequence[Any], ports: Sequence[Any]) -> tuple[End, ...]:
        pairs = zip(variables, ports, strict=True)
        return tuple(End(v, _in_memory(p.tensor, p.shape, p.carried, stream), stream) for v, p in pairs)

    found = BehindDma(
        description.name,
        ends(model.get_input_variables(), description.inputs),
        ends(model.get_output_variables(), description.outputs),
    )
    return found if takes(board, *found.tensors) else None


def _in_memory(tensor: str, shape: tuple[int, ...], carried: Carried, stream: bool) -> DmaTensor:
    lanes = carried.dims[-1] if stream else 1
    kind = carried.type
    return DmaTensor(tensor, shape, carried.order, lanes, kind.bits, kind.signed, carried.format)


def write_wrapper(behind: BehindDma, folder: Path) -> None:
    """Write the function between beats into ``firmware/``, and a stand-in for AMD's header of beats."""
    name, firmware = behind.name, folder / "firmware"
    parameters = ", ".join(f"hls::stream<qhw::Beat> &{stream}" for stream in behind.streams())
    guard = f"{name.upper()}_AXI_H_"
    (firmware / f"{name}_axi.h").write_text(
        f"#ifndef {guard}\n#define {guard}\n\n"
        f'#include "{name}.h"\n#include "qhw/beats.h"\n\nvoid {name}_axi({parameters});\n\n#endif\n'
    )
    lines = "\n".join(f"    {line}" for line in _body(behind))
    (firmware / f"{name}_axi.cpp").write_text(
        f"// {name} between beats of a DMA engine, 64 bits with TLAST (qhw/beats.h).\n"
        f'#include "{name}_axi.h"\n\nvoid {name}_axi({parameters}) {{\n{lines}\n}}\n'
    )
    shutil.copyfile(
        resource_dir("hls") / "hls4ml" / "ap_axi_sdata.h", firmware / "ap_types" / "ap_axi_sdata.h"
    )
    script = folder / "build_prj.tcl"
    text = script.read_text()
    bench = next(line for line in text.splitlines() if line.startswith("add_files -tb ${project_name}_test"))
    own = bench.replace("${project_name}_test.cpp", "firmware/${project_name}_axi.cpp")
    script.write_text(text.replace(bench, f"{bench}\n{own}", 1))


def _body(behind: BehindDma) -> Iterator[str]:
    """The statements of the function."""
    streams = behind.streams()
    yield from (f"#pragma HLS INTERFACE axis port={stream}" for stream in streams)
    yield "#pragma HLS INTERFACE ap_ctrl_none port=return"
    yield "#pragma HLS DATAFLOW"
    for kind, ends in (("ARRAY_RESHAPE", behind.inputs), ("ARRAY_PARTITION", behind.outputs)):
        for end in ends:
            yield end.definition
            yield (
                f"#pragma HLS STREAM variable={end.name} depth=2"
                if end.stream
                else f"#pragma HLS {kind} variable={end.name} complete dim=0"
            )
    given, taken = streams[: len(behind.inputs)], streams[len(behind.inputs) :]
    yield from (end.from_beats(stream) for end, stream in zip(behind.inputs, given, strict=True))
    yield f"{behind.name}({', '.join(end.name for end in (*behind.inputs, *behind.outputs))});"
    yield from (end.to_beats(stream) for end, stream in zip(behind.outputs, taken, strict=True))


def call_lines(behind: BehindDma) -> Iterator[str]:
    """C++ of the test bench that calls it on the variables of the top function's ends."""
    streams = behind.streams()
    yield from (f'hls::stream<qhw::Beat> {stream}("{stream}");' for stream in streams)
    given, taken = streams[: len(behind.inputs)], streams[len(behind.inputs) :]
    yield from (end.to_beats(stream) for end, stream in zip(behind.inputs, given, strict=True))
    yield f"{behind.name}_axi({', '.join(streams)});"
    yield from (end.from_beats(stream) for end, stream in zip(behind.outputs, taken, strict=True))


def write_behind_dma(
    behind: BehindDma, graph: ExactGraph, board: Board, multipliers: str, folder: Path
) -> None:
    """Write ``zynq/`` into a project's folder, whose firmware is complete."""
    inputs, outputs = behind.tensors
    core = _CORE.format(name=behind.name)
    network = Network(inputs, outputs, _identity(folder), core=core, first=_EXPORT)
    write_zynq(network, graph, board, folder)
    implementation = {"lut": "fabric", "dsp": "dsp"}.get(multipliers)
    chosen = "" if implementation is None else f"config_op mul -impl {implementation}\n"
    (folder / "zynq" / "export_ip.tcl").write_text(
        _EXPORT_TCL.replace("MULTIPLIERS\n", chosen).replace("NAME", behind.name)
    )


def _identity(folder: Path) -> bytes:
    """``qhw`` and 5 bytes of a SHA-256 of the firmware's files."""
    digest = hashlib.sha256()
    for path in sorted(p for p in (folder / "firmware").rglob("*") if p.is_file()):
        content = hashlib.sha256(read_bytes(path, "firmware's file", _LARGEST_FILE)).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\0".encode())
    return MARK + digest.digest()[:5]


_EXPORT = """\
if command -v vitis-run >/dev/null; then
    vitis-run --mode hls --tcl zynq/export_ip.tcl
else
    vitis_hls -f zynq/export_ip.tcl
fi
"""

_EXPORT_TCL = """\
# Vitis HLS, from the project's firmware to a core for Vivado, in vivado/ip: what build.sh runs first.
set project [file dirname [file dirname [file normalize [info script]]]]
source [file join $project project.tcl]
set firmware [file join $project firmware]
file mkdir [file join $project vivado]
cd [file join $project vivado]

open_project -reset ip
set_top NAME_axi
foreach source {NAME_axi.cpp NAME.cpp} {
    add_files [file join $firmware $source] -cflags "-std=c++17 -I$firmware"
}
open_solution -reset solution1
catch {config_array_partition -maximum_size $maximum_size}
config_compile -name_max_length 80
set_part $part
config_schedule -enable_dsp_full_reg=false
create_clock -period $clock_period -name default
MULTIPLIERS
set_clock_uncertainty $clock_uncertainty default
csynth_design
export_design -format ip_catalog -vendor qhw -library hls -ipname NAME_axi -version 1.0
exit
"""
