"""What holds for every flow: its options, its boards; what it carries is priced and built."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hls4ml_project import BOARD, legal_factors, small_graph

from qhw.boards import load_board
from qhw.cost import Design, choose_folding, estimate
from qhw.cost.pricing.architecture import Architecture
from qhw.devices import Family
from qhw.errors import InputError, ToolMissingError, UnsupportedError
from qhw.flows.base import Flow, FlowOption, Tool, list_flows, load_flow, load_project_flow
from qhw.flows.hls4ml import Hls4mlFlow
from qhw.flows.rtl.template import ARCHITECTURE
from qhw.formats import Integer, parse_format
from qhw.formats.base import Format
from qhw.formats.modes import Rounding
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph

FORMATS = (
    *("int2", "int8", "uint1", "uint8", "int32", "binary", "ternary"),
    *("e4m3", "e2m1", "e5m2", "e1m2", "e8m0", "e8m7", "e4m3fn", "e5m2ieee", "e4m3fnuz"),
    *(
        "khot<4,1>",
        "khot<8,2>",
        "khot<8,2,csd>",
        "khot<10,3>",
        "khot<12,4>",
        "pow2<4>",
        "pow2<8>",
        "upow2<4>",
    ),
)


def using(format: Format, role: str) -> ExactGraph:
    """A matrix product whose weights are of a format, or whose input a layer rounded to it."""
    random, b = np.random.default_rng(0), GraphBuilder("using")
    x = b.input("x", (4,), Integer(8))
    integers = b.constant("w0", random.integers(-8, 8, (4, 4)), Integer(4))
    y = b.matmul("fc0", x, integers)
    rounding = Rounding.RND if str(format) == "binary" else Rounding.RND_CONV
    y = b.requant("middle", y, format if role == "result" else Integer(8), 0, rounding=rounding)
    numbers = format.numbers if isinstance(format, TableFormat) else np.arange(-1 if format.signed else 0, 2)
    weights = b.constant("w", random.choice(numbers, (4, 3)), format) if role == "weights" else integers
    return b.finish([b.requant("end", b.matmul("fc", y, weights), Integer(8), 0)])


@pytest.mark.parametrize("flow", list_flows())
@pytest.mark.parametrize("role", ["weights", "result"])
@pytest.mark.parametrize("text", FORMATS)
def test_what_a_flow_carries_it_prepares_and_prices(flow: str, role: str, text: str) -> None:
    if flow == "hls4ml":
        pytest.importorskip("hls4ml")
    format, made = parse_format(text), load_flow(flow)
    board = load_board("stm32h743") if flow == "mcu" else BOARD
    if not made.carries(format, computed=role == "result"):
        with pytest.raises(UnsupportedError, match="'middle'" if role == "result" else "'(middle|fc)'"):
            made.prepare(using(format, role), board)
        return
    design = made.prepare(using(format, role), board)
    last = {name: folds[-1] for name, folds in design.legal.items()}
    scarce = "flash" if flow == "mcu" else "lut"
    assert all(estimate(one).totals[scarce] > 0 for one in (design, design.folded(last)))


def test_the_graph_that_is_priced_is_the_graph_that_is_built() -> None:
    """K-hot numbers are reached by thresholds: a Requant's form is not what is built."""
    pytest.importorskip("hls4ml")
    flow, graph = Hls4mlFlow(), using(parse_format("khot<8,2>"), "result")
    design = flow.prepare(graph, BOARD)
    priced = {layer.node: layer for layer in estimate(design).layers}
    built = flow.plan(design).graph
    assert {(node.name, node.op) for node in built.nodes} == {(n, layer.op) for n, layer in priced.items()}
    assert priced["middle"].op == "Threshold"
    (as_lowered,) = (
        layer
        for layer in estimate(Design(graph, BOARD, design.architecture)).layers
        if layer.node == "middle"
    )
    assert (as_lowered.op, isinstance(graph.producer("middle"), ir.Requant)) == ("Requant", True)
    assert (priced["middle"].op, priced["middle"].lut) == ("Threshold", as_lowered.lut)


def test_the_io_type_is_that_of_the_given_graph() -> None:
    """Whether there are windows is asked before a sum over the whole image becomes another operation."""
    b = GraphBuilder("pooled")
    b.finish([b.sum_pool("gap", b.input("x", (3, 5, 5), Integer(8, False)), (5, 5))])
    design = Hls4mlFlow().prepare(b.graph, BOARD)
    assert [node.op for node in design.graph.nodes] == ["ReduceSum"]
    assert design.architecture.options == {"io_type": "io_stream"}


