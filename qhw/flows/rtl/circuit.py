"""A design as components that are joined by streams; its Verilog.

A stream carries one tensor, an image after the other, in words of a few elements; valid and ready go with it.
A component has one module: a component of ``rtl/components/``, a measured unit, or one that was written for a
node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from qhw.formats.base import Format
from qhw.formats.modes import IntArray
from qhw.rtl import UNITS
from qhw.rtl.base import verilog_files
from qhw.rtl.shared.adder_graph import Counts
from qhw.rtl.shared.timing import Timing

ENDS = Path(__file__).parent / "verilog"
"""Verilog between a design's streams and a board: the serial line, the beats of a DMA engine."""
TOP = "accelerator"

Setting: TypeAlias = "int | str"
"""The value of a parameter: a number, or Verilog."""


@dataclass(frozen=True)
class Element:
    """One number of a stream: its bits, and whether they are two's complement."""

    width: int
    signed: bool

    @classmethod
    def of(cls, format: Format) -> Element:
        """A format's codes."""
        return cls(format.width, format.mantissa_low < 0)


@dataclass(frozen=True, eq=False)
class Wire:
    """A stream.

    Args:
        name: its name in Verilog.
        tensor: the graph's tensor.
        lanes: elements of a word, the first in the lowest bits.
        order: the place in the row-major tensor of each element, as they come.
    """

    name: str
    tensor: str
    lanes: int
    element: Element
    order: IntArray

    @property
    def bits(self) -> int:
        """Bits of a word."""
        return self.lanes * self.element.width

    @property
    def words(self) -> int:
        """Words of an image."""
        return self.order.size // self.lanes


@dataclass(frozen=True, eq=False)
class Component:
    """An instance of a module, and the streams that it reads and writes.

    Args:
        module: the module; its ports are x, or a and b, and y, each with ``_valid`` and ``_ready``.
        timing: when it takes and gives words, for the schedule.
        settings: its parameters.
        node: the node that it belongs to.
    """

    name: str
    module: str
    inputs: tuple[Wire, ...]
    outputs: tuple[Wire, ...]
    timing: Timing
    settings: Mapping[str, Setting] = field(default_factory=dict)
    node: str = ""


@dataclass
class Circuit:
    """Everything that a design consists of, in the order in which it was put together.

    Args:
        modules: Verilog that was written for this design, by module.
        memories: bits of a code, and a row of codes for each word, of every memory by the name of its file.
        sums: what the additions of a module take that is their graph, without the control of its pipeline.
        carried: the stream that carries each tensor, as it leaves the component that makes it.
    """

    components: list[Component] = field(default_factory=list)
    modules: dict[str, str] = field(default_factory=dict)
    memories: dict[str, tuple[int, IntArray]] = field(default_factory=dict)
    sums: dict[str, Counts] = field(default_factory=dict)
    carried: dict[str, Wire] = field(default_factory=dict)
    inputs: list[Wire] = field(default_factory=list)
    outputs: list[Wire] = field(default_factory=list)

    @property
    def wires(self) -> list[Wire]:
        """Every stream, from the inputs on."""
        return [*self.inputs, *(wire for component in self.components for wire in component.outputs)]


def numbers_of(settings: Mapping[str, Setting]) -> dict[str, int]:
    """The parameters that are plain numbers."""
    return {name: value for name, value in settings.items() if isinstance(value, int)}


def identifier(text: str) -> str:
    """A readable part of a Verilog name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:40] or "node"


def memory_text(width: int, codes: IntArray) -> str:
    """Rows of codes as ``$readmemh`` takes them."""
    digits = -(-width * codes.shape[1] // 4)
    return "".join(f"{word:0{digits}x}\n" for word in joined_codes(codes, width))


def joined_codes(codes: IntArray, width: int) -> list[int]:
    """Rows of codes as words of bits, the first in the lowest."""
    mask = (1 << width) - 1
    return [
        sum((int(code) & mask) << i * width for i, code in enumerate(row)) for row in np.atleast_2d(codes)
    ]


def files_of(modules: Iterable[str]) -> list[Path]:
    """The files of units, components and a board's ends that hold modules, in order, with all they need."""
    where = verilog_files() | {path.stem: path for path in ENDS.glob("*.v")}
    found: dict[Path, None] = {}

    def add(name: str) -> None:
        path = where.get(name)
        if path is None or path in found:
            return
        found[path] = None
        for word in sorted(set(re.findall(r"\b[a-z][a-z0-9_]*\b(?=\s*#?\s*\()", path.read_text()))):
            add(word)

    for module in modules:
        for source in UNITS[module].sources if module in UNITS else (module,):
            add(source)
    return sorted(found)


def instance(module: str, name: str, settings: Mapping[str, Setting], pins: Mapping[str, str]) -> str:
    """An instance of a module, on a line of its own for what it is, its parameters and its pins."""
    set_to = ", ".join(f".{key}({value})" for key, value in settings.items())
    connected = ", ".join(f".{key}({value})" for key, value in pins.items())
    head = f"    {module} #({set_to}) {name} (" if set_to else f"    {module} {name} ("
    return f"{head}\n        {connected}\n    );"


