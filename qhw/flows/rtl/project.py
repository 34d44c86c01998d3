"""An rtl project as a folder: Verilog, the words of its memories, and how the graph's tensors travel."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qhw.boards import Board
from qhw.cost.pricing.costing import ESTIMATED
from qhw.cost.pricing.design import Design
from qhw.errors import InputError
from qhw.flows.rtl.board_top import SPI_LOADER, UART_LOADER, board_text, why_no_board
from qhw.flows.rtl.circuit import (
    TOP,
    WEIGHTS,
    Circuit,
    Element,
    Wire,
    axis_bits,
    bus,
    files_of,
    memory_text,
    top_text,
)
from qhw.flows.rtl.emission.draft import MEMORIES, channels_last
from qhw.flows.rtl.pin_file import UART, pins_of
from qhw.flows.rtl.routing import router_of
from qhw.flows.rtl.zynq import write_behind_dma
from qhw.formats import parse_format
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph.ir import TENSOR_SIZE_LIMIT, Node
from qhw.outside import opened, read_bytes, refuse_link
from qhw.outside.schema import by_name, check, table
from qhw.outside.text import read_json
from qhw.resources import resource_dir

DESCRIPTION = "qhw_project.json"
SOURCES, UNIT_SOURCES, CELLS = "rtl", "rtl/units", "simulation/cells"
BOARD, BOARD_UNITS = "board", "board/units"
BOARD_SOURCE = "board/board.v"
WEIGHTS_IMAGE = "weights/weights.bin"
SIMULATION_TOP, BENCH = "simulation/simulated.sv", "simulation/bench.cpp"
PRODUCTS = ("verilated", "synthesis", "bitstream", "vivado")

_SCHEMA = 3
_LARGEST_FILE = 1 << 30
_MOST_BITS = 1 << 16


@dataclass(frozen=True, eq=False)
class Travelling:
    """A tensor in a stream.

    Args:
        tensor: the graph's.
        shape: the tensor's.
        lanes: elements of a word.
        element: bits of an element.
        order: the place in the row-major tensor of each element, as they come.
        format: of codes that are no integers; None where they are.
    """

    tensor: str
    shape: tuple[int, ...]
    lanes: int
    element: Element
    order: IntArray
    format: TableFormat | None

    @property
    def words(self) -> int:
        """Words of an image."""
        return self.order.size // self.lanes

    @property
    def bits(self) -> int:
        """Bits of a word."""
        return self.lanes * self.element.width

    @property
    def axis_bytes(self) -> int:
        """Bytes of a word at the design's ends."""
        return -(-self.bits // 8)

    def codes(self, mantissas: IntArray) -> IntArray:
        """Mantissas (N, *shape) as codes (N * words, lanes) of the stream."""
        flat = np.asarray(mantissas).reshape(len(mantissas), -1)[:, self.order].reshape(-1, self.lanes)
        return flat if self.format is None else np.asarray(self.format.code_of(flat))

    def mantissas(self, codes: IntArray) -> IntArray:
        """Codes (N * words, lanes) as mantissas (N, *shape)."""
        width = self.element.width
        if self.format is not None:
            numbers = np.asarray(self.format.mantissa_of(codes))
        elif self.element.signed:
            numbers = codes - ((codes >> width - 1) << width)
        else:
            numbers = codes
        flat = numbers.reshape(-1, self.order.size)
        found = np.empty_like(flat)
        found[:, self.order] = flat
        return found.reshape(-1, *self.shape)


@dataclass(frozen=True)
class Description:
    """The facts of a written project that its simulation and its synthesis need.

    Args:
        family, part, clock_mhz: the device's, and the clock that it is built for.
        latency_cycles, interval_cycles: the schedule's.
        no_board: why there is no module ``board``; empty where there is one.
        zynq: what takes it to a Zynq board, or why nothing does; empty where the board has no Zynq.
        weights: bytes that load all weights; 0 where they are there from the start.
        resources: what each resource is estimated at, at its folding and at the smallest, and what there is.
    """

    name: str
    inputs: tuple[Travelling, ...]
    outputs: tuple[Travelling, ...]
    traced: tuple[Travelling, ...]
    latency_cycles: int
    interval_cycles: int
    family: str
    part: str
    clock_mhz: float
    no_board: str
    zynq: str
    weights: int
    resources: Mapping[str, Resource]


@dataclass(frozen=True)
class Resource:
    """How much of something a design is estimated to take, with its folding and at least, and there is."""

    estimated: int
    least: int
    available: int


def write_project(
    circuit: Circuit, design: Design, timing: tuple[int, int], folder: Path, loader: str = UART
) -> None:
    """Write a circuit's files into an empty folder; the same design gives the same bytes.

    Args:
        loader: what lies between a host and the design on a board.
        timing: cycles from an image's first word in to its last word out, and between two images.
    """
    for name in (UNIT_SOURCES, CELLS, MEMORIES):
        (folder / name).mkdir(parents=True)
    (folder / SOURCES / f"{TOP}.v").write_text(top_text(circuit))
    (folder / SOURCES / "layers.v").write_text("\n".join(circuit.modules.values()))
    used = {component.module for component in circuit.components} | {"counted"}
    used |= {word for text in circuit.modules.values() for word in _instances(text)}
    used |= {"weights_loader"} if circuit.loaded else set()
    for file in files_of(sorted(used - set(circuit.modules))):
        shutil.copyfile(file, folder / UNIT_SOURCES / file.name)
    for file in sorted((resource_dir("cost_models") / "rtl" / "models").glob("*.v")):
        shutil.copyfile(file, folder / CELLS / file.name)
    weights = circuit.weights
    if weights:
        (folder / WEIGHTS_IMAGE).parent.mkdir()
        (folder / WEIGHTS_IMAGE).write_bytes(circuit.weights_image)
    for name, (width, codes) in circuit.memories.items():
        if name in weights:
            continue
        (folder / MEMORIES / f"{name}.mem").write_text(memory_text(width, codes))
    (folder / SIMULATION_TOP).write_text(_simulation_top(circuit))
    (folder / BENCH).write_text(_bench(circuit))
    no_board = why_no_board(circuit, design.board, loader)
    if not no_board:
        _write_board(circuit, design.board, folder, loader)
    zynq = write_behind_dma(circuit, design.graph, design.board, identity(folder), folder)
    _write_description(circuit, design, timing, (no_board, zynq), folder)


def _write_board(circuit: Circuit, board: Board, folder: Path, loader: str) -> None:
    """The design behind the board's pins, and the file of pins of the family's tools."""
    pins, router = pins_of(board, loader), router_of(board.family)
    assert pins is not None
    (folder / BOARD_UNITS).mkdir(parents=True)
    (folder / BOARD_SOURCE).write_text(board_text(circuit, pins, identity(folder)))
    if router is not None:
        constraints = router.constraints_text(pins.ports, pins.clock_mhz)
        (folder / BOARD / router.constraints).write_text(constraints)
    for file in files_of([UART_LOADER if loader == UART else SPI_LOADER]):
        if not (folder / UNIT_SOURCES / file.name).exists():
            shutil.copyfile(file, folder / BOARD_UNITS / file.name)


MARK = b"qhw"


def identity(folder: Path) -> bytes:
    """What a board answers with when it is asked for its design: ``qhw`` and 5 bytes of a SHA-256.

    It is that of the design's Verilog and memories, without what depends on the board's pins.

    Raises:
        InputError: a file of them cannot be read, or is a link.
    """
    digest = hashlib.sha256()
    for name, pattern in ((SOURCES, "*.v"), (UNIT_SOURCES, "*.v"), (MEMORIES, "*.mem")):
        refuse_link(folder / name)
        for path in sorted((folder / name).glob(pattern)):
            refuse_link(path)
            with opened(path, "design's file", _LARGEST_FILE) as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\0".encode())
    return MARK + digest.digest()[:5]


def weights_image(folder: Path, description: Description) -> bytes:
    """The bytes that load a project's weights.

    Raises:
        InputError: the file cannot be read, is a link, or has another size.
    """
    path = folder / WEIGHTS_IMAGE
    refuse_link(path.parent)
    refuse_link(path)
    content = read_bytes(path, "weights", _LARGEST_FILE)
    if len(content) != description.weights:
        raise InputError(
            f"{path} has {len(content):,} bytes",
            allowed=f"the {description.weights:,} that the design takes",
            hint="build the project again",
        )
    return content


def _instances(text: str) -> list[str]:
    """The modules that an emitted text instantiates: every instance begins a line with its module."""
    return [line.split()[0] for line in text.splitlines() if line.startswith("    ") and line.endswith("(")]


def traced(circuit: Circuit) -> dict[str, Wire]:
    """The stream of every tensor but the inputs, each stream once, by the tensor that leaves last."""
    by_stream = {wire.name: (tensor, wire) for tensor, wire in circuit.carried.items()}
    given = {wire.name for wire in circuit.inputs}
    return {tensor: wire for name, (tensor, wire) in by_stream.items() if name not in given}


def _write_description(
    circuit: Circuit, design: Design, timing: tuple[int, int], ends: tuple[str, str], folder: Path
) -> None:
    graph, board = design.graph, design.board

    def row(tensor: str, wire: Wire) -> dict[str, Any]:
        kind = graph.tensors[tensor]
        coded = isinstance(kind.format, TableFormat)
        usual = np.array_equal(wire.order, channels_last(kind.shape))
        return {
            "tensor": tensor,
            "shape": list(kind.shape),
            "lanes": wire.lanes,
            "bits": wire.element.width,
            "signed": wire.element.signed,
            "order": None if usual else [int(v) for v in wire.order],
            "format": str(kind.format) if coded else None,
        }

    stored = {
        "schema": _SCHEMA,
        "flow": "rtl",
        "name": graph.name,
        "family": board.family,
        "part": board.part,
        "clock_mhz": float(board.clock_mhz),
        "latency_cycles": timing[0],
        "interval_cycles": timing[1],
        "no_board": ends[0],
        "zynq": ends[1],
        "weights": len(circuit.weights_image),
        "resources": {name: asdict(each) for name, each in _resources(design).items()},
        "inputs": [row(*pair) for pair in zip(graph.inputs, circuit.inputs, strict=True)],
        "outputs": [row(*pair) for pair in zip(graph.outputs, circuit.outputs, strict=True)],
        "traced": [row(tensor, wire) for tensor, wire in traced(circuit).items()],
    }
    (folder / DESCRIPTION).write_text(json.dumps(stored, indent=1) + "\n")


def _resources(design: Design) -> dict[str, Resource]:
    """What each resource is estimated at, with the design's folding and with the smallest."""
    options = [design.costing.layers(node, _folds(design, node)) for node in design.graph.nodes]
    found = {}
    for name, available in design.board.amounts(ESTIMATED).items():
        chosen = sum(getattr(layers[0], name) for layers in options)
        least = sum(min(getattr(layer, name) for layer in layers) for layers in options)
        found[name] = Resource(int(chosen), int(least), available)
    return found


def _folds(design: Design, node: Node) -> list[Any]:
    """A node's folding, and the others that it may have."""
    return [design.fold_of(node), *design.legal.get(node.name, ())]


_PORT = table(
    {
        "tensor": {"type": "string"},
        "shape": {"type": "integers", "maxItems": 64},
        "lanes": {"type": "integer", "minimum": 1},
        "bits": {"type": "integer", "minimum": 1, "maximum": 1024},
        "signed": {"type": "boolean"},
        "order": {"anyOf": [{"type": "integers"}, {"type": "null"}]},
        "format": {"type": ["string", "null"]},
    }
)
_COUNT = {"type": "integer", "minimum": 0}
_DESCRIPTION = table(
    {
        "schema": {"const": _SCHEMA},
        "flow": {"const": "rtl"},
        "name": {"type": "string"},
        "family": {"type": "string"},
        "part": {"type": "string"},
        "clock_mhz": {"type": "number", "exclusiveMinimum": 0},
        "latency_cycles": _COUNT,
        "interval_cycles": _COUNT,
        "no_board": {"type": "string"},
        "zynq": {"type": "string"},
        "weights": _COUNT,
        "resources": by_name(table(dict.fromkeys(("estimated", "least", "available"), _COUNT))),
        **{kind: {"type": "array", "items": _PORT} for kind in ("inputs", "outputs", "traced")},
    }
)


def read_description(folder: Path) -> Description:
    """The description of a project folder; InputError where it is something else."""
    path = folder / DESCRIPTION
    try:
        stored = read_json(path, "project's description", _LARGEST_FILE)
        check(stored, _DESCRIPTION, str(path))
        ports = {kind: tuple(_port(row) for row in stored[kind]) for kind in ("inputs", "outputs", "traced")}
    except (ValueError, InputError) as error:
        raise InputError(f"{folder} is not an rtl project that qhw wrote: {error}") from error
    names = (
        "name",
        "latency_cycles",
        "interval_cycles",
        "family",
        "part",
        "clock_mhz",
        "no_board",
        "zynq",
        "weights",
    )
    facts: dict[str, Any] = {name: stored[name] for name in names}
    facts["resources"] = {name: Resource(**each) for name, each in stored["resources"].items()}
    return Description(**facts | ports)


def _port(row: Mapping[str, Any]) -> Travelling:
    shape = tuple(row["shape"])
    size = math.prod(shape)
    if min(shape, default=1) < 1 or size > TENSOR_SIZE_LIMIT:
        raise ValueError(f"'{row['tensor']}' has shape {shape}")
    if size % row["lanes"] or row["lanes"] * row["bits"] > _MOST_BITS:
        raise ValueError(f"'{row['tensor']}' cannot travel in words of {row['lanes']} x {row['bits']} bits")
    given = row["order"]
    order = channels_last(shape) if given is None else np.array(given, dtype=np.int64)
    if order.size != size or not np.array_equal(np.sort(order), np.arange(size)):
        raise ValueError(f"the order of '{row['tensor']}' is none of its {size} elements")
    format = None if row["format"] is None else parse_format(row["format"])
    if not isinstance(format, TableFormat | None):
        raise ValueError(f"'{row['tensor']}' travels as codes of {format}")
    return Travelling(row["tensor"], shape, row["lanes"], Element(row["bits"], row["signed"]), order, format)


# --- the simulation's own files ---------------------------------------------------------------------


def _simulation_top(circuit: Circuit) -> str:
    """The design, with a word and a flag of each traced stream beside it."""
    ports, pins = ["    input  clk, resetn"], ["        .aclk(clk), .aresetn(resetn)"]
    for side, wires in (("s", circuit.inputs), ("m", circuit.outputs)):
        into, out = ("input ", "output") if side == "s" else ("output", "input ")
        for index, wire in enumerate(wires):
            name = bus(index, len(wires), side)
            ports.append(f"    {into} [{axis_bits(wire) - 1}:0] {side}{index}_tdata")
            ports.append(f"    {into} {side}{index}_tvalid, {side}{index}_tlast")
            ports.append(f"    {out} {side}{index}_tready")
            signals = ("tdata", "tvalid", "tready", "tlast")
            pins += [f"        .{name}_{signal}({side}{index}_{signal})" for signal in signals]
    if circuit.loaded:
        ports += ["    input  [7:0] w_tdata", "    input  w_tvalid, w_tlast", "    output w_tready"]
        pins += [
            f"        .{WEIGHTS}_{signal}(w_{signal})" for signal in ("tdata", "tvalid", "tready", "tlast")
        ]
    body = []
    for index, wire in enumerate(traced(circuit).values()):
        ports.append(f"    output [{wire.bits - 1}:0] probe{index}")
        ports.append(f"    output passed{index}")
        body.append(f"    assign probe{index} = dut.{wire.name};")
        body.append(f"    assign passed{index} = dut.{wire.name}_valid & dut.{wire.name}_ready & ~dut.reset;")
    return "\n".join(
        [
            *("module simulated (", ",\n".join(ports), ");", f"    {TOP} dut (", ",\n".join(pins), "    );"),
            *body,
            "endmodule\n",
        ]
    )


_BENCH = """\
// Runs the design: words of the inputs from files, words of the outputs and of the traced streams into files.
// Arguments: a folder, the seed of the stalls (0: none), images, then the numbers of the traced streams.
// Where weights are loaded, the file `weights` has one set of them or several: each is loaded in front of as
// many images.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>
#include "Vsimulated.h"

static uint64_t state;

static uint32_t drawn() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state >> 32;
}

// Goes on in a share of the cycles, which changes now and then.
struct Gate {
    uint32_t share = 0;
    uint64_t until = 0;
    bool open(uint64_t cycle) {
        static const uint32_t shares[] = {0x20000000u, 0x80000000u, 0xffffffffu, 0xffffffffu};
        if (!state) return true;
        if (cycle >= until) {
            share = shares[drawn() % 4];
            until = cycle + 1 + drawn() % 512;
        }
        return drawn() <= share;
    }
};

static std::FILE* file(const std::string& folder, const std::string& name, const char* mode) {
    std::FILE* found = std::fopen((folder + "/" + name).c_str(), mode);
    if (!found) std::exit(2);
    return found;
}

int main(int count, char** arguments) {
    VerilatedContext context;
    context.randReset(2);
    Vsimulated top{&context};
    const std::string folder = arguments[1];
    state = std::strtoull(arguments[2], nullptr, 10);
    const uint64_t images = std::strtoull(arguments[3], nullptr, 10);
    std::set<int> wanted;
    for (int i = 4; i < count; i++) wanted.insert(std::atoi(arguments[i]));
    std::FILE* begins = file(folder, "begins", "wb");
    std::FILE* ends = file(folder, "ends", "wb");
OPENED
    top.resetn = 0;
    for (int i = 0; i < 4; i++) {
        top.clk = 0;
        top.eval();
        top.clk = 1;
        top.eval();
    }
    top.resetn = 1;
    uint64_t cycle = 0, quiet = 0;
    for (;; cycle++) {
GIVEN
        top.clk = 0;
        top.eval();
        bool moved = false;
TAKEN
        if (FINISHED) break;
        quiet = moved ? 0 : quiet + 1;
        if (quiet > LONGEST) return 3;
        top.clk = 1;
        top.eval();
    }
    std::fclose(begins);
    std::fclose(ends);
CLOSED
    return 0;
}
"""


def _loading(size: int, words: int) -> dict[str, str]:
    """What the program does about weights: a set of ``size`` bytes in front of its share of the images."""
    return {
        "OPENED": (
            '    std::FILE* sets = file(folder, "weights", "rb");\n'
            "    std::fseek(sets, 0, SEEK_END);\n"
            f"    const uint64_t bytes = std::ftell(sets), share = images / (bytes / {size}ull);\n"
            "    std::rewind(sets);\n"
            "    uint64_t sent = 0, allowed = 0;\n    bool byte_there = false;\n    Gate gate_weights;\n"
            "    top.w_tvalid = 0;\n"
        ),
        "GIVEN": (
            # The next set is offered as soon as its images are next: those before are still in the design.
            f"        if (!byte_there && sent < bytes && given0 == allowed * {words}ull"
            " && gate_weights.open(cycle)) {\n"
            "            if (std::fread(&top.w_tdata, 1, 1, sets) != 1) return 2;\n"
            "            byte_there = true;\n        }\n"
            "        top.w_tvalid = byte_there;\n"
            f"        top.w_tlast = sent % {size}ull == {size - 1}ull;\n"
        ),
        "TAKEN": (
            "        if (byte_there && top.w_tready) {\n"
            "            sent++;\n            byte_there = false;\n            moved = true;\n"
            f"            if (sent % {size}ull == 0) allowed = sent == bytes ? images : allowed + share;\n"
            "        }\n"
        ),
        "CLOSED": "    std::fclose(sets);\n",
    }


_LONGEST_QUIET = 4_000_000
"""Cycles without a word anywhere after which a design counts as stuck."""


def _bench(circuit: Circuit) -> str:
    """The C++ program that drives the simulated design."""
    parts = {"OPENED": "", "GIVEN": "", "TAKEN": "", "CLOSED": ""}
    allowed = "images"
    if circuit.loaded:
        allowed = "allowed"
        for name, text in _loading(len(circuit.weights_image), circuit.inputs[0].words).items():
            parts[name] += text
    for i, wire in enumerate(circuit.inputs):
        stamp = "std::fwrite(&cycle, sizeof cycle, 1, begins); " if i == 0 else ""
        parts["OPENED"] += (
            f'    std::FILE* in{i} = file(folder, "in{i}", "rb");\n'
            f"    uint64_t given{i} = 0;\n    bool there{i} = false;\n    Gate gate_in{i};\n"
            f"    top.s{i}_tvalid = 0;\n    top.s{i}_tlast = 0;\n"
        )
        parts["GIVEN"] += (
            f"        if (!there{i} && given{i} < {allowed} * {wire.words}ull && gate_in{i}.open(cycle)) {{\n"
            f"            if (std::fread(&top.s{i}_tdata, sizeof top.s{i}_tdata, 1, in{i}) != 1) return 2;\n"
            f"            there{i} = true;\n        }}\n"
            f"        top.s{i}_tvalid = there{i};\n"
            f"        top.s{i}_tlast = given{i} % {wire.words}ull == {wire.words - 1}ull;\n"
        )
        parts["TAKEN"] += (
            f"        if (there{i} && top.s{i}_tready) {{\n"
            f"            if (given{i} % {wire.words}ull == 0) {{ {stamp}}}\n"
            f"            given{i}++;\n            there{i} = false;\n            moved = true;\n        }}\n"
        )
        parts["CLOSED"] += f"    std::fclose(in{i});\n"
    for i, wire in enumerate(circuit.outputs):
        stamp = "std::fwrite(&cycle, sizeof cycle, 1, ends); " if i == 0 else ""
        parts["OPENED"] += (
            f'    std::FILE* out{i} = file(folder, "out{i}", "wb");\n'
            f"    uint64_t got{i} = 0;\n    Gate gate_out{i};\n"
        )
        parts["GIVEN"] += f"        top.m{i}_tready = gate_out{i}.open(cycle);\n"
        parts["TAKEN"] += (
            f"        if (top.m{i}_tvalid && top.m{i}_tready) {{\n"
            f"            std::fwrite(&top.m{i}_tdata, sizeof top.m{i}_tdata, 1, out{i});\n"
            f"            got{i}++;\n            moved = true;\n"
            f"            if (bool(top.m{i}_tlast) != (got{i} % {wire.words}ull == 0)) return 4;\n"
            f"            if (top.m{i}_tlast) {{ {stamp}}}\n        }}\n"
        )
        parts["CLOSED"] += f"    std::fclose(out{i});\n"
    for i, _ in enumerate(traced(circuit)):
        parts["OPENED"] += (
            f'    std::FILE* trace{i} = wanted.count({i}) ? file(folder, "trace{i}", "wb") : nullptr;\n'
        )
        parts["TAKEN"] += (
            f"        if (top.passed{i}) {{\n            moved = true;\n            if (trace{i}) "
            f"std::fwrite(&top.probe{i}, sizeof top.probe{i}, 1, trace{i});\n        }}\n"
        )
        parts["CLOSED"] += f"    if (trace{i}) std::fclose(trace{i});\n"
    finished = " && ".join(f"got{i} >= images * {wire.words}ull" for i, wire in enumerate(circuit.outputs))
    text = _BENCH.replace("FINISHED", finished).replace("LONGEST", f"{_LONGEST_QUIET}ull")
    for name, part in parts.items():
        text = text.replace(f"{name}\n", part)
    return text


def itemsize(bits: int) -> int:
    """Bytes of a Verilator port."""
    for size in (1, 2, 4, 8):
        if bits <= 8 * size:
            return size
    return 4 * -(-bits // 32)


def packed(codes: IntArray, width: int, bits: int) -> bytes:
    """Rows of codes as Verilator's words of that many bits, the first code in the lowest bits."""
    count = len(codes)
    size = itemsize(bits)
    spread = _bits_of(codes, width).reshape(count, -1)
    padded = np.zeros((count, 8 * size), dtype=np.uint8)
    padded[:, : spread.shape[1]] = spread
    return np.packbits(padded, axis=1, bitorder="little").tobytes()


def _bits_of(codes: IntArray, width: int) -> IntArray:
    if codes.dtype == object or width > 63:
        raw = b"".join((int(v) & ((1 << width) - 1)).to_bytes(-(-width // 8), "little") for v in codes.flat)
        parts = np.frombuffer(raw, dtype=np.uint8).reshape(*codes.shape, -1)
    else:
        parts = np.ascontiguousarray(codes, dtype="<i8").view(np.uint8).reshape(*codes.shape, 8)
    return np.asarray(np.unpackbits(parts, axis=-1, bitorder="little")[..., :width])


def unpacked(content: bytes, width: int, lanes: int, bits: int) -> IntArray:
    """Verilator's words of that many bits as rows of codes."""
    size = itemsize(bits)
    raw = np.frombuffer(content, dtype=np.uint8).reshape(-1, size)
    spread = np.unpackbits(raw, axis=1, bitorder="little")[:, : lanes * width].reshape(-1, lanes, width)
    if width <= 62:
        return np.asarray(spread.astype(np.int64) @ (np.int64(1) << np.arange(width, dtype=np.int64)))
    powers = np.array([1 << i for i in range(width)], dtype=object)
    return np.asarray(spread.astype(object) @ powers)


def checked_inputs(description: Description, inputs: Mapping[str, IntArray]) -> int:
    """How many images are given; InputError where an array is missing, or has another shape or number."""
    for port in description.inputs:
        if port.tensor not in inputs:
            raise InputError(f"no array is given for input '{port.tensor}'")
        if np.shape(inputs[port.tensor])[1:] != port.shape:
            raise InputError(
                f"input '{port.tensor}' has shape {np.shape(inputs[port.tensor])}",
                allowed=f"(N, *{port.shape})",
            )
    counts = {len(inputs[port.tensor]) for port in description.inputs}
    if len(counts) != 1:
        raise InputError(f"the inputs have {sorted(counts)} samples", allowed="as many of each")
    return counts.pop()
