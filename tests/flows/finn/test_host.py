"""The script for the board, which knows nothing of qhw, against qhw's interpreter and encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from finn_projects import small_graph, small_project
from hypothesis import given
from hypothesis import strategies as st

from qhw.flows.base import Project
from qhw.flows.finn import host
from qhw.flows.finn.driver import host_facts
from qhw.flows.finn.emission import emit
from qhw.flows.finn.prepare import prepared
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Overflow, Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.encode import decode_output, encode_input
from qhw.graph.interpreter import interpret
from qhw.graph.ir import (
    ExactGraph,
    Exponent,
    InputEncoding,
    InputStep,
    OutputScale,
    Requant,
    Threshold,
    Transpose,
)
from qhw.graph.tensors import TensorType

pytest.importorskip("finn")

Tail = Callable[[GraphBuilder, str], str]
PIXEL = Integer(8, False)
RNG = np.random.default_rng(4)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return small_project(tmp_path_factory.mktemp("small") / "project")


def per_channel(b: GraphBuilder, x: str) -> str:
    """A batch norm whose constants have exponents of their own, rounded to one exponent per channel."""
    m = b.constant("m", RNG.integers(-100, 100, 6), Integer(8), Exponent((-3, -9, -5, -4, -7, -6), 0))
    o = b.constant("o", RNG.integers(-100, 100, 6), Integer(8), Exponent((-1, -2, -3, -4, -5, -6), 0))
    normed = b.affine("norm", x, m, o)
    return b.requant("q", normed, Integer(14), Exponent((-6, -2, 0, -12, -4, -3), 0), rounding=Rounding.RND)


def wide(b: GraphBuilder, x: str) -> str:
    """Numbers beyond int64, and back."""
    m = b.constant("m", RNG.integers(1 << 49, 1 << 50, 6), Integer(52), -40)
    o = b.constant("o", RNG.integers(-(1 << 60), 1 << 60, 6), Integer(62), -70)
    normed = b.affine("norm", x, m, o)
    return b.requant("q", normed, Integer(20), -5, rounding=Rounding.RND_INF, overflow=Overflow.WRAP)


def looked_up(b: GraphBuilder, x: str) -> str:
    """A table per channel behind a rounding, in another shape."""
    x = b.requant("q", x, Integer(9), 0, rounding=Rounding.TRN, overflow=Overflow.SAT_SYM)
    entries = b.constant("entries", RNG.integers(-9999, 9999, (6, 512)), Integer(15), -3)
    x = b.table("t", x, entries, -256, Integer(15), -3)
    return b.reshape("r", x, (2, 3))


def counted(b: GraphBuilder, x: str) -> str:
    """Thresholds per channel with wide levels, and their axes turned."""
    steps = np.sort(RNG.choice(np.arange(-500, 500), (6, 9), replace=False), axis=1)
    t = b.constant("steps", steps, Integer(11))
    v = b.constant("levels", RNG.integers(-9999, 9999, (6, 10)), Integer(15))
    x = b.threshold("q", x, t, v, Integer(15))
    return b.transpose("turned", b.reshape("r", x, (3, 2)), (1, 0))


def nothing(b: GraphBuilder, x: str) -> str:
    """The stream gives the network's output."""
    return b.requant("q", x, Integer(6), -2)


TAILS: Mapping[str, Tail] = {t.__name__: t for t in (per_channel, wide, looked_up, counted, nothing)}


def network(tail: Tail, encoding: InputEncoding | None = None, pixel: Integer = PIXEL) -> ExactGraph:
    """A matrix with a bias, and a tail behind it; outputs have a scale of their own."""
    b = GraphBuilder("net")
    x = b.input("x", (8,), pixel, -4, encoding)
    weight = b.constant("w", RNG.integers(-8, 8, (8, 6)), Integer(4), -3)
    bias = b.constant("b", RNG.integers(-128, 128, (6,)), Integer(8), -7)
    end = tail(b, b.matmul("fc", x, weight, bias))
    b.output(end, OutputScale((0.3, 0.7, 1.1), (0.5,), 1) if len(b.type(end).shape) == 2 else None)
    return b.finish()