def stream_pins(component: Component) -> dict[str, str]:
    """The pins of a component's streams."""
    names = ("x",) if len(component.inputs) == 1 else ("a", "b")
    pins: dict[str, str] = {}
    for port, wire in [*zip(names, component.inputs, strict=True), ("y", component.outputs[0])]:
        pins |= {
            port: wire.name,
            f"{port}_valid": f"{wire.name}_valid",
            f"{port}_ready": f"{wire.name}_ready",
        }
    return pins


def bus(index: int, count: int, side: str) -> str:
    """The name of an AXI stream of the top module: ``s_axis``, or ``s0_axis`` where there are several."""
    return f"{side}_axis" if count == 1 else f"{side}{index}_axis"


def axis_bits(wire: Wire) -> int:
    """Bits of ``tdata``: whole bytes (AXI4-Stream, ARM IHI 0051)."""
    return -(-wire.bits // 8) * 8


def top_text(circuit: Circuit) -> str:
    """The top module: every component, and AXI4-Streams at both ends."""
    return "\n".join([*_head(circuit), *_ends(circuit), *_wired(circuit), "endmodule\n"])


def _head(circuit: Circuit) -> list[str]:
    ports = ["    input  aclk, aresetn"]
    for side, wires in (("s", circuit.inputs), ("m", circuit.outputs)):
        into, out = ("input ", "output") if side == "s" else ("output", "input ")
        for index, wire in enumerate(wires):
            name = bus(index, len(wires), side)
            ports.append(f"    {into} [{axis_bits(wire) - 1}:0] {name}_tdata")
            ports.append(f"    {into} {name}_tvalid, {name}_tlast")
            ports.append(f"    {out} {name}_tready")
    return [
        f"module {TOP} (",
        ",\n".join(ports),
        ");",
        "    reg reset;",
        "    always @(posedge aclk) reset <= ~aresetn;",
    ]


def _ends(circuit: Circuit) -> list[str]:
    lines = []
    for wire in circuit.wires:
        lines.append(f"    wire [{wire.bits - 1}:0] {wire.name};  // {_told(wire)}")
        lines.append(f"    wire {wire.name}_valid, {wire.name}_ready;")
    for index, wire in enumerate(circuit.inputs):
        name = bus(index, len(circuit.inputs), "s")
        lines.append(f"    assign {wire.name} = {name}_tdata[{wire.bits - 1}:0];")
        # A word counts once the reset is over on both sides of the register.
        lines.append(f"    assign {wire.name}_valid = {name}_tvalid & ~reset;")
        lines.append(f"    assign {name}_tready = {wire.name}_ready & ~reset;")
    for index, wire in enumerate(circuit.outputs):
        name = bus(index, len(circuit.outputs), "m")
        sign = f"{wire.name}[{wire.bits - 1}]" if wire.lanes == 1 and wire.element.signed else "1'b0"
        more = axis_bits(wire) - wire.bits
        padded = f"{{{{{more}{{{sign}}}}}, {wire.name}}}" if more else wire.name
        lines.append(f"    assign {name}_tdata = {padded};")
        lines.append(f"    assign {name}_tvalid = {wire.name}_valid & ~reset;")
        lines.append(f"    assign {wire.name}_ready = {name}_tready & ~reset;")
        step = f"{name}_tvalid & {name}_tready"
        pins = {"clk": "aclk", "reset": "reset", "step": step, "last": f"{name}_tlast"}
        lines.append(instance("counted", f"{wire.name}_image", {"N": wire.words}, pins))
    return lines


def _told(wire: Wire) -> str:
    kind = f"{'' if wire.element.signed else 'u'}int{wire.element.width}"
    name = re.sub(r"[^\x20-\x7e]", "?", wire.tensor).replace("\\", "/")
    return f"{name}: {wire.words} words of {wire.lanes} x {kind}"


def _wired(circuit: Circuit) -> Iterable[str]:
    for component in circuit.components:
        if component.module == "fork_stream":
            yield from _forked(component)
            continue
        clocked = {"clk": "aclk", "reset": "reset"}
        extra = {"count": ""} if component.module == "fifo" else {}
        pins = clocked | stream_pins(component) | extra
        yield instance(component.module, component.name, component.settings, pins)


def _forked(component: Component) -> Iterable[str]:
    x, branches = component.inputs[0], component.outputs
    for branch in branches:
        yield f"    assign {branch.name} = {x.name};"

    def all_of(what: str) -> str:
        return f"{{{', '.join(f'{branch.name}_{what}' for branch in reversed(branches))}}}"

    pins = {"clk": "aclk", "reset": "reset", "x_valid": f"{x.name}_valid", "x_ready": f"{x.name}_ready"}
    pins |= {"y_valid": all_of("valid"), "y_ready": all_of("ready")}
    yield instance("fork_stream", component.name, component.settings, pins)