def test_legal_factors_are_in_the_designs_own_notion() -> None:
    pytest.importorskip("hls4ml")
    factors = legal_factors(Hls4mlFlow(), small_graph())
    assert factors["fc"] == sorted(factors["fc"])
    pairs = load_flow("rtl").prepare(small_graph(), BOARD).legal
    assert {tuple(fold.to_json()) for folds in pairs.values() for fold in folds} == {("pe", "simd")}


def test_a_lattice_board_is_priced_by_its_own_family_and_refused_by_vitis() -> None:
    ulx3s, ultra96 = load_board("ulx3s"), load_board("ultra96")
    with pytest.raises(UnsupportedError, match=r"hls4ml flow .* ulx3s, .* Lattice ECP5") as caught:
        Hls4mlFlow().prepare(small_graph(), ulx3s)
    assert "--flow rtl" in str(caught.value)
    flow = load_flow("rtl")
    lattice, amd = (choose_folding(flow.prepare(small_graph(), b), fps=1000) for b in (ulx3s, ultra96))
    of_four, of_six = (estimate(design.folded({})).totals for design in (lattice, amd))
    assert of_four["lut"] > 1.2 * of_six["lut"]
    assert estimate(lattice).throughput_fps >= 1000
    assert "uram" not in ulx3s.capacity


@pytest.mark.parametrize("flow", [name for name in list_flows() if name != "mcu"])
def test_a_microcontroller_is_the_mcu_flows(flow: str) -> None:
    with pytest.raises(
        UnsupportedError, match=f"{flow} flow cannot build for stm32h743, .*Cortex-M7"
    ) as caught:
        load_flow(flow).prepare(small_graph(), load_board("stm32h743"))
    assert "--flow mcu" in str(caught.value)


class PricedFlow(Flow):
    name = "rtl"

    def takes(self, family: Family) -> bool:
        return True

    def architecture(self, graph: ExactGraph) -> Architecture:
        return ARCHITECTURE


def test_a_flow_that_is_only_priced_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qhw.flows.rtl.flow", PricedFlow)
    with pytest.raises(UnsupportedError, match="cannot write its projects yet") as caught:
        load_project_flow("rtl")
    assert "hls4ml" in str(caught.value)


@pytest.mark.parametrize(
    ("flow", "given", "said"),
    [
        ("hls4ml", {"io_type": "io_streem"}, "did you mean io_stream"),
        (
            "hls4ml",
            {"io_typ": "io_stream"},
            "did you mean io_type",
        ),
        ("hls4ml", {"io_type": 1}, "io_type is 1"),
        ("rtl", {"io_type": "io_stream"}, "The rtl flow has no option 'io_type'\nAllowed: unrolled"),
    ],
)
def test_a_wrong_option_is_explained(flow: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_flow(flow, **given)
    assert said in str(caught.value)
    with pytest.raises(InputError, match="no option 'io_type'") as caught:
        PricedFlow(io_type="io_stream")
    assert caught.value.allowed == "no option"


@pytest.mark.parametrize(
    ("kind", "given", "found"),
    [(int, "3", 3), (int, 3, 3), (float, "0.5", 0.5), (float, 2, 2.0), (str, "a", "a")],
)
def test_an_options_text_becomes_its_kind(kind: Any, given: Any, found: Any) -> None:
    value = FlowOption("depth", kind, found, "A depth.").checked(given)
    assert (value, type(value)) == (found, kind)


@pytest.mark.parametrize(("kind", "given"), [(int, "x"), (int, 1.5), (int, True), (float, "x"), (str, 1)])
def test_another_kind_is_refused(kind: Any, given: Any) -> None:
    with pytest.raises(InputError, match=f"depth is {given!r}"):
        FlowOption("depth", kind, 1, "A depth.").checked(given)


def test_multipliers_that_vitis_cannot_be_told_are_refused(tmp_path: Any) -> None:
    pytest.importorskip("hls4ml")
    flow = Hls4mlFlow()
    for multipliers, line in (("lut", "config_op mul -impl fabric"), ("dsp", "config_op mul -impl dsp")):
        project = flow.write(flow.prepare(small_graph(), BOARD, multipliers), tmp_path / multipliers)
        script = (project.folder / "build_prj.tcl").read_text().splitlines()
        assert script.index(line) < script.index("    csynth_design")
    with pytest.raises(UnsupportedError, match="multipliers 'packed'"):
        flow.write(flow.prepare(small_graph(), BOARD, "packed"), tmp_path / "packed")
    with pytest.raises(InputError, match="unknown choice of multipliers 'luts'"):
        flow.prepare(small_graph(), BOARD, "luts")


def test_a_missing_tool_says_how_to_get_it() -> None:
    with pytest.raises(ToolMissingError, match=r"needs no-such-program.*\nTo do: get it"):
        Tool("no-such-program", "The simulation", "get it").check()
