"""What a circuit takes, counted from what was emitted, against the netlist that Yosys makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from op_zoo import Zoo
from rtl_designs import chain, design_of, residual

from qhw.boards import load_board
from qhw.cost import estimate
from qhw.cost.pricing.folding import DoesNotFitError, choose_folding
from qhw.flows.base import load_flow
from qhw.flows.rtl.circuit import Element, Wire
from qhw.flows.rtl.emission import settled
from qhw.flows.rtl.inventory import Part, columns_of, parts_of
from qhw.flows.rtl.nets import Module, varying
from qhw.flows.rtl.priced import _Emitted, _zeros_of, taken
from qhw.flows.rtl.project import _instances
from qhw.flows.rtl.synthesis import synthesised
from qhw.flows.rtl.template import PeSimd
from qhw.formats.integer import Integer
from qhw.graph.builder import GraphBuilder


@pytest.mark.parametrize(("board", "share"), [("zcu104", 0.03), ("ulx3s", 0.08)])
def test_a_small_design_takes_what_was_counted(board: str, share: float, tmp_path: Path) -> None:
    """Registers, slices and block RAM to the last one; LUTs nearly, and less nearly with four inputs."""
    design = design_of(chain(), 1, board)
    totals = estimate(design).totals
    found, _ = synthesised(load_flow("rtl").write(design, tmp_path / "project"))
    exact = ("ff", "dsp", "bram18")
    assert [totals[name] for name in exact] == [found[name] for name in exact]
    assert totals["lut"] == pytest.approx(found["lut"], rel=share)


def test_layers_add_up_to_the_components() -> None:
    design = design_of(residual())
    circuit, _ = settled(design)
    components = taken(circuit, design.board.family).values()
    totals = estimate(design).totals
    for name in ("ff", "dsp", "bram18"):
        assert totals[name] == sum(getattr(usage, name) for usage in components)
    assert totals["lut"] == pytest.approx(sum(usage.lut for usage in components), abs=len(design.graph.nodes))


def test_a_bias_is_added_to_as_few_sums_at_a_time_as_the_rate_needs() -> None:
    """Four sums come in nine cycles: one adder is enough. Sums have no bits that a finer bias moves out."""
    zoo = Zoo("fine", 3)
    image = zoo.builder.input("image", (1, 6, 6), Integer(8, False), -8)
    zoo.end(zoo.conv("stem", image, 4, (3, 3), bias_exponent=-15))
    graph = zoo.finish()
    circuit, _ = settled(design_of(graph).folded({"stem": PeSimd(4, 1)}))
    parts = list(parts_of(circuit))
    dots = [part for part in parts if part.module == "integer_dot"]
    adders = [part for part in parts if part.module == "adder_tree"]
    assert (len(dots), len(adders)) == (4, 1)
    finer = 15 - 8 - 3
    assert {part["A"] for part in dots} == {graph.tensors["stem"].format.width - finer}


def test_a_board_takes_a_design_whose_closed_form_asks_for_more_multipliers() -> None:
    """A factor of the format's 16 bits is a power of two here: the circuit has no multiplier for it."""
    b = GraphBuilder("norms")
    x = b.input("x", (8,), Integer(8, False), 0)
    h = b.matmul("fc", x, b.constant("w", np.arange(64).reshape(8, 8) % 7 - 3, Integer(4), 0))
    scale, offset = np.full(8, 4), np.arange(8)
    h = b.affine("norm", h, b.constant("s", scale, Integer(16), 0), b.constant("o", offset, Integer(8), 0))
    graph, board = b.finish([b.requant("y", h, Integer(8), 2)]), load_board("ulx3s")
    small = replace(board, capacity={**board.capacity, "dsp": 2})
    found = load_flow("rtl").best(load_flow("rtl").prepare(graph, small), budget=0.8, fps=1000)
    assert estimate(found).totals["dsp"] == 1
    with pytest.raises(DoesNotFitError, match="2 DSP, 1 more than the 1"):
        choose_folding(found, budget=0.8, fps=1000)


def test_the_label_says_whether_totals_were_validated() -> None:
    design = design_of(chain(), board="zcu104")
    assert "against HLS" not in estimate(design).label
    by_forms = replace(design, architecture=replace(design.architecture, written=None))
    assert "not validated" in estimate(by_forms).label


def test_every_instance_is_found_with_its_parameters() -> None:
    circuit, _ = settled(design_of(residual()))
    parts = list(parts_of(circuit))
    for component in circuit.components:
        text = circuit.modules.get(component.module)
        wanted = [component.module] if text is None else _instances(text)
        assert [part.module for part in parts if part.component == component.name] == wanted
    assert all(part.settings["W"] for part in parts if part.module == "rom")


def test_columns_are_the_bits_of_a_memory() -> None:
    circuit, _ = settled(design_of(residual()))
    for part in parts_of(circuit):
        if part.module != "rom":
            continue
        columns = columns_of(circuit, part)
        name = str(part.settings["FILE"]).strip('"').split("/")[1].removesuffix(".mem")
        width, codes = circuit.memories[name]
        bits = [codes.astype(np.int64)[:, [lane]] >> np.arange(width) & 1 for lane in range(codes.shape[1])]
        wanted = np.concatenate(bits, axis=1).T
        assert [[bit >> word & 1 for word in range(columns.words)] for bit in columns.bits] == wanted.tolist()


def test_bits_lead_back_to_registers_and_constants() -> None:
    module = Module(
        """module m (
    input  [7:0] x,
    output [5:0] y
);
    wire [3:0] a;
    assign a = x[4+:4];
    wire [5:0] b;
    assign b = {{2{a[3]}}, a};
    wire [5:0] c;
    assign c = {b[2:0], 3'b010};
    assign y = c;
endmodule"""
    )
    assert module.bits("y") == [False, True, False, ("x", 4), ("x", 5), ("x", 6)]
    assert module.bits("b") == [("x", 4), ("x", 5), ("x", 6), ("x", 7), ("x", 7), ("x", 7)]
    assert list(varying(module.bits("{b, 2'h1, x[1*4+:2]}"))) == [("x", 4), ("x", 5), ("x", 6), ("x", 7)]


def test_a_bit_that_is_zero_in_every_lane_needs_no_register() -> None:
    """The second bit of both lanes, of which one comes from the input's own zeros."""
    text = """module m (
    input  [5:0] x,
    output [5:0] y
);
    assign y = {x[5], 1'b0, x[3], x[2], x[1], 1'b1};
endmodule"""
    circuit, _ = settled(design_of(chain()))
    wire = Wire("y", "y", 2, Element(3, False), np.arange(2))
    given = _Emitted(circuit, text, [], {"x": frozenset({1})})
    assert _zeros_of(given, wire) == {1}
    assert _zeros_of(_Emitted(circuit, text, [], {}), wire) == set()


@pytest.mark.parametrize(("first", "multiplier", "rows"), [("1'b1", 0, 2), ("1'b1", 1, 1), ("first_1", 0, 1)])
def test_a_product_alone_has_two_registers_in_a_row(first: str, multiplier: int, rows: int) -> None:
    circuit, _ = settled(design_of(chain()))
    dot = Part("integer_dot", {"L": 1, "MULTIPLIER": multiplier}, {"first": first, "sum": "n"}, "m", "m")
    emitted = _Emitted(circuit, "", [dot], {})
    assert (emitted.is_made("n"), emitted.is_made("x")) == (rows, 0)
