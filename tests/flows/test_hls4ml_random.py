"""Random chains of operations through the C-simulation, every code against the interpreter.

``benchmarks/hls4ml_random.py`` runs as many as one likes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hls4ml_project import designed, legal_factors
from random_designs import random_design, random_samples

from qhw.flows.hls4ml import Hls4mlFlow
from qhw.graph.interpreter import interpret

pytest.importorskip("hls4ml")


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize(("io_type", "seed"), [("io_stream", 1), ("io_parallel", 2)])
def test_random_designs_keep_their_codes(tmp_path: Path, io_type: str, seed: int) -> None:
    graph, rng, flow = random_design(seed, 12, large=False), np.random.default_rng(seed), Hls4mlFlow(io_type)
    folding = {name: int(rng.choice(legal)) for name, legal in legal_factors(flow, graph).items()}
    inputs = random_samples(graph, 40, seed)
    project = flow.write(designed(flow, graph, folding), tmp_path / "project", vectors=inputs)
    got, expected = flow.simulate(project, inputs, trace="all"), interpret(graph, inputs, keep="all")
    assert set(graph.outputs) <= set(got)
    assert [name for name in got if not np.array_equal(got[name], expected[name])] == []
    assert np.median([len(np.unique(values)) for values in got.values()]) >= 4
