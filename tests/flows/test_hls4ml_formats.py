"""Minifloats of every size through the flow, sums beyond 64 bits, faults by their layer, what is too wide."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hls4ml_project import (
    BOARD,
    designed,
    first_difference,
    middle_folding,
    planned,
    random_inputs,
)
from listed_zoo import ListedZoo
from weight_files import write_weights

from qhw.errors import UnsupportedError
from qhw.flows.base import Project
from qhw.flows.hls4ml import Hls4mlFlow
from qhw.flows.hls4ml.project import read_description
from qhw.formats import TableFormat, parse_format
from qhw.formats.integer import Integer
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph

pytest.importorskip("hls4ml")

EVERY_MINIFLOAT = tuple(f"e{e}m{width - 1 - e}" for width in range(3, 9) for e in range(1, width))


def table(text: str) -> TableFormat:
    format = parse_format(text)
    assert isinstance(format, TableFormat)
    return format


def every_minifloat() -> ExactGraph:
    """A matrix product in each format, its bias in 16 bits, rounded back to the format."""
    zoo = ListedZoo("every_minifloat", 14)
    b = zoo.builder
    for text in EVERY_MINIFLOAT:
        format = table(text)
        exponent = format.exponent
        x = b.input(f"x_{text}", (6,), format, exponent)
        weight = zoo.listed(f"w_{text}", (6, 3), text, exponent - 2)
        product = b.matmul(f"fc_{text}", x, weight, zoo.constant(f"b_{text}", 3, bits=16, exponent=-9))
        zoo.rounded(f"q_{text}", product, text, exponent)
    return zoo.finish()


@pytest.mark.slow
def test_every_minifloat_of_three_to_eight_bits(tmp_path: Path) -> None:
    """Sums of up to 254 bits: their biases and results are exact, though the bridge is float64."""
    graph, flow = every_minifloat(), Hls4mlFlow("io_parallel")
    wide = {name for name, kind in graph.tensors.items() if kind.format.width > 64}
    assert wide >= {"fc_e5m2", "fc_e6m1", "fc_e7m0"}
    project = flow.write(designed(flow, graph, middle_folding(flow, graph, 0.5)), tmp_path / "project")
    inputs = random_inputs(graph, 150)
    got = flow.simulate(project, inputs, trace="all")
    expected = interpret(graph, inputs, keep="all")
    assert first_difference(graph, expected, got) is None
    assert set(graph.outputs) <= set(got)
    assert len(EVERY_MINIFLOAT) == 27
    assert np.median([len(np.unique(got[name])) for name in graph.outputs]) >= 4


def small_graph() -> ExactGraph:
    """A k-hot convolution, one in minifloats, and a matrix product with powers of two."""
    zoo = ListedZoo("small_codes", 15)
    b = zoo.builder
    x = b.input("x", (2, 6, 6), Integer(8, False), -8)
    first = b.requant("act1", zoo.filters("conv1", x, 4, (3, 3), "khot<8,2>"), table("e5m2"), -20)
    second = zoo.filters("conv2", first, 3, (2, 2), "e5m2", strides=(2, 2))
    flat = b.reshape("flat", b.requant("act2", second, table("e3m2"), 26), (12,))
    zoo.end(b.matmul("fc", flat, zoo.listed("fw", (12, 5), "pow2<4>"), zoo.constant("fb", 5, exponent=24)))
    return zoo.finish()


GRAPH = small_graph()
INPUTS = random_inputs(GRAPH, 40)
FLOW = Hls4mlFlow()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = FLOW.write(
        designed(FLOW, GRAPH, {"conv1": 4, "fc": 3}), tmp_path_factory.mktemp("built") / "project"
    )
    FLOW.compile(project)
    return project


@pytest.mark.slow
def test_all_layers_have_the_graphs_codes(built: Project) -> None:
    got = FLOW.simulate(built, INPUTS, trace="all")
    assert set(got) == {"act1", "act2", "fc"}
    assert first_difference(GRAPH, interpret(GRAPH, INPUTS, keep="all"), got) is None
    assert len(np.unique(got["fc"])) > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "tensor", "bit"), [("l_conv1", "act1", 1), ("l_conv2", "act2", 128), ("l_fc", "fc", 1)]
)
def test_one_flipped_bit_of_a_weights_code_names_its_layer(
    built: Project, layer: str, tensor: str, bit: int
) -> None:
    """The sum of conv2 has more bits than the bridge carries; it ends in act2, in the same layer.

    There the sign of the largest weight is flipped: act2 has few bits, and need not show a smaller change.
    """
    description = read_description(built.folder)
    lines = (built.folder / "firmware" / f"{description.name}.cpp").read_text().splitlines()
    call = next(line for line in lines if line.endswith(f"// {layer}"))
    name = next(word for word in call.replace("(", ", ").split(", ") if word.startswith("weight"))
    path = built.folder / "firmware" / "weights" / f"{name}.txt"
    before = path.read_text()
    codes = [int(float(code)) for code in before.split(", ")]
    largest = max(range(len(codes)), key=lambda i: codes[i] % bit)
    codes[largest] ^= bit
    write_weights(path, ", ".join(map(str, codes)))
    try:
        got = FLOW.simulate(built, INPUTS, trace="all")
    finally:
        write_weights(path, before)
    assert first_difference(GRAPH, interpret(GRAPH, INPUTS, keep="all"), got) == tensor


def test_a_product_and_its_rounding_are_one_layer() -> None:
    """So that wide sums stay inside, and a fault in them shows in the layer's own result."""
    layers = {layer.name: layer for layer in planned(FLOW, GRAPH, {}).layers}
    assert [name for name, layer in layers.items() if layer.kind == "QhwLayer"] == [
        "l_conv1",
        "l_conv2",
        "l_fc",
    ]
    types = layers["l_conv2"].attributes["cpp_types"]
    width = GRAPH.tensors["conv2"].format.width
    assert width > 53
    assert types["accum_t"].startswith(f"ap_fixed<{width}, ")
    assert types["w_format"] == "qhw::minifloat<5, 2, true>"
    assert layers["l_conv1"].attributes["cpp_types"]["w_format"] == "qhw::khot<8, 2, false>"


