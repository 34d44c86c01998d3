"""Weights that are loaded: one circuit, in Verilator, computes with those of two trained networks."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import board_at_spi
import numpy as np
import pytest
from board_on_a_pty import compiled, plugged_in
from rtl_designs import residual
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from qhw.boards import load_board
from qhw.cost import estimate
from qhw.cost.pricing.design import Design
from qhw.errors import InputError, ToolMissingError, UnsupportedError
from qhw.flows.base import Project, SerialLine, default_vectors, load_flow
from qhw.flows.rtl import host_ports
from qhw.flows.rtl.project import identity
from qhw.flows.rtl.simulation import compile_project, simulate_project
from qhw.flows.rtl.synthesis import synthesised
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph

FLOW = load_flow("rtl", weight_memory="loaded")


@cache
def trained(seed: int) -> ExactGraph:
    """A hidden layer with a norm behind it, and logits, trained on digits; its binary points are fixed."""
    digits = load_digits()
    network = MLPClassifier((12,), max_iter=60, random_state=seed, alpha=0.1)
    with pytest.warns(Warning, match="converge"):
        network.fit(digits.images[:-400].reshape(-1, 64) / 16, digits.target[:-400])
    b = GraphBuilder("digits")
    x = b.reshape("flat", b.input("x", (1, 8, 8), Integer(5, False), -4), (64,))
    x = b.matmul("hidden_sum", x, *_constants(b, network, 0, -8))
    rng = np.random.default_rng(seed)
    gain, shift = rng.integers(10, 32, 12), rng.integers(-60, 60, 12)
    gain_name = b.constant("gain", gain, Integer(6, False), -4)
    x = b.affine("norm", x, gain_name, b.constant("shift", shift, Integer(8), -10))
    x = b.requant("hidden", x, Integer(5, False), -3, rounding=Rounding.RND_CONV)
    return b.finish([b.matmul("logits", x, *_constants(b, network, 1, -7))])


def _constants(b: GraphBuilder, network: MLPClassifier, layer: int, fine: int) -> tuple[str, str]:
    """Weights of 6 bits, biases of 12."""
    held = np.clip(np.rint(network.coefs_[layer] * 16), -32, 31).astype(np.int64)
    biases = np.rint(network.intercepts_[layer] * 2.0**-fine).astype(np.int64)
    assert np.abs(biases).max() < 2048
    return b.constant(f"w{layer}", held, Integer(6), -4), b.constant(f"c{layer}", biases, Integer(12), fine)


def images(count: int) -> IntArray:
    """Digits that no network was trained on, as mantissas (N, 1, 8, 8)."""
    return np.asarray(load_digits().images[-count:][:, None].astype(np.int64))


def design_of(graph: ExactGraph, fold: int) -> Design:
    """Folded to different depths: some constants have one word, some several."""
    design = FLOW.prepare(graph, load_board("ulx3s"))
    return design.folded({name: folds[fold % len(folds)] for name, folds in design.legal.items()})


def written(seed: int, fold: int, folder: Path) -> Project:
    return FLOW.write(design_of(trained(seed), fold), folder / f"seed{seed}")


@pytest.mark.parametrize("fold", [7, 1])
def test_one_circuit_computes_with_the_weights_of_two_networks(fold: int, tmp_path: Path) -> None:
    """First one's, then the other's, then the first's again, each in front of its images; with stalls."""
    first, second = (written(seed, fold, tmp_path) for seed in (1, 2))
    assert identity(first.folder) == identity(second.folder)
    sets = [(project.folder / "weights" / "weights.bin").read_bytes() for project in (first, second, first)]
    assert sets[0] != sets[1]
    compile_project(first)
    x = images(60)
    for seed in (0, 5):
        run = simulate_project(first, {"x": x}, "all", None, seed=seed, weights=sets)
        for part, graph in enumerate((trained(1), trained(2), trained(1))):
            own = slice(20 * part, 20 * part + 20)
            expected = interpret(graph, {"x": x[own]}, keep="all")
            assert {"hidden_sum", "norm", "hidden", "logits"} <= {n.split(".")[0] for n in run.values}
            for name, got in run.values.items():
                assert (np.asarray(got)[own] != expected[name]).sum() == 0, name


