"""A format is one class: formats that only this file knows, from their text to the C-simulation's codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from qhw.boards import load_board
from qhw.cost import estimate
from qhw.cost.pricing.hardware import Hardware
from qhw.errors import InputError, UnsupportedError
from qhw.flows.base import list_flows, load_flow
from qhw.flows.hls4ml import Hls4mlFlow
from qhw.flows.hls4ml.operands import operand_policy
from qhw.formats import Format, Integer, Rounding, TableFormat, parse_format
from qhw.formats.notation import Notation, Reader
from qhw.formats.operand import MultiplierOperand
from qhw.formats.table import Listing
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.serialize import graph_hash, load_graph, save_graph
from qhw.sim.fast import FastExecutor

BOARD = load_board("ultra96")


def posit_value(code: int, width: int, es: int) -> Fraction:
    """What a posit's code stands for, by its definition; not for NaR (Posit Standard 2022, section 3)."""
    if code == 0:
        return Fraction(0)
    if code >> (width - 1):
        return -posit_value((1 << width) - code, width, es)
    bits = f"{code:0{width}b}"[1:]
    run = len(bits) - len(bits.lstrip(bits[0]))
    regime = run - 1 if bits[0] == "1" else -run
    rest = bits[run + 1 :]
    exponent = int(rest[:es].ljust(es, "0") or "0", 2)
    fraction = rest[es:]
    significand = 1 + Fraction(int(fraction or "0", 2), 1 << len(fraction))
    return significand * Fraction(2) ** (regime * 2**es + exponent)


@dataclass(frozen=True, eq=False)
class Posit(TableFormat):
    """Posits: ``posit<8,0>``; rounded to the nearest by true distance, and saturating."""

    bits: int
    es: int

    rounding = Rounding.RND_CONV

    @property
    def width(self) -> int:
        return self.bits

    @property
    def exponent(self) -> int:
        return -(self.bits - 2) << self.es

    def _listing(self) -> Listing:
        nar = 1 << (self.bits - 1)
        codes = range(1 << self.bits)
        values = [
            0 if c == nar else posit_value(c, self.bits, self.es) / Fraction(2) ** self.exponent
            for c in codes
        ]
        assert all(Fraction(value).denominator == 1 for value in values)
        return Listing(np.array([int(value) for value in values]), special={nar: np.nan}, nan=(nar, nar))

    def operand(self) -> MultiplierOperand:
        return MultiplierOperand.looked_up(self.width, self.mantissa_low, self.mantissa_high)

    @classmethod
    def notation(cls) -> Notation:
        rule = '"posit<" width "," exponent bits ">"'
        return Notation("posit", r"posit(?!\w)", rule, ("posit<8,0>",), ("posit",))

    @classmethod
    def read(cls, start: re.Match[str], text: Reader) -> Posit:
        text.expect("<")
        width = text.number("the width")
        text.expect(",")
        es = text.number("the exponent bits")
        text.expect(">")
        return cls(width, es)

    def __str__(self) -> str:
        return f"posit<{self.bits},{self.es}>"


@dataclass(frozen=True, eq=False)
class Odd(TableFormat):
    """Odd numbers, a mid-rise quantizer's: a code of two's complement with a 1 behind it, which is a wire."""

    bits: int

    rounding = Rounding.RND

    @property
    def width(self) -> int:
        return self.bits

    @property
    def exponent(self) -> int:
        return 0

    def _listing(self) -> Listing:
        half = 1 << (self.bits - 1)
        codes = np.arange(2 * half)
        return Listing(2 * ((codes ^ half) - half) + 1)

    def operand(self) -> MultiplierOperand:
        width = self.bits + 1
        return MultiplierOperand("integer", width, stored_bits=width, significant=width)

    @classmethod
    def notation(cls) -> Notation:
        return Notation("odd", r"odd(\d)(?!\d)", '"odd" width', ("odd4",), ("odd",))

    @classmethod
    def read(cls, start: re.Match[str], text: Reader) -> Odd:
        return cls(int(start[1]))

    def __str__(self) -> str:
        return f"odd{self.bits}"


@dataclass(frozen=True, eq=False)
class Unpriced(Odd):
    """The same numbers, which no unit multiplies by."""

    def operand(self) -> MultiplierOperand:
        raise UnsupportedError(f"No unit multiplies by {self}", allowed="odd4, int5")

    @classmethod
    def notation(cls) -> Notation:
        return Notation("unpriced", r"unpriced(\d)(?!\d)", '"unpriced" width', ("unpriced4",), ("unpriced",))

    def __str__(self) -> str:
        return f"unpriced{self.bits}"


TEXTS = ("posit<8,0>", "posit<6,1>", "odd4")