def too_wide_sum(zoo: ListedZoo) -> None:
    b = zoo.builder
    x = b.input("x", (4,), parse_format("e8m7"), 0)
    tensor = b.matmul("first", x, zoo.listed("w", (4, 3), "e8m7"))
    largest = b.constant("largest", np.full(3, table("e8m7").mantissa_high), table("e8m7"))
    for name in ("second", "third", "fourth"):
        tensor = b.affine(name, tensor, largest)
    zoo.rounded("result", tensor, "e4m3", 900)


def too_wide_result(zoo: ListedZoo) -> None:
    x = zoo.builder.input("x", (4,), parse_format("e5m2"), 0)
    zoo.end(zoo.builder.matmul("logits", x, zoo.listed("w", (4, 3), "e5m2")))


def too_many_thresholds(zoo: ListedZoo) -> None:
    x = zoo.builder.input("x", (4,), Integer(12), 0)
    zoo.rounded("hot", x, "khot<10,3>", 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (too_wide_sum, r"'third'.* takes \d{4} bits\nAllowed: up to 1024 bits .*\nTo do: quantise"),
        (too_wide_result, r"'logits' has 6\d bits\nAllowed: up to 53 bits.*\nTo do: end the network in"),
        (too_many_thresholds, r"'hot': the hls4ml flow rounds to khot<10,3> by thresholds"),
    ],
)
def test_what_is_too_wide_is_refused_by_name(make: Callable[[ListedZoo], None], words: str) -> None:
    zoo = ListedZoo("refused")
    make(zoo)
    with pytest.raises(UnsupportedError) as refusal:
        Hls4mlFlow().prepare(zoo.finish(), BOARD)
    assert re.search(words, str(refusal.value))