def test_convolutions_and_a_residual_block_load_theirs(tmp_path: Path) -> None:
    graph = residual()
    project = FLOW.write(design_of(graph, 3), tmp_path / "project")
    assert not {path.name for path in (project.folder / "memories").iterdir()} & {"weights", "offsets"}
    inputs = default_vectors(graph, 5)
    run = simulate_project(project, inputs, "all", None, seed=2)
    expected = interpret(graph, inputs, keep="all")
    for name, got in run.values.items():
        assert (np.asarray(got) != expected[name]).sum() == 0, name


def sent(project: Project, x: IntArray, port: str, seconds: float = 0.01) -> IntArray:
    line = SerialLine(port, None, seconds)
    return FLOW.run_on_board(project, {"x": x}, line, tell=lambda share, text: None).values["logits"]


def test_a_host_loads_each_folders_weights_into_one_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At SPI, bit by bit, at the fastest clock; also behind a host that stopped within the weights."""
    flow = load_flow("rtl", weight_memory="loaded", loader="spi")
    first, second = (flow.write(design_of(trained(seed), 7), tmp_path / str(seed)) for seed in (1, 2))
    tops = [(project.folder / "board" / "board.v").read_text() for project in (first, second)]
    assert tops[0] == tops[1]
    (tmp_path / "scratch").mkdir()
    program = compiled(first.folder, tmp_path / "scratch", board_at_spi.HARNESS)
    monkeypatch.setitem(sys.modules, "spidev", board_at_spi)
    monkeypatch.setattr(host_ports, "time", board_at_spi)
    x = images(3)
    with board_at_spi.connected(program, first.folder, 4):
        for seed, project in ((1, first), (2, second), (1, first)):
            expected = interpret(trained(seed), {"x": x})["logits"]
            assert np.array_equal(sent(project, x, "spi:/dev/spidev0.0"), expected)
        stopped = board_at_spi.SpiDev()
        stopped.mode, stopped.max_speed_hz = 0, 3_125_000
        stopped.xfer2([1, 3, 1, 255])
        assert np.array_equal(
            sent(second, x, "spi:/dev/spidev0.0"), interpret(trained(2), {"x": x})["logits"]
        )
    device = board_at_spi.SpiDev.opened[-1]
    assert (device.path, device.max_speed_hz, device.closed) == ("/dev/spidev0.0", 3_125_000, True)
    with pytest.raises(InputError, match=r"SPI port /dev/none cannot be opened at 3125000 Hz: No such file"):
        sent(first, x, "spi:/dev/none")
    monkeypatch.setitem(sys.modules, "spidev", None)
    with pytest.raises(ToolMissingError, match=r"qhw\[spi\]"):
        sent(first, x, "spi:/dev/none")


def test_the_serial_line_loads_them_too(tmp_path: Path) -> None:
    pytest.importorskip("serial", reason="pyserial is not installed: pip install 'qhw[synth]'")
    project = FLOW.write(design_of(trained(1), 1), tmp_path / "project")
    (tmp_path / "scratch").mkdir()
    program = compiled(project.folder, tmp_path / "scratch")
    x = images(3)
    with plugged_in(program, project.folder) as port:
        assert np.array_equal(sent(project, x, port, 60.0), interpret(trained(1), {"x": x})["logits"])


def test_a_board_without_spi_pins_is_refused_at_once() -> None:
    flow = load_flow("rtl", loader="spi")
    flow.check_board(load_board("icebreaker"))
    with pytest.raises(UnsupportedError, match="no SPI pins of tang-nano-9k"):
        flow.check_board(load_board("tang-nano-9k"))


def test_what_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    graph = trained(1)
    flow = load_flow("rtl", weight_memory="loaded", unrolled="all")
    with pytest.raises(InputError, match="--weight-memory loaded with --unrolled none"):
        flow.prepare(graph, load_board("ulx3s"))
    project = FLOW.write(design_of(graph, 1), tmp_path / "project")
    image = project.folder / "weights" / "weights.bin"
    image.write_bytes(image.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"weights\.bin has [\d,]+ bytes"):
        simulate_project(project, {"x": images(1)}, "outputs", None)


def test_the_price_of_the_port_is_counted(tmp_path: Path) -> None:
    design = design_of(trained(1), 7)
    totals = estimate(design).totals
    found, _ = synthesised(FLOW.write(design, tmp_path / "project"))
    assert [totals[name] for name in ("dsp", "bram18")] == [found[name] for name in ("dsp", "bram18")]
    assert totals["ff"] == pytest.approx(found["ff"], rel=0.01)
    assert totals["lut"] == pytest.approx(found["lut"], rel=0.06)