def host_of(graph: ExactGraph, folder: Path, type: str = "UINT8") -> tuple[host.Host, Any]:
    """The host of a graph, as its files say, and what FINN would stream."""
    emitted = emit(prepared(graph))
    facts = host_facts(emitted, type)
    (folder / "host.json").write_text(json.dumps(facts))
    return host.Host(folder), emitted


@pytest.mark.parametrize("tail", TAILS)
def test_what_is_behind_the_stream_is_what_the_graph_gives(tail: str, tmp_path: Path) -> None:
    graph = network(TAILS[tail])
    board, emitted = host_of(graph, tmp_path)
    x = {"x": RNG.integers(0, 256, (64, 8))}
    expected = interpret(graph, x)[graph.outputs[0]]
    streamed = interpret(emitted.graph, x, keep={emitted.output})[emitted.output]
    results = emitted.carried[emitted.output].integers(streamed)
    assert len(np.unique(expected)) > 10
    assert np.array_equal(board.mantissas(results), expected)
    assert np.array_equal(board.decode(results), decode_output(graph, graph.outputs[0], expected))


def test_images_that_leave_the_network(tmp_path: Path) -> None:
    b = GraphBuilder("net")
    x = b.input("x", (2, 5, 6), PIXEL, -4)
    summed = b.conv("conv", x, b.constant("w", RNG.integers(-8, 8, (3, 2, 2, 3)), Integer(4), -3))
    graph = b.finish([b.requant("q", summed, Integer(12), -5, rounding=Rounding.RND)])
    board, emitted = host_of(graph, tmp_path)
    images = {"x": RNG.integers(0, 256, (9, 2, 5, 6))}
    assert np.array_equal(board.encode(images["x"]), emitted.carried["x"].integers(images["x"]))
    streamed = interpret(emitted.graph, images, keep={emitted.output})[emitted.output]
    results = emitted.carried[emitted.output].integers(streamed)
    assert results.shape == (9, 4, 4, 3)
    assert np.array_equal(board.mantissas(results), interpret(graph, images)["q"])


def test_a_project_says_all_that_its_host_needs(small: Project) -> None:
    """Only the files of the project take part: samples to the vectors' inputs, vectors' outputs to values."""
    vectors = small.folder / "vectors"
    inputs, results = np.load(vectors / "input.npy"), np.load(vectors / "expected_output.npy")
    samples = np.moveaxis(inputs, -1, 1).astype(np.uint8)
    board, graph = host.Host(small.folder / "driver"), small_graph()
    expected = interpret(graph, {"image": samples.astype(np.int64)})["result"]
    assert emit(prepared(graph)).host
    assert np.array_equal(board.encode(samples), inputs)
    assert board.encode(samples).dtype == np.uint8
    assert np.array_equal(board.decode(results), decode_output(graph, "result", expected))


STEPS = (
    InputStep("Mul", (None, (2.0,))),
    InputStep("Sub", (None, ((0.1, 0.2) * 4,))),
    InputStep("Relu", (None,)),
)


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("before", [(), STEPS], ids=["plain", "steps"])
def test_samples_are_encoded_as_qhw_does(rounding: Rounding, before: Any, tmp_path: Path) -> None:
    encoding = InputEncoding(0.37, 3.0, 0, 255, rounding, before=before)
    board, emitted = host_of(network(nothing, encoding, Integer(9)), tmp_path, "INT9")
    ties = (np.arange(-64, 64, dtype=np.float32).reshape(16, 8) / 2) * np.float32(0.37)
    for samples in (ties, RNG.normal(20, 40, (500, 8)).astype(np.float32), RNG.normal(20, 40, (50, 8))):
        expected = emitted.carried["x"].integers(encode_input(emitted.graph, "x", samples))
        assert np.array_equal(board.encode(samples), expected)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros((2, 7)), r"\(N, 8\) is needed"),
        (np.full((1, 8), np.nan), "NaN"),
        (np.full((1, 8), 300), "integers from 0 to 255"),
        (np.full((1, 8), 0.5), "integers from 0 to 255"),
    ],
)
def test_samples_that_the_network_does_not_take(samples: IntArray, words: str, tmp_path: Path) -> None:
    board, _ = host_of(network(nothing), tmp_path)
    with pytest.raises(ValueError, match=words):
        board.encode(samples)


