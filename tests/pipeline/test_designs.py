"""From a graph to the best design of a flow, and what is said where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from qonnx_factory import Net

import qhw
from qhw.boards import load_board
from qhw.cost import Design, estimate
from qhw.cost.pricing.folding import DoesNotFitError
from qhw.errors import InputError, UnsupportedError
from qhw.flows.base import load_flow
from qhw.formats import Integer
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph
from qhw.pipeline.designs import Wanted, best_design, without_channels

pytest.importorskip("hls4ml")


def wide() -> ExactGraph:
    """A pointwise convolution of many channels: streams of all channels at once, or of a few."""
    random, b = np.random.default_rng(0), GraphBuilder("wide")
    x = b.input("x", (256, 8, 8), Integer(8, False))
    weight = b.constant("w", random.integers(-128, 128, (256, 256, 1, 1)), Integer(8))
    y = b.requant("act", b.conv("conv", x, weight), Integer(8, False), 12)
    return b.finish([y])


def test_where_nothing_fits_the_flow_that_would_is_named() -> None:
    board = replace(load_board("ultra96").having(lut=3000), name="small")
    with pytest.raises(DoesNotFitError) as caught:
        best_design(wide(), board, load_flow("hls4ml"))
    text = " ".join(str(caught.value).split())
    assert "wide does not fit small at any folding of the hls4ml flow (reuse factor)" in text
    assert "or use --flow rtl, which fits with" in text
    assert "folded by PE, SIMD" in text
    assert "cannot write its projects yet" not in text
    said = estimate(best_design(wide(), board, load_flow("rtl")))
    assert f"{said.throughput_fps:,.0f} images/s" in text
    assert max(said.utilisation.values()) <= 0.8


def test_where_no_flow_fits_that_is_said_too() -> None:
    board = load_board("ultra96").having(lut=50)
    with pytest.raises(DoesNotFitError, match=r"no folding of another flow fits either \(finn, hls4ml\)"):
        best_design(wide(), board, load_flow("rtl"))


def test_what_is_wanted_is_kept() -> None:
    board, flow = load_board("zcu102"), load_flow("hls4ml")
    fast, slow = (best_design(wide(), board, flow, w) for w in (Wanted(), Wanted(fps=2000, budget=0.5)))
    assert slow.folding["conv"].to_json()["reuse_factor"] > fast.folding["conv"].to_json()["reuse_factor"]
    assert estimate(slow).throughput_fps >= 2000
    lut = best_design(wide(), board, flow, Wanted(fps=1, multipliers="lut"))
    assert (lut.multipliers, estimate(lut).totals["dsp"]) == ("lut", 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"fps": -1.0}, "images per second"), ({"budget": 2.0}, "share"), ({"multipliers": "l"}, "multipliers")],
)
def test_what_cannot_be_wanted(given: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Wanted(**given)  # type: ignore[arg-type]


def test_a_model_that_computes_nothing_has_no_cost(tmp_path: Path) -> None:
    net = Net((4,))
    file = tmp_path / "quantised.onnx"
    file.write_bytes(net.model(net.quant("x", 8, 0.5)).SerializeToString())
    with pytest.raises(UnsupportedError, match="computes nothing"):
        qhw.cost(file, board="ultra96")


def half_of_zeros(channels: int = 16) -> ExactGraph:
    """Two convolutions; half of the first one's filters are zero."""
    random, b = np.random.default_rng(0), GraphBuilder("pruned")
    x = b.input("x", (4, 8, 8), Integer(6, False))
    first = random.integers(1, 16, (channels, 4, 3, 3))
    first[channels // 2 :] = 0
    y = b.conv("first", x, b.constant("w", first, Integer(6)), pads=(1, 1, 1, 1))
    y = b.requant("act", y, Integer(6, False), 6)
    last = b.constant("v", random.integers(-16, 16, (8, channels, 3, 3)), Integer(6))
    return b.finish([b.requant("out", b.conv("last", y, last, pads=(1, 1, 1, 1)), Integer(6), 8)])


@pytest.mark.parametrize(("flow", "board"), [("hls4ml", "zcu102"), ("rtl", "ulx3s"), ("mcu", "stm32h743")])
def test_channels_of_zeros_are_not_built(flow: str, board: str) -> None:
    graph, target, found = half_of_zeros(), load_board(board), load_flow(flow)
    design = best_design(graph, target, found, Wanted())
    assert design.graph.tensors["first"].shape == (8, 8, 8)
    whole = found.best(found.prepare(graph, target))
    assert estimate(design).initiation_interval <= estimate(whole).initiation_interval
    assert best_design(without_channels(graph, 8), target, found).folding == design.folding


def test_all_channels_stay_where_fewer_are_dearer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer channels may have fewer foldings: the better design is built, whichever it is."""

    def size(design: Design, wanted: Wanted) -> tuple[float, ...]:
        return (-design.graph.tensors["first"].shape[0],)

    monkeypatch.setattr("qhw.pipeline.designs._size", size)
    design = best_design(half_of_zeros(), load_board("zcu102"), load_flow("hls4ml"))
    assert design.graph.tensors["first"].shape[0] == 16


def test_a_design_of_another_graph_is_refused() -> None:
    with pytest.raises(InputError, match="lacks 3 channels, but 8 of its graph are constant"):
        without_channels(half_of_zeros(), 3)
    assert without_channels(graph := half_of_zeros(), 0) is graph