def table(text: str) -> TableFormat:
    format = parse_format(text)
    assert isinstance(format, TableFormat)
    return format


def network(text: str) -> ExactGraph:
    """Convolutions and a matrix product whose weights and activations are in a format, rounded back to it."""
    format, builder, rng = table(text), GraphBuilder("new_format"), np.random.default_rng(5)

    def weights(name: str, *shape: int) -> str:
        return builder.constant(name, rng.choice(format.numbers, shape), format, format.exponent)

    rounded = {"rounding": format.rounding}
    x = builder.input("x", (2, 5, 5), Integer(7), -4)
    first = builder.requant("first", x, format, format.exponent, **rounded)
    total = builder.conv("conv", first, weights("w1", 3, 2, 2, 2), pads=(1, 1, 0, 0))
    inner = builder.requant("inner", total, format, format.exponent + 2, **rounded)
    pooled = builder.max_pool("pool", inner, (2, 2))
    flat = builder.reshape("flat", pooled, (12,))
    result = builder.matmul("fc", flat, weights("w2", 12, 4))
    return builder.finish([builder.requant("result", result, format, format.exponent + 3, **rounded)])


def inputs_of(graph: ExactGraph, samples: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    return {name: rng.integers(-64, 64, (samples, *graph.tensors[name].shape)) for name in graph.inputs}


def test_its_text_is_found_by_its_beginning() -> None:
    assert parse_format("posit<8,0>") == Posit(8, 0)
    assert str(parse_format(" posit< 6 , 1 > ")) == "posit<6,1>"
    assert type(parse_format("unpriced4")) is Unpriced
    assert parse_format("unpriced4") == parse_format("odd4")  # formats are equal when their codes are
    with pytest.raises(InputError, match=r"character 8 is '>' where ',' should be") as refused:
        parse_format("posit<8>")
    assert 'posit     = "posit<" width "," exponent bits ">"' in str(refused.value)
    with pytest.raises(InputError, match="did you mean posit"):
        parse_format("posits<8,0>")


def test_a_posit_has_the_values_of_its_definition() -> None:
    values = dict(enumerate(table("posit<8,0>").enumerate()))
    known = {0x00: 0, 0x01: 2**-6, 0x20: 0.5, 0x40: 1, 0x50: 1.5, 0x60: 2, 0x7E: 32, 0x7F: 64, 0xC0: -1}
    assert {code: values[code] for code in known} == known
    assert np.isnan(values[0x80])


@pytest.mark.parametrize("text", TEXTS)
def test_every_code_comes_back_and_numbers_go_to_the_nearest(text: str) -> None:
    format = table(text)
    codes = np.setdiff1d(format.codes(), list(format.special_codes))
    assert np.array_equal(format.encode(format.decode(codes)), codes)
    numbers = format.decode(codes)
    values = np.random.default_rng(0).normal(0, numbers.max() / 3, 2000)
    distances = np.abs(values[:, np.newaxis] - numbers)
    assert np.array_equal(np.abs(values - format.quantize(values)), distances.min(axis=1))


def products(graph: ExactGraph, inputs: dict[str, np.ndarray], format: TableFormat) -> Iterator[np.ndarray]:
    """The two layers of :func:`network`, in float64, which holds all of their sums."""
    scale = 2.0**format.exponent
    w1, w2 = (graph.constants[name] * scale for name in ("w1", "w2"))
    first = format.quantize(inputs["x"] / 16)
    padded = np.pad(first, ((0, 0), (0, 0), (1, 0), (1, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2, 2), axis=(2, 3))
    inner = format.quantize(np.einsum("nchwij,fcij->nfhw", windows, w1) / 4) * 4
    yield inner
    pooled = np.maximum.reduce([inner[:, :, i : 4 + i : 2, j : 4 + j : 2] for i in (0, 1) for j in (0, 1)])
    yield format.quantize(pooled.reshape(-1, 12) @ w2 / 8) * 8


@pytest.mark.parametrize("text", TEXTS)
def test_a_graph_computes_with_it_and_is_stored(text: str, tmp_path: Path) -> None:
    graph, format = network(text), table(text)
    inputs = inputs_of(graph)
    got = interpret(graph, inputs, keep="all")
    for name, expected in zip(("inner", "result"), products(graph, inputs, format), strict=True):
        assert np.array_equal(np.ldexp(got[name], graph.tensors[name].exponent.values[0]), expected)
        assert len(np.unique(got[name])) > 4
    fast = FastExecutor(graph)(inputs, keep="all")
    assert all(np.array_equal(fast[name], mantissas) for name, mantissas in got.items())
    save_graph(graph, tmp_path)
    again = load_graph(tmp_path)
    assert again.tensors["inner"].format == format
    assert graph_hash(again) == graph_hash(graph)
    assert np.array_equal(interpret(again, inputs)["result"], got["result"])


def test_odd_numbers_cost_what_integers_of_one_bit_more_do() -> None:
    hardware = Hardware.of("ultrascale-plus")
    assert hardware.dots(Integer(8), table("odd4"), 8, 4, 20) == hardware.dots(
        Integer(8), Integer(5), 8, 4, 20
    )


LOOKING_UP = [name for name in list_flows() if name not in ("finn", "mcu")]
"""The flows that take numbers of any format; FINN streams integers."""


def test_finn_refuses_what_is_no_integer_with_its_layer() -> None:
    with pytest.raises(UnsupportedError, match=r"'first'.*numbers of posit<8,0>, FINN streams integers"):
        load_flow("finn").prepare(network("posit<8,0>"), BOARD)


@pytest.mark.parametrize("flow", LOOKING_UP)
def test_a_number_that_is_looked_up_costs_its_table(flow: str) -> None:
    assert table("posit<8,0>").operand() == MultiplierOperand.looked_up(8, -4096, 4096)
    assert table("posit<8,0>").operand().width == 14
    graph, hardware = network("posit<8,0>"), Hardware.of("ultrascale-plus")
    one = float(hardware.table(256, 14).lut)
    assert one > 14 * 4  # 256 words in LUTs of six inputs
    design = load_flow(flow).prepare(graph, BOARD)
    costs = {layer.node: layer.lut for layer in estimate(design).layers}
    assert costs["pool"] >= 3 * one
    assert costs["flat"] < one


@pytest.mark.parametrize("flow", LOOKING_UP)
def test_a_format_that_no_unit_takes_is_refused_with_its_layer(flow: str) -> None:
    with pytest.raises(
        UnsupportedError, match=r"Conv 'conv'.*: No unit multiplies by unpriced4\nAllowed: odd4"
    ):
        load_flow(flow).prepare(network("unpriced4"), BOARD)


def test_a_class_that_says_too_little_cannot_be_made() -> None:
    class Silent(TableFormat):
        """It has no notation and no operand."""

    with pytest.raises(TypeError, match="notation, operand, read"):
        Silent()  # type: ignore[abstract]


def test_the_hls4ml_flow_looks_its_numbers_up() -> None:
    posit, wide = table("posit<8,0>"), Posit(13, 0)
    assert re.fullmatch(r"qhw::listed<qhw::tables::posit_8_0_[0-9a-f]{8}>", operand_policy(posit))
    assert operand_policy(posit) != operand_policy(table("posit<8,1>"))
    flow = Hls4mlFlow()
    assert flow.carries(posit, computed=True)
    assert not flow.carries(wide)
    assert not flow.carries(table("unpriced4"))
    with pytest.raises(UnsupportedError, match=r"cannot read codes of posit<13,0>\n.* at most 12 bits"):
        operand_policy(wide)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "io_type"), [("posit<8,0>", "io_parallel"), ("odd4", "io_stream")])
