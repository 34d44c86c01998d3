"""Weights that are loaded: one circuit, in Verilator, computes with those of two trained networks."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from qhw.boards import load_board
from qhw.cost.pricing.design import Design
from qhw.flows.base import Project, load_flow
from qhw.flows.rtl.project import identity
from qhw.flows.rtl.simulation import compile_project, simulate_project
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
