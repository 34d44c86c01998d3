"""What the driver on the board reads and computes, against qhw's own encoder, interpreter and decoder."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qhw.formats import parse_format
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Rounding
from qhw.formats.table import TableFormat
from qhw.graph.builder import GraphBuilder
from qhw.graph.encode import decode_output, encode_input
from qhw.graph.ir import ExactGraph, InputEncoding, InputStep, OutputScale
from qhw.zynq import driver
from qhw.zynq.facts import driver_facts, step_thresholds
from qhw.zynq.folder import write_script
from qhw.zynq.layout import DmaTensor

RNG = np.random.default_rng(5)


def table_format(text: str) -> TableFormat:
    format = parse_format(text)
    assert isinstance(format, TableFormat)
    return format


def end_of(graph: ExactGraph, name: str, order: IntArray, lanes: int = 1) -> DmaTensor:
    kind = graph.tensors[name]
    format = kind.format if isinstance(kind.format, TableFormat) else None
    signed = format is None and kind.format.mantissa_low < 0
    return DmaTensor(name, kind.shape, order, lanes, kind.format.width, signed, format)


def network(graph: ExactGraph, orders: dict[str, IntArray], folder: Path) -> driver.Network:
    inputs = [end_of(graph, name, orders[name]) for name in graph.inputs]
    outputs = [end_of(graph, name, orders[name]) for name in graph.outputs]
    facts = driver_facts(
        graph, inputs, outputs, identity=b"qhw12345", registers="accelerator", clock_mhz=100.0
    )
    (folder / "accelerator.json").write_text(json.dumps(facts))
    return driver.Network(folder)


@pytest.mark.parametrize(
    "text", ["e4m3", "e3m2fn", "e2m1", "pow2<4>", "khot<6,2>", "ternary", "binary", "e5m8", "pow2<6>"]
)
def test_where_a_number_of_a_format_begins(text: str) -> None:
    """The float64 in front of each threshold rounds to the number below it, the threshold to its own."""
    format = table_format(text)
    found = step_thresholds(format)
    numbers = format.numbers
    assert np.array_equal(format.to_mantissa(found), numbers[1:])
    assert np.array_equal(format.to_mantissa(np.nextafter(found, -np.inf)), numbers[:-1])


@pytest.mark.parametrize("text", ["e4m3", "khot<6,2>", "int7", "uint3"])
def test_samples_and_values(text: str, tmp_path: Path) -> None:
    """Formats that travel as codes and integers, steps in front of the quantizer, any order of elements."""
    format = parse_format(text)
    listed = format if isinstance(format, TableFormat) else None
    low, high = (0, 7) if text == "uint3" else (format.mantissa_low, format.mantissa_high)
    steps = (InputStep("Sub", (None, (0.25,))), InputStep("Mul", (None, (3.0,))))
    encoding = InputEncoding(0.5, 0.0, low, high, Rounding.RND_CONV, format=listed, before=steps)
    b = GraphBuilder("net")
    exponent = 0 if listed is None else listed.exponent
    x = b.input("x", (2, 3, 4), format, exponent, encoding)
    y = b.max_pool("y", x, (1, 2), (1, 2))
    b.output(y, OutputScale((0.3, 0.7), (1.5,), 0))
    graph = b.finish()
    orders = {"x": RNG.permutation(24), "y": np.arange(12).reshape(2, 3, 2).transpose(1, 2, 0).reshape(-1)}
    board = network(graph, orders, tmp_path)
    samples = RNG.normal(0, high / 2 * 2.0**exponent, (50, 2, 3, 4)).astype(np.float32)
    mantissas = encode_input(graph, "x", samples)
    expected = mantissas if listed is None else listed.code_of(mantissas)
    codes = board.encode(samples)
    assert np.array_equal(codes["x"], expected)
    (memory,) = board.pack(codes)
    assert np.array_equal(memory[:, :24], expected.reshape(50, 24)[:, orders["x"]])
    results = mantissas[:, :, :, ::2]
    sent = results if listed is None else listed.code_of(results)
    end = end_of(graph, "y", orders["y"])
    came = np.zeros((50, end.image_elements), dtype=board.outputs["y"]["dtype"])
    came[:, :12] = sent.reshape(50, 12)[:, orders["y"]]
    found = board.unpack([came])
    assert np.array_equal(found["y"], sent)
    assert np.array_equal(board.decode(found)["y"], decode_output(graph, "y", results))


def test_a_code_that_is_no_number(tmp_path: Path) -> None:
    b = GraphBuilder("net")
    x = b.input("x", (4,), table_format("e4m3fn"), -9)
    graph = b.finish([b.reshape("y", x, (4,))])
    board = network(graph, {"x": np.arange(4), "y": np.arange(4)}, tmp_path)
    with pytest.raises(ValueError, match="the output 'y' holds the code 127, which is no number"):
        board.decode({"y": np.full((1, 4), 0x7F)})


def test_several_inputs(tmp_path: Path) -> None:
    b = GraphBuilder("net")
    ends = [b.requant(f"y{i}", b.input(f"x{i}", (4,), Integer(8)), Integer(4), 4) for i in range(2)]
    graph = b.finish(ends)
    board = network(graph, dict.fromkeys(("x0", "x1", "y0", "y1"), np.arange(4)), tmp_path)
    x = RNG.integers(-128, 128, (3, 4))
    for given, words in (
        (x, "the network has inputs x0, x1: give a dict of arrays"),
        ({"x0": x}, "arrays are given for x0: x0, x1 are needed"),
        ({"x0": x, "x1": x[:2]}, r"the inputs have \[2, 3\] samples: as many of each are needed"),
        ({"x0": x, "x1": x + 1000}, "integers from -128 to 127"),
    ):
        with pytest.raises(ValueError, match=words):
            board.encode(given)
    first, second = board.pack(board.encode({"x1": -1 - x, "x0": x}))
    assert np.array_equal(first[:, :4], x)
    assert np.array_equal(second[:, :4], -1 - x)


def test_the_scripts_need_nothing_of_this_package(tmp_path: Path) -> None:
    """In an interpreter that can import NumPy alone, beside each other."""
    for name in ("driver", "encoding"):
        write_script(str(importlib.import_module(f"qhw.zynq.{name}").__file__), tmp_path)
    others = "{n.split('.')[0] for n in sys.modules} & {'qhw', 'torch', 'onnx', 'scipy'}"
    code = f"import sys, driver; assert not {others}"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={})