def test_an_operation_that_the_script_does_not_compute(tmp_path: Path) -> None:
    encoding = InputEncoding(0.5, 0.0, 0, 255, Rounding.RND, before=(InputStep("Sigmoid", (None,)),))
    board, _ = host_of(network(nothing, encoding), tmp_path)
    with pytest.raises(ValueError, match="does not compute Sigmoid"):
        board.encode(np.zeros((1, 8)))


@pytest.mark.parametrize("channels", [1, 3])
def test_other_steps(channels: int) -> None:
    """Operations that end few networks, each against the graph's own."""
    rng = np.random.default_rng(6)
    thresholds = np.sort(rng.choice(200, (channels, 9), replace=False) - 100, axis=1)
    levels = rng.integers(-5, 5, (channels, 10))
    x, kind = rng.integers(-120, 120, (7, 3, 4, 2)), TensorType((3, 4, 2), Integer(8), Exponent((0,)))
    counted = Threshold("t", ("x", "thresholds", "levels"), "t").run(
        [x, thresholds[None], levels[None]], [kind], kind
    )
    step = {"thresholds": thresholds.tolist(), "levels": levels.tolist()}
    assert np.array_equal(host._STEPS["Threshold"](x, step), counted)
    moved = Transpose("m", ("x",), "m", perm=(2, 0, 1)).run([x], [kind], kind)
    assert np.array_equal(host._STEPS["Transpose"](x, {"axes": [2, 0, 1]}), moved)


@given(
    st.sampled_from((300, 1 << 40, (1 << 62) - 1, 1 << 80)).flatmap(
        lambda most: st.lists(st.integers(-most, most), min_size=1, max_size=12)
    ),
    st.integers(-20, 90),
    st.sampled_from(Rounding),
    st.sampled_from(Overflow),
    st.integers(2, 70),
    st.booleans(),
)
def test_rounding_and_overflow(
    numbers: list[int], bits: int, rounding: Rounding, overflow: Overflow, width: int, signed: bool
) -> None:
    """Every mode, below and beyond 63 bits, against the graph's own operation."""
    format = Integer(width, signed or overflow is Overflow.WRAP_SM)
    x = host._integers([numbers])
    out = TensorType((len(numbers),), format, Exponent((bits,)))
    node = Requant("q", ("x",), "q", rounding=rounding, overflow=overflow)
    expected = node.run([x], [TensorType((len(numbers),), Integer(128), Exponent((0,)))], out)
    low, high = format.mantissa_low, format.mantissa_high
    step = {
        "dropped_bits": bits,
        "rounding": rounding.value,
        "overflow": overflow.value,
        "low": low + (overflow is Overflow.SAT_SYM and low < 0),
        "high": high,
    }
    assert [int(n) for n in host._requant(x, step)[0]] == [int(n) for n in expected[0]]


class Memory(np.ndarray):
    """A buffer that a board's DMA engines read and write."""

    device_address = 0

    def flush(self) -> None:
        """Nothing is cached."""

    invalidate = flush


class Overlay:
    """Stands in for PYNQ's overlay, which loads a bitstream onto a board."""

    def __init__(self, bitfile: str, **_: object) -> None:
        self.idma0 = self.odma0 = self.device = None