def test_its_c_simulation_has_the_graphs_codes(text: str, io_type: str, tmp_path: Path) -> None:
    """Numbers without zero, too, whose padding is 0 all the same."""
    pytest.importorskip("hls4ml")
    graph, flow = network(text), Hls4mlFlow(io_type)
    project = flow.write(flow.prepare(graph, BOARD), tmp_path / "project")
    inputs = inputs_of(graph)
    got, expected = flow.simulate(project, inputs, trace="all"), interpret(graph, inputs, keep="all")
    assert set(got) >= {"first", "inner", "pool", "result"}
    assert all(np.array_equal(mantissas, expected[name]) for name, mantissas in got.items())


@pytest.mark.parametrize("weights", ["posit<8,0>", "odd4"])
def test_a_network_is_trained_in_it_exported_and_lowered(weights: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("brevitas")
    from qhw.convert import convert
    from qhw.export import export_qonnx, layer_values
    from qhw.graph.encode import decode_output, encode_inputs
    from qhw.graph.lower import lower
    from qhw.quant_config import QuantConfig, formats_named

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    model = convert(net, QuantConfig(**formats_named(weights)), (6,))
    x = torch.randn(40, 6)
    optimiser = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(3):
        optimiser.zero_grad()
        model(x).square().mean().backward()
        optimiser.step()
    model.eval()
    graph = lower(export_qonnx(model, tmp_path / "model.onnx"))
    used: set[Format] = {kind.format for kind in graph.tensors.values()}
    assert table(weights) in used
    output = graph.outputs[0]
    codes = interpret(graph, encode_inputs(graph, x.numpy()))[output]
    assert np.array_equal(decode_output(graph, output, codes), layer_values(model, x.numpy())[output])
    assert len(np.unique(codes)) > 10
