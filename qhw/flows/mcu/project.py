"""A firmware project as a folder: the network in C, its kernels, a test firmware, vectors, a description."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qhw.boards import Board
from qhw.errors import InputError
from qhw.flows.folders import written_beside
from qhw.flows.mcu.containers import WIDTHS, Container, Map
from qhw.flows.mcu.emit import emit
from qhw.flows.mcu.execution import Observed, Port
from qhw.flows.mcu.kernels import SOURCES
from qhw.flows.mcu.layout import Layout, placed
from qhw.flows.mcu.memory_map import write_memory_map
from qhw.flows.mcu.toolchain import CORES, OPTIMISATION, Core, core_named, platform_folder
from qhw.formats.modes import IntArray
from qhw.graph.interpreter import interpret
from qhw.outside import refuse_link
from qhw.outside.schema import check, table
from qhw.outside.text import read_json
from qhw.resources import resource_dir

DESCRIPTION = "qhw_project.json"
KERNELS, TEST, BUILD = "kernels", "test", "build"
PRODUCTS = (BUILD,)
"""What the Makefile makes in the folder."""

_SCHEMA = 1
_LARGEST_FILE = 1 << 28
_SUFFIXES = frozenset({".c", ".h", ".ld", ".s", ".S"})


@dataclass(frozen=True)
class PlannedStep:
    """One step, as a project describes it.

    Args:
        name: the step's; nodes: the graph's that it carries out.
        kernel: the C function.
        macs: multiply-accumulates of one inference, recomputation included.
        flash: bytes of its weights and other constants.
        observed: what it leaves behind.
    """

    name: str
    nodes: tuple[str, ...]
    kernel: str
    macs: int
    flash: int
    observed: Observed


@dataclass(frozen=True)
class Description:
    """The facts of a written project that its simulation needs.

    Args:
        core: the core that it is compiled for.
        flash, sram: bytes that the board has.
        arena: bytes of the arena.
        inputs, outputs: how samples and results lie in memory.
        sizes: bytes of all inputs, and of all outputs.
        patches: the plan, e.g. ``relu, 2 x 3``; empty where every layer runs once.
    """

    name: str
    board: str
    core: str
    clock_mhz: float
    flash: int
    sram: int
    arena: int
    patches: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    sizes: tuple[int, int]
    steps: tuple[PlannedStep, ...]


def write_project(layout: Layout, board: Board, out: Path, vectors: Mapping[str, IntArray]) -> None:
    """Write the folder ``out``: everything goes into a folder beside it, which is then renamed.

    Raises InputError where ``out`` is there, but not a project.
    """
    if out.exists():
        read_description(out)
    with written_beside(out) as beside:
        _write_files(layout, board, beside, vectors)


def _write_files(layout: Layout, board: Board, folder: Path, vectors: Mapping[str, IntArray]) -> None:
    title = f"{''.join(c if c.isalnum() else '_' for c in layout.program.name)} for {board.name}, made by qhw"
    sources = emit(layout, title)
    (folder / "model.c").write_text(sources.model)
    (folder / "model.h").write_text(sources.header)
    mcu = resource_dir("mcu")
    shutil.copytree(platform_folder(), folder / TEST)
    (folder / KERNELS).mkdir()
    for path in (
        *(mcu / "include").glob("*.h"),
        *(mcu / "src").glob("*.h"),
        *(mcu / "src" / n for n in SOURCES),
    ):
        shutil.copy(path, folder / KERNELS)
    description = describe(layout, board, sources.constant_bytes)
    (folder / DESCRIPTION).write_text(json.dumps(_stored(description), indent=1) + "\n")
    _write_vectors(layout, description, vectors, folder / TEST)
    core = core_named(description.core)
    (folder / "Makefile").write_text(_makefile(description, core))
    write_memory_map(layout, folder / "memory.svg")


def describe(layout: Layout, board: Board, constant_bytes: Mapping[str, int]) -> Description:
    """The facts of a layout on a board."""
    program = layout.program
    ports = [
        tuple(Port(name, program.maps[name], offset) for name, offset in placed(program, names)[0].items())
        for names in (program.inputs, program.outputs)
    ]
    steps = tuple(
        PlannedStep(
            step.name,
            step.nodes,
            step.kernel,
            layout.macs(step),
            constant_bytes.get(step.name, 0),
            Observed(step.writes, program.maps[step.writes], layout.rectangles(step)),
        )
        for step in program.steps
    )
    return Description(
        program.name,
        board.name,
        core_of(board).name,
        board.clock_mhz,
        board.capacity["flash"],
        board.capacity["sram"],
        layout.arena.bytes,
        layout.patches,
        ports[0],
        ports[1],
        layout.io_bytes,
        steps,
    )


def core_of(board: Board) -> Core:
    """The core that a board's firmware is compiled for."""
    return core_named(board.family)


