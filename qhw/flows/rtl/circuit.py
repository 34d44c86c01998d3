"""A design as components that are joined by streams; its Verilog.

A stream carries one tensor, an image after the other, in words of a few elements; valid and ready go with it.
A component has one module: a component of ``rtl/components/``, a measured unit, or one that was written for a
node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True)
class Loaded:
    """A memory that is written over the design's port for weights: its words, and the bits of one."""

    words: int
    bits: int

    @property
    def word_bytes(self) -> int:
        """Bytes of a word, as it is sent."""
        return -(-self.bits // 8)

    @property
    def address_bits(self) -> int:
        """Bits of an address."""
        return max(1, (self.words - 1).bit_length())

    def ports(self, index: int) -> list[str]:
        """The ports of a module for the memory, by its number in it."""
        return [
            f"    input  load{index}_write",
            f"    input  [{self.address_bits - 1}:0] load{index}_address",
            f"    input  [{self.bits - 1}:0] load{index}",
        ]


WEIGHTS = "weights_axis"
"""The stream that loads weights, of bytes."""


@dataclass
class Circuit:
    """Everything that a design consists of, in the order in which it was put together.

    Args:
        modules: Verilog that was written for this design, by module.
        memories: bits of a code, and a row of codes for each word, of every memory by the name of its file.
        sums: what the additions of a module take that is their graph, without the control of its pipeline.
        carried: the stream that carries each tensor, as it leaves the component that makes it.
        loaded: the memories of each module that are written over the design's port for weights, in order.
    """

    components: list[Component] = field(default_factory=list)
    modules: dict[str, str] = field(default_factory=dict)
    memories: dict[str, tuple[int, IntArray]] = field(default_factory=dict)
    sums: dict[str, Counts] = field(default_factory=dict)
    carried: dict[str, Wire] = field(default_factory=dict)
    loaded: dict[str, list[str]] = field(default_factory=dict)
    inputs: list[Wire] = field(default_factory=list)
    outputs: list[Wire] = field(default_factory=list)

    @property
    def wires(self) -> list[Wire]:
        """Every stream, from the inputs on."""
        return [*self.inputs, *(wire for component in self.components for wire in component.outputs)]

    @property
    def weights(self) -> dict[str, Loaded]:
        """The memories that are loaded, by the name of their files, in the order in which they are."""
        return {name: self.weights_of(name) for names in self.loaded.values() for name in names}

    def weights_of(self, name: str) -> Loaded:
        """What a memory takes."""
        width, codes = self.memories[name]
        return Loaded(len(codes), width * codes.shape[1])

    @property
    def weights_image(self) -> bytes:
        """The bytes that load all weights: of every memory its words, the lowest byte of each first."""
        return b"".join(
            word.to_bytes(each.word_bytes, "little")
            for name, each in self.weights.items()
            for word in joined_codes(self.memories[name][1], self.memories[name][0])
        )


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
        for word in sorted(
            set(re.findall(r"\b[a-z][a-z0-9_]*\b(?=\s*#?\s*\(|\s+\w+\s*\()", path.read_text()))
        ):
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
    return "\n".join([*_head(circuit), *_ends(circuit), *_weights(circuit), *_wired(circuit), "endmodule\n"])


def _head(circuit: Circuit) -> list[str]:
    ports = ["    input  aclk, aresetn"]
    for side, wires in (("s", circuit.inputs), ("m", circuit.outputs)):
        into, out = ("input ", "output") if side == "s" else ("output", "input ")
        for index, wire in enumerate(wires):
            name = bus(index, len(wires), side)
            ports.append(f"    {into} [{axis_bits(wire) - 1}:0] {name}_tdata")
            ports.append(f"    {into} {name}_tvalid, {name}_tlast")
            ports.append(f"    {out} {name}_tready")
    if circuit.loaded:
        ports.append(f"    input  [7:0] {WEIGHTS}_tdata")
        ports.append(f"    input  {WEIGHTS}_tvalid, {WEIGHTS}_tlast")
        ports.append(f"    output {WEIGHTS}_tready")
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
    ready = "~reset"
    if circuit.loaded:
        lines.append("    wire hold;  // no image may begin")
        ready = "~reset & ~hold"
    for index, wire in enumerate(circuit.inputs):
        name = bus(index, len(circuit.inputs), "s")
        lines.append(f"    assign {wire.name} = {name}_tdata[{wire.bits - 1}:0];")
        # A word counts once the reset is over on both sides of the register.
        lines.append(f"    assign {wire.name}_valid = {name}_tvalid & {ready};")
        lines.append(f"    assign {name}_tready = {wire.name}_ready & {ready};")
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


def _weights(circuit: Circuit) -> list[str]:
    """What loads the weights; nothing where they are there from the start."""
    weights = circuit.weights
    if not weights:
        return []
    memories = list(weights.values())
    most, address = loaded_widths(circuit)
    (x,) = circuit.inputs
    ends = [bus(index, len(circuit.outputs), "m") for index in range(len(circuit.outputs))]
    settings: dict[str, Setting] = {
        "N": len(memories),
        "BYTES": most,
        "WA": address,
        "X": x.words,
        "M": len(ends),
        "SIZES": _in_one([each.word_bytes for each in memories], 16),
        "WORDS": _in_one([each.words for each in memories], 24),
    }
    pins = {"clk": "aclk", "reset": "reset", "x_step": f"{x.name}_valid & {x.name}_ready", "hold": "hold"}
    pins |= {"valid": f"{WEIGHTS}_tvalid", "last": f"{WEIGHTS}_tlast", "x": f"{WEIGHTS}_tdata"}
    done = [f"{end}_tvalid & {end}_tready & {end}_tlast" for end in reversed(ends)]
    pins |= {"y_end": f"{{{', '.join(done)}}}", "ready": f"{WEIGHTS}_tready"}
    pins |= {"word": "load", "address": "load_address", "write": "load_write"}
    return [
        f"    wire [{8 * most - 1}:0] load;",
        f"    wire [{address - 1}:0] load_address;",
        f"    wire [{len(memories) - 1}:0] load_write;",
        instance("weights_loader", "weights", settings, pins),
    ]


def loaded_widths(circuit: Circuit) -> tuple[int, int]:
    """Bytes of the longest word that is loaded, and bits of the longest address."""
    memories = circuit.weights.values()
    return max(each.word_bytes for each in memories), max(each.address_bits for each in memories)


def _in_one(numbers: Sequence[int], bits: int) -> str:
    """Numbers side by side, the first in the lowest bits, as a Verilog constant."""
    joined = sum(number << bits * i for i, number in enumerate(numbers))
    return f"{bits * len(numbers)}'h{joined:x}"


def _load_pins(circuit: Circuit, module: str) -> dict[str, str]:
    """The pins of a module's memories that are loaded."""
    names, pins = list(circuit.weights), {}
    for index, name in enumerate(circuit.loaded.get(module, ())):
        each, most = circuit.weights_of(name), loaded_widths(circuit)[0]
        low = 8 * (most - each.word_bytes)
        pins[f"load{index}_write"] = f"load_write[{names.index(name)}]"
        pins[f"load{index}_address"] = f"load_address[{each.address_bits - 1}:0]"
        pins[f"load{index}"] = f"load[{low + each.bits - 1}:{low}]"
    return pins


def _wired(circuit: Circuit) -> Iterable[str]:
    for component in circuit.components:
        if component.module == "fork_stream":
            yield from _forked(component)
            continue
        clocked = {"clk": "aclk", "reset": "reset"}
        extra = {"count": ""} if component.module == "fifo" else {}
        pins = clocked | stream_pins(component) | extra | _load_pins(circuit, component.module)
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
