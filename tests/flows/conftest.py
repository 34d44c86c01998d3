"""Puts this folder on the path, so that the flows' tests share graphs of every operation."""

from __future__ import annotations

import pytest


@pytest.fixture
def quickly_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """C-simulations of many layers and few samples: at -O0 they are compiled in half the time."""
    from qhw.flows.hls4ml import simulation

    flags = ("-O0", *(flag for flag in simulation.COMPILE_FLAGS if flag != "-O1"))
    assert len(flags) == len(simulation.COMPILE_FLAGS)
    monkeypatch.setattr(simulation, "COMPILE_FLAGS", flags)