def _stored(description: Description) -> dict[str, Any]:
    return {"schema": _SCHEMA, "flow": "mcu", **asdict(description)}


_MAP = table(
    {
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 64},
        "container": table({"bits": {"enum": list(WIDTHS)}, "is_signed": {"type": "boolean"}}),
    }
)
_COUNT = {"type": "integer", "minimum": 0, "maximum": 1 << 32}
_TEXT = {"type": "string"}
_PORTS = {"type": "array", "items": table({"tensor": _TEXT, "map": _MAP, "offset": _COUNT})}
_PAIR = {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2}
_RECTANGLE = {"type": "array", "items": _PAIR, "minItems": 2, "maxItems": 2}
_OBSERVED = table({"tensor": _TEXT, "map": _MAP, "regions": {"type": "array", "items": _RECTANGLE}})
_STEP = table(
    {
        "name": _TEXT,
        "nodes": {"type": "array", "items": _TEXT},
        "kernel": _TEXT,
        "macs": {"type": "integer", "minimum": 0},
        "flash": _COUNT,
        "observed": _OBSERVED,
    }
)
_DESCRIPTION = table(
    {
        "schema": {"const": _SCHEMA},
        "flow": {"const": "mcu"},
        "name": _TEXT,
        "board": _TEXT,
        "core": {"enum": list(CORES)},
        "clock_mhz": {"type": "number", "exclusiveMinimum": 0},
        "flash": _COUNT,
        "sram": _COUNT,
        "arena": _COUNT,
        "patches": _TEXT,
        "inputs": _PORTS,
        "outputs": _PORTS,
        "sizes": _PAIR,
        "steps": {"type": "array", "items": _STEP},
    }
)