def pynq() -> dict[str, ModuleType]:
    """As much of the package on the board's image as FINN's driver needs."""
    module, ps = ModuleType("pynq"), ModuleType("pynq.ps")

    def allocate(shape: tuple[int, ...], dtype: Any, **_: object) -> Memory:
        return np.zeros(shape, dtype).view(Memory)

    vars(module).update(Overlay=Overlay, Bitstream=object, allocate=allocate)
    vars(ps).update(Clocks=SimpleNamespace(fclk0_mhz=0))
    return {"pynq": module, "pynq.ps": ps}


def test_finns_own_driver_packs_the_streams(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ports that ``settings.json`` states are the network's: what is packed unpacks to the vectors."""
    pytest.importorskip("finn_plus_driver")
    for name, module in pynq().items():
        monkeypatch.setitem(sys.modules, name, module)
    from finn_plus_driver.overlays import dma
    from finn_plus_driver.packing import finnpy_to_packed_bytearray, packed_bytearray_to_finnpy

    given, expected = (np.load(small.folder / "vectors" / f"{n}.npy") for n in ("input", "expected_output"))
    batches = []

    def accelerated(driver: Any, asynch: bool = False, batch_size: int | None = None) -> None:
        """What the hardware does to the packed buffers."""
        (read,), (written,) = driver.ibuf_packed_device, driver.obuf_packed_device
        modes = {"reverse_endian": True, "reverse_inner": True}
        seen = packed_bytearray_to_finnpy(read, driver.idt(), driver.ishape_folded(), **modes)
        batches.append(seen.reshape(driver.ishape_normal()))
        answers = expected[4 * len(batches) - 4 : 4 * len(batches)].reshape(driver.oshape_folded())
        written[:] = finnpy_to_packed_bytearray(answers, driver.odt(), **modes)

    monkeypatch.setattr(dma.FINNDMAOverlay, "execute_on_buffers", accelerated)
    monkeypatch.setattr(dma, "get_clk_wiz_params_from_hwh", lambda bitfile: {})
    board, settings = host.Host(small.folder / "driver"), small.folder / "driver" / "settings.json"
    values = host._run(board, np.moveaxis(given, -1, 1), "accel.bit", str(settings), 4)
    assert np.array_equal(np.concatenate(batches), given)
    assert np.array_equal(values, board.decode(expected))


DRIVER = '''
"""Stands in for finn-plus-driver: a board that knows the answers of a project's vectors."""
import numpy as np

class Overlay:
    def __init__(self, bitfile, *, platform, io_shape_dict, batch_size, driver_type, **others):
        assert bitfile == "accel.bit" and platform == "zynq-iodma" and driver_type == "FINNDMAOverlay"
        self.shape = (batch_size, *io_shape_dict["ishape_normal"][0][1:])
        self.out = io_shape_dict["oshape_normal"]
        self.known = np.load(r"{vectors}/input.npy"), np.load(r"{vectors}/expected_output.npy")

    def execute(self, given):
        assert given.shape == self.shape and given.dtype == np.uint8
        places = [[i for i, x in enumerate(self.known[0]) if np.array_equal(x, one)] for one in given]
        padding = np.zeros(self.out[0][1:], np.float32)
        return np.stack([self.known[1][p[0]] if p else padding for p in places])

def get_driver_class(name):
    return Overlay
'''


def test_the_script_runs_samples_batch_by_batch(small: Project, tmp_path: Path) -> None:
    """In an interpreter of its own, with FINN's settings, on a number of samples that no batch divides."""
    vectors = small.folder / "vectors"
    (tmp_path / "finn_plus_driver.py").write_text(DRIVER.replace("{vectors}", str(vectors)))
    inputs, results = np.load(vectors / "input.npy"), np.load(vectors / "expected_output.npy")
    np.save(tmp_path / "samples.npy", np.moveaxis(inputs, -1, 1).astype(np.float32))
    script = small.folder / "driver" / "host.py"
    words = ["samples.npy", "values.npy", "--bitfile", "accel.bit", "--batch", "3"]
    subprocess.run(
        [sys.executable, str(script), *words], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, check=True
    )
    assert len(inputs) % 3
    assert np.array_equal(np.load(tmp_path / "values.npy"), host.Host(script.parent).decode(results))
