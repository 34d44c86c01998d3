"""A written design behind AXI DMA, on boards with a Zynq: elements in memory become words of its streams."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from qhw.boards import Board
from qhw.flows.rtl.circuit import TOP, WEIGHTS, Circuit, Wire, axis_bits, bus, files_of, instance
from qhw.formats.table import TableFormat
from qhw.graph.ir import ExactGraph
from qhw.zynq.block_design import has_processing_system
from qhw.zynq.folder import FOLDER, Network, why_not, write_zynq
from qhw.zynq.layout import DmaTensor

_ADAPTERS = ("beats_to_words", "words_to_beats")
_VERILOG = f"{FOLDER}/verilog"


def write_behind_dma(circuit: Circuit, graph: ExactGraph, board: Board, identity: bytes, folder: Path) -> str:
    """Write ``zynq/`` into a project's folder, where the board has a Zynq and elements fit a beat.

    Args:
        identity: 8 bytes, see :func:`qhw.flows.rtl.project.identity`.

    Returns how it becomes a bitstream, or why there is none, in words; nothing where the board has no Zynq.
    """
    if not has_processing_system(board):
        return ""
    inputs, outputs = _ends(circuit.inputs, graph), _ends(circuit.outputs, graph)
    if circuit.loaded:
        return f"there is no {FOLDER}/: weights are loaded over {WEIGHTS}, which no DMA engine serves"
    if why := why_not(inputs, outputs):
        return f"there is no {FOLDER}/: {why}"
    sources = ("rtl/*.v", "rtl/units/*.v")
    write_zynq(
        Network(inputs, outputs, identity, _inside(circuit, inputs, outputs), sources=sources),
        graph,
        board,
        folder,
    )
    for file in files_of(_ADAPTERS):
        if not (folder / "rtl" / "units" / file.name).exists():
            shutil.copyfile(file, folder / _VERILOG / file.name)
    return f"Vivado does, by {FOLDER}/build.sh in the project"


def _ends(wires: Sequence[Wire], graph: ExactGraph) -> list[DmaTensor]:
    ends = []
    for wire in wires:
        kind, element = graph.tensors[wire.tensor], wire.element
        format = kind.format if isinstance(kind.format, TableFormat) else None
        signed = element.signed and format is None
        ends.append(DmaTensor(wire.tensor, kind.shape, wire.order, wire.lanes, element.width, signed, format))
    return ends


def _inside(circuit: Circuit, inputs: Sequence[DmaTensor], outputs: Sequence[DmaTensor]) -> str:
    """The design between an adapter of each of its ends."""
    lines, pins = [], {"aclk": "aclk", "aresetn": "network_resetn"}
    clocked = {"clk": "aclk", "reset": "~network_resetn"}
    for i, (wire, end) in enumerate(zip(circuit.inputs, inputs, strict=True)):
        bits, word, name = axis_bits(wire), f"x{i}", bus(i, len(inputs), "s")
        lines.append(f"    wire [{bits - 1}:0] {word};")
        lines.append(f"    wire {word}_valid, {word}_ready;")
        if bits > wire.bits:
            lines.append(f"    assign {word}[{bits - 1}:{wire.bits}] = 0;")
        streams = {name: f"given{i}{name[1:]}" for name in ("x", "x_valid", "x_ready")}
        streams |= {"y": f"{word}[{wire.bits - 1}:0]", "y_valid": f"{word}_valid", "y_ready": f"{word}_ready"}
        lines.append(instance("beats_to_words", f"words{i}", _settings(end), clocked | streams))
        pins |= {f"{name}_tdata": word, f"{name}_tvalid": f"{word}_valid", f"{name}_tready": f"{word}_ready"}
        pins[f"{name}_tlast"] = "1'b0"
    for i, (wire, end) in enumerate(zip(circuit.outputs, outputs, strict=True)):
        word, name = f"y{i}", bus(i, len(outputs), "m")
        lines.append(f"    wire [{axis_bits(wire) - 1}:0] {word};")
        lines.append(f"    wire {word}_valid, {word}_ready;")
        pins |= {f"{name}_tdata": word, f"{name}_tvalid": f"{word}_valid", f"{name}_tready": f"{word}_ready"}
        pins[f"{name}_tlast"] = ""
        streams = {"x": f"{word}[{wire.bits - 1}:0]", "x_valid": f"{word}_valid", "x_ready": f"{word}_ready"}
        streams |= {f"y{part}": f"taken{i}{part}" for part in ("", "_valid", "_ready", "_last")}
        settings = {**_settings(end), "SIGNED": int(end.signed)}
        lines.append(instance("words_to_beats", f"result{i}", settings, clocked | streams))
    return "\n".join([*lines, instance(TOP, "network", {}, pins)])


def _settings(end: DmaTensor) -> dict[str, int | str]:
    return {"LANES": end.lanes, "W": end.bits, "C": end.container_bits, "WORDS": end.words}