def read_description(folder: Path) -> Description:
    """The facts of a project; raises InputError where the folder is none of this flow's."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise InputError(f"{folder} is not a project of qhw", hint="give a folder that qhw build wrote")
    stored = read_json(path, "description of a project", _LARGEST_FILE)
    check(stored, _DESCRIPTION, str(path), hint="build the project again")
    values = {name: value for name, value in stored.items() if name not in ("schema", "flow")}
    steps = tuple(
        PlannedStep(
            **{name: value for name, value in step.items() if name not in ("nodes", "observed")},
            nodes=tuple(step["nodes"]),
            observed=Observed(
                step["observed"]["tensor"],
                _map(step["observed"]["map"]),
                tuple((tuple(rows), tuple(columns)) for rows, columns in step["observed"]["regions"]),
            ),
        )
        for step in values["steps"]
    )
    values |= {what: tuple(map(_port, values[what])) for what in ("inputs", "outputs")}
    return Description(**(values | {"steps": steps, "sizes": tuple(values["sizes"])}))


def _map(stored: Mapping[str, Any]) -> Map:
    return Map(tuple(stored["shape"]), Container(**stored["container"]))


def _port(stored: Mapping[str, Any]) -> Port:
    return Port(stored["tensor"], _map(stored["map"]), stored["offset"])


def source_files(folder: Path) -> list[str]:
    """The files of a project folder that a compiler may read, relative to it.

    Raises InputError for a link: it would hide what is compiled.
    """
    found = [path for path in folder.iterdir() if path.suffix in _SUFFIXES]
    for part in (KERNELS, TEST):
        refuse_link(folder / part)
        found += [path for path in (folder / part).rglob("*") if path.suffix in _SUFFIXES]
    for path in found:
        refuse_link(path)
    return [path.relative_to(folder).as_posix() for path in sorted(found)] + [DESCRIPTION]


def _write_vectors(
    layout: Layout, description: Description, vectors: Mapping[str, IntArray], folder: Path
) -> None:
    """Samples as the test firmware reads them, and the outputs that the exact graph gives for them."""
    expected = interpret(layout.graph, vectors)
    count = len(next(iter(vectors.values())))
    for name, ports, size, values in (
        ("in.bin", description.inputs, description.sizes[0], vectors),
        ("expected.bin", description.outputs, description.sizes[1], expected),
    ):
        memory = np.zeros((count, size), dtype=np.uint8)
        for port in ports:
            memory[:, port.offset : port.offset + port.map.bytes] = port.map.pack(values[port.tensor])
        head = np.uint32(count).tobytes() if name == "in.bin" else b""
        (folder / name).write_bytes(head + memory.tobytes())


def _makefile(description: Description, core: Core) -> str:
    symbols = {"flash_start": core.flash_start, "ram_start": core.ram_start, "flash_size": description.flash}
    symbols |= {"ram_size": min(description.sram, 4 << 20), "stack_size": 4096}
    linked = " ".join(f"-Wl,--defsym=__{name}={value}" for name, value in symbols.items())
    return f"""\
# make        the test firmware for a {core.title}, in {BUILD}/
# make qemu   runs it in QEMU on the samples in {TEST}/, and compares the outputs with the exact graph's
# make host   the same, compiled for this machine

CROSS ?= arm-none-eabi-
CFLAGS ?= {OPTIMISATION} -std=c99 -Wall -Wextra
SOURCES := model.c $(wildcard {KERNELS}/*.c) {TEST}/harness.c
HEADERS := model.h $(wildcard {KERNELS}/*.h) {TEST}/io.h
INCLUDES := -I. -I{KERNELS} -I{TEST}
TARGET := {" ".join(core.flags)} -DQHW_COUNTER={core.counter:#x} -ffunction-sections -fdata-sections \\
\t-nostartfiles -Wl,--gc-sections -T {TEST}/mps2.ld {linked}

.PHONY: all qemu host clean

all: {BUILD}/firmware.elf

{BUILD}/firmware.elf: $(SOURCES) $(HEADERS) {TEST}/semihosting.c {TEST}/mps2.ld
\tmkdir -p {BUILD}
\t$(CROSS)gcc $(CFLAGS) $(INCLUDES) $(TARGET) $(SOURCES) {TEST}/semihosting.c -o $@
\t$(CROSS)size $@

{BUILD}/host: $(SOURCES) $(HEADERS) {TEST}/host.c
\tmkdir -p {BUILD}
\t$(CC) $(CFLAGS) $(INCLUDES) $(SOURCES) {TEST}/host.c -o $@

qemu: {BUILD}/firmware.elf
\tcp {TEST}/in.bin {BUILD}/in.bin
\tcd {BUILD} && qemu-system-arm -M {core.machine} -nographic -monitor none -serial none \\
\t\t-semihosting-config enable=on,target=native -icount shift=6 -kernel firmware.elf
\tcmp {BUILD}/out.bin {TEST}/expected.bin

host: {BUILD}/host
\tcp {TEST}/in.bin {BUILD}/in.bin
\tcd {BUILD} && ./host
\tcmp {BUILD}/out.bin {TEST}/expected.bin

clean:
\trm -rf {BUILD}
"""
