"""A whole FINN design in Verilator: its rate, its latency, and the queues that its layers need.

RTL layers are FINN's Verilog, with a queue on every connection. HLS layers have no Verilog before Vitis
HLS made it: they take and give their words in the order of FINN's C++, a word a cycle, with no latency of
their own, and what they give are the values of FINN's Python execution. What they take is compared with
those values, and so is what leaves the design. So all of it is equal if every HLS layer by itself is,
which :func:`qhw.flows.finn.simulation.simulate_layers` checks.

Where two layers have words of different widths, a converter stands in the queue, which takes and gives a
word a cycle; FINN's own is slower where the widths are no multiples of one another.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.errors import UnsupportedError
from qhw.flows.finn.compiled import Programs, default_cache
from qhw.flows.finn.layer_streams import Stream, checked, input_streams, output_streams, read_words
from qhw.flows.finn.rtl_simulation import Circuit, Verilator
from qhw.flows.finn.sources import LayerSources, layer_sources, operators
from qhw.flows.finn.tools import finn
from qhw.formats.modes import IntArray

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

UNBOUNDED = 1 << 40
"""The depth of a queue that never is full."""

_BASE_TIMEOUT = 600.0
_PATIENCE = 10_000


@dataclass(frozen=True)
class DesignCheck:
    """What the simulation of a design showed.

    Args:
        vectors: how many went in.
        codes: elements that were compared: of the design's outputs, and of what HLS layers take.
        mismatches: those that differ, or never came.
        first_difference: the tensor, vector, element and both values, or how many words came.
        latency_cycles: from the end of the reset to the first vector's last word; None where it never came.
        interval_cycles: between the last words of the last two vectors; None for less than two.
        depths: of the queue of each tensor the words that it needs room for at this rate: one more than it
            held at most, since a full queue takes no word in the cycle in which one leaves it.
            For ends of different widths it counts words of the output, before and behind the converter.
        full: the tensors whose queues are full where the design stands still.
    """

    vectors: int
    codes: int
    mismatches: int
    first_difference: str | None
    latency_cycles: int | None
    interval_cycles: int | None
    depths: dict[str, int]
    full: tuple[str, ...] = ()


@finn()
def simulate_design(
    model: ModelWrapper,
    folder: Path,
    values: Mapping[str, NDArray[Any]],
    *,
    interval: int | None = None,
    depths: Mapping[str, int] | None = None,
    timeout: float | None = None,
    cache: Path | None = None,
) -> DesignCheck:
    """Clock a whole design with a batch of inputs, and compare what comes out of it.

    Args:
        model: specialised and folded, as :func:`generate_sources` took it.
        folder: the generated sources; nothing is written there.
        values: FINN's Python execution of a batch, by tensor: (N, *shape), channels last.
        interval: cycles between two vectors at the design's input; those of its slowest layer, as FINN
            estimates them, where it is None.
        depths: words that the queue of a tensor has room for; without bound where a tensor is not named.
        timeout: seconds that the simulation may take.
        cache: where compiled programs are kept; the user's cache where it is None.

    Raises:
        ToolMissingError: Verilator or g++ is not installed.
        UnsupportedError: a layer cannot be simulated; the message names it.
        InputError: a tensor has no values, or values of another shape; a layer has no sources.
        CheckFailedError: the simulation crashes, or takes longer than ``timeout``.
    """
    sources = layer_sources(model, folder)
    model = copy.deepcopy(model)
    verilator = Verilator(Programs(cache or default_cache()))
    layers = [_Layer.of(model, node, operator, sources[node.name]) for node, operator in operators(model)]
    slowest = max(int(layer.operator.get_exp_cycles()) for layer in layers)
    with tempfile.TemporaryDirectory(prefix="finn-design-") as name:
        run = _Run(Circuit(Path(name)), values, interval or slowest, depths or {})
        for layer in layers:
            run.add(layer, verilator, folder)
        run.connect()
        return run.result(verilator, _PATIENCE + 4 * slowest, timeout)


@dataclass(frozen=True)
class _Layer:
    sources: LayerSources
    operator: Any
    inputs: list[Stream]
    outputs: list[Stream]

    @classmethod
    def of(cls, model: ModelWrapper, node: Any, operator: Any, sources: LayerSources) -> _Layer:
        return cls(sources, operator, input_streams(model, node, operator), output_streams(node, operator))


class _Run:
    """A circuit that grows by the layers of a design."""

    def __init__(
        self, circuit: Circuit, values: Mapping[str, NDArray[Any]], interval: int, depths: Mapping[str, int]
    ) -> None:
        self.circuit, self.values, self.interval, self.depths = circuit, values, interval, depths
        self.starts: dict[str, tuple[int, int, Stream]] = {}
        self.ends: dict[str, tuple[int, int, Stream]] = {}
        self.shown: list[tuple[Stream, Path]] = []
        self.queued: list[str] = []

    def add(self, layer: _Layer, verilator: Verilator, folder: Path) -> None:
        if layer.sources.backend == "rtl":
            library = verilator.compile(layer.sources, folder, layer.inputs, layer.outputs)
            number = self.circuit.verilog(library, layer.sources, folder)
        else:
            needs, pace = order_of_words(layer.sources, layer.operator, layer.inputs, layer.outputs)
            given, taken = self._with_values(layer.inputs), self._with_values(layer.outputs)
            number, files = self.circuit.replay(given, taken, needs, pace)
            self.shown += zip(layer.inputs, files, strict=True)
        self.starts |= {s.tensor: (number, port, s) for port, s in enumerate(layer.outputs)}
        self.ends |= {s.tensor: (number, port, s) for port, s in enumerate(layer.inputs)}

    def _with_values(self, streams: Sequence[Stream]) -> dict[Stream, NDArray[Any]]:
        return {stream: checked(stream, self.values.get(stream.tensor)) for stream in streams}

    def connect(self) -> None:
        for tensor, (layer, port, stream) in self.ends.items():
            if tensor in self.starts:
                depth = self.depths.get(tensor, UNBOUNDED)
                self.circuit.queue(self.starts[tensor], self.ends[tensor], depth)
                self.queued.append(tensor)
            else:
                given = checked(stream, self.values.get(tensor))
                self.circuit.source(stream, given, layer, port, interval=self.interval)
        for tensor, (layer, port, stream) in self.starts.items():
            if tensor not in self.ends:
                count = len(checked(stream, self.values.get(tensor)))
                self.shown.append((stream, self.circuit.sink(stream, count, layer, port)))

    def result(self, verilator: Verilator, patience: int, timeout: float | None) -> DesignCheck:
        what = "the simulation of the whole FINN design failed"
        limit = timeout or _BASE_TIMEOUT
        told = self.circuit.run(verilator.simulator(), what, patience=patience, timeout=limit)
        codes = mismatches = vectors = 0
        first = None
        for stream, file in self.shown:
            expected = self.values[stream.tensor]
            rows = read_words(file, stream)
            if stream.tensor in self.starts and stream.tensor in self.ends:
                rows = rows[: stream.words * len(expected)]  # frames of padding run ahead of the next vector
            count, difference = stream.differences(rows, expected)
            codes, mismatches, vectors = codes + expected.size, mismatches + count, len(expected)
            first = first or difference
        images = told.images
        stands = len(images) < vectors
        held = dict(zip(self.queued, told.queues, strict=True))
        full = [name for name, (_, now) in held.items() if stands and now >= self.depths.get(name, UNBOUNDED)]
        return DesignCheck(
            vectors,
            codes,
            mismatches,
            first,
            images[0] if images else None,
            images[-1] - images[-2] if len(images) > 1 and not stands else None,
            {name: most + 1 for name, (most, _) in held.items()},
            tuple(full),
        )


def order_of_words(
    sources: LayerSources, operator: Any, inputs: Sequence[Stream], outputs: Sequence[Stream]
) -> tuple[list[IntArray], int]:
    """In which order an HLS layer takes and gives its words, as FINN's C++ does.

    Returns:
        Of each output, shape (words of a vector, inputs): how many words of the vector each word needs of
        each input; and the cycles between two words of an output.

    Raises UnsupportedError for a layer whose order is not known here.
    """
    kind = sources.kind.removesuffix("_hls")
    if kind == "StreamingConcat":
        return [_concatenated([stream.shape[-1] // stream.lanes for stream in inputs], outputs[0].words)], 1
    if kind == "StreamingSplit":
        return _split([stream.shape[-1] // stream.lanes for stream in outputs], outputs), 1
    every = [np.arange(1, stream.words + 1)[:, None] for stream in outputs]
    if kind == "DuplicateStreams":
        return every, 1
    if kind.startswith("Elementwise") and all(stream.words == outputs[0].words for stream in inputs):
        return [np.repeat(every[0], len(inputs), axis=1)], 1
    if kind in ("Pool", "VVAU"):
        return [every[0] * (inputs[0].words // outputs[0].words)], 1
    if kind == "GlobalAccPool":
        return [np.full((outputs[0].words, 1), inputs[0].words)], 1
    if kind == "UpsampleNearestNeighbour":
        return [_repeated(inputs[0], outputs[0])], 1
    if kind == "FMPadding_Pixel":
        return [_spread(operator.get_nodeattr("Stride"), outputs[0])], 1
    if kind == "MVAU":
        steps = operator.get_nodeattr("MW") // operator.get_nodeattr("SIMD")
        folds = operator.get_nodeattr("MH") // operator.get_nodeattr("PE")
        return [((every[0] - 1) // folds + 1) * steps], steps
    raise UnsupportedError(
        f"the order of words of layer '{sources.layer}' ({sources.kind}) is not known: "
        "only Vivado's simulator shows the whole design"
    )


def _concatenated(words: Sequence[int], total: int) -> IntArray:
    """Each pixel's words of one input after the other's."""
    pixel = np.concatenate(
        [
            np.array([[*words[:i], done + 1, *(0 for _ in words[i + 1 :])] for done in range(count)])
            for i, count in enumerate(words)
        ]
    )
    pixels = np.arange(total // sum(words))[:, None, None] * np.array(words)
    needs: IntArray = (pixels + pixel).reshape(-1, len(words))
    return needs


def _repeated(given: Stream, taken: Stream) -> IntArray:
    """Rows and columns of an image that come several times."""
    height, width, channels = given.shape
    parts = channels // given.lanes
    row, column = np.arange(taken.shape[0])[:, None, None], np.arange(taken.shape[1])[:, None]
    pixel = row // (taken.shape[0] // height) * width + column // (taken.shape[1] // width)
    needs: IntArray = np.maximum.accumulate((pixel * parts + np.arange(1, parts + 1)).reshape(-1))[:, None]
    return needs


def _spread(strides: Sequence[int], taken: Stream) -> IntArray:
    """Pixels of an image with zeros between them."""
    height, width, channels = taken.shape
    is_read = np.zeros((height, width, channels // taken.lanes), dtype=np.int64)
    is_read[:: strides[0], :: strides[1]] = 1
    needs: IntArray = np.cumsum(is_read.reshape(-1))[:, None]
    return needs


def _split(words: Sequence[int], outputs: Sequence[Stream]) -> list[IntArray]:
    """Each pixel's words to one output after the other."""
    starts = np.cumsum([0, *words])
    return [
        (np.arange(stream.words) // count * starts[-1] + start + np.arange(stream.words) % count + 1)[:, None]
        for stream, count, start in zip(outputs, words, starts, strict=False)
    ]
