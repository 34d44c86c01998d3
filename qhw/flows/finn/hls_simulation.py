"""HLS layers by g++: FINN's C++ for Vitis HLS as it is, with ``hls/finn`` in the place of finn-hlslib.

finn-hlslib is not in FINN's package. What stands for it here says what its functions mean. So this checks
which function FINN calls, with which parameters, types and constants; not AMD's library, its pipelines or its
cycles. The integer types are those that hls4ml brings along.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.errors import ToolMissingError, UnsupportedError
from qhw.flows.finn.compiled import Programs, call, compiler, compiler_words
from qhw.flows.finn.layer_streams import WORD, Stream, read_words, write_words
from qhw.flows.finn.rtl_simulation import renamed
from qhw.flows.finn.sources import LONGEST_FILE, LayerSources, source_file
from qhw.outside.text import read_text
from qhw.resources import resource_dir
from qhw.rtl.simulation.verilator import Words

_COMPILE = ("-std=c++17", "-O1", "-w")
_INCLUDE = re.compile(r'#include "([^"]+)"')
_CODE = (".cpp", ".hpp", ".h")
_WEIGHTS = "in1_V"

MEMORY = "memblock.dat"
"""The image of a layer's memory: a line a word, in hexadecimal digits."""


@dataclass(frozen=True)
class Compiler:
    """g++ with the headers, and the programs that it made.

    Raises ToolMissingError where g++ or hls4ml's integer types are not installed.
    """

    programs: Programs

    def __post_init__(self) -> None:
        compiler()
        self._types()

    @staticmethod
    def _types() -> Path:
        found = importlib.util.find_spec("hls4ml")
        if found is None or found.origin is None:
            raise ToolMissingError(
                "hls4ml is not installed: FINN's C++ is compiled with its integer types",
                hint="pip install 'qhw[hls4ml]'",
            )
        return Path(found.origin).parent / "templates" / "vivado" / "ap_types"

    def compile(self, sources: LayerSources, folder: Path, inputs: int) -> Path:
        """The program that calls a layer's top function.

        Args:
            inputs: how many of the function's streams it reads; they come first.

        Raises:
            UnsupportedError: FINN's code needs a part of finn-hlslib that nothing stands for here, or does
                not compile with what does.
        """
        texts = {f"finn/{name}": text for name, text in _headers().items()}
        for name in sources.files:
            if name.endswith(_CODE):
                text = read_text(source_file(folder, name), "C++ file", LONGEST_FILE)
                texts[renamed(PurePosixPath(name).name, sources.layer)] = renamed(text, sources.layer)
        known = {PurePosixPath(name).name for name in texts}
        for text in texts.values():
            for missing in set(_INCLUDE.findall(text)) - known:
                raise UnsupportedError(
                    f"finn-hlslib's {missing} is not in FINN's package: only Vitis HLS shows this layer"
                )
        texts["main.cpp"] = _MAIN.format(inputs=inputs)
        types = self._types()
        tools = (compiler_words(), f"hls4ml {version('hls4ml')}", *_COMPILE)

        def build(place: Path) -> None:
            command = [compiler(), *_COMPILE, f"-I{types}", "-Ifinn", "-I.", "main.cpp", "-o", "program"]
            what = "only Vitis HLS shows this layer: hls/finn does not stand for what it calls"
            call(command, place, what, failure=UnsupportedError)

        return self.programs.get(texts, tools, build)


_MAIN = """\
#include "call.hpp"
#include "top_layer.cpp"

int main(int, char** arguments) {{ return qhw::run<{inputs}>(layer, arguments); }}
"""


def _headers() -> dict[str, str]:
    place = resource_dir("hls") / "finn"
    paths = [*sorted(place.glob("*.h")), *sorted(place.glob("*.hpp")), place / "simulation" / "call.hpp"]
    return {path.name: read_text(path, "header", LONGEST_FILE) for path in paths}


@dataclass(frozen=True)
class Called:
    """What came of calling a layer.

    Args:
        outputs: by stream, in order: the rows of words that came.
        fault: words of its inputs that it left, or that it wanted and were not there.
    """

    outputs: tuple[Words, ...]
    fault: str | None


@dataclass(frozen=True)
class Weights:
    """Words that a layer's memory plays: so many, of ``width`` bits each."""

    width: int
    words: int


def call_layer(
    program: Path,
    sources: LayerSources,
    folder: Path,
    inputs: Mapping[Stream, NDArray[Any]],
    outputs: Sequence[Stream],
    *,
    weights: Weights | None,
    timeout: float,
) -> Called:
    """Give a layer values (N, *shape), and take what it writes.

    Args:
        weights: how the layer's memory plays its words, where it has one.
        timeout: seconds that the simulation may take.

    Raises CheckFailedError, naming the layer, where the program crashes or takes longer.
    """
    with tempfile.TemporaryDirectory(prefix="finn-layer-") as name:
        scratch = Path(name)
        for stream, values in inputs.items():
            write_words(scratch / stream.port, stream, values)
        ports = [stream.port for stream in inputs]
        if weights:
            (scratch / _WEIGHTS).write_bytes(_played(sources, folder, weights))
            ports.append(_WEIGHTS)
        ports += [stream.port for stream in outputs]
        what = f"the simulation of layer '{sources.layer}' failed"
        told = call([str(program), *ports], scratch, what, timeout=timeout)
        return Called(tuple(read_words(scratch / stream.port, stream) for stream in outputs), _fault(told))


def _played(sources: LayerSources, folder: Path, weights: Weights) -> bytes:
    """The memory's words from its first on, over and over."""
    image = read_text(source_file(folder, f"{sources.layer}/{MEMORY}"), "memory image", LONGEST_FILE)
    row = -(-weights.width // WORD)
    rows = np.array([_row(line, row) for line in image.split()], dtype=np.uint32)
    return np.resize(rows, (weights.words, row)).tobytes()


def _row(word: str, width: int) -> list[int]:
    """A hexadecimal word as 32-bit words, the lowest bits first."""
    return [int(word, 16) >> (WORD * part) & 0xFFFFFFFF for part in range(width)]


def _fault(told: str) -> str | None:
    if "is read while empty" in told:
        return "it reads more words than there are"
    unread = re.search(r"^unread (\d+)$", told, re.MULTILINE)
    if unread is None or int(unread.group(1)):
        return f"it leaves {unread.group(1) if unread else '?'} words of its inputs unread"
    return None
