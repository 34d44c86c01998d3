"""``kill -9`` of a search at any moment loses at most the evaluations in flight; nothing counts twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'qhw[search]'")

import store_killer

KILLS = 12


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_search_that_is_killed_loses_what_was_in_flight(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where = str(tmp_path / "s.db") if database == "sqlite" else request.getfixturevalue("server").url
    done = subprocess.run(
        [sys.executable, store_killer.__file__, where, "1", str(KILLS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)
    assert len(rounds) == KILLS
    told: list[list[int]] = []
    abandoned = 0
    for one in rounds:
        told += one["told"]
        finished = [(point, quality) for point, state, quality in one["trials"] if state == "done"]
        points = [point for point, _ in finished]
        assert len(points) == len({tuple(point) for point in points}), "a point counts twice"
        assert all(point in points for point in told), "what was told to be written is not there"
        assert len(points) <= len(told) + KILLS, "a line may be lost with its pipe, no more"
        assert all(quality == store_killer.quality(tuple(point)) for point, quality in finished)
        left = sum(state == "failed" for _, state, _ in one["trials"])
        assert left - abandoned <= store_killer.IN_FLIGHT, "more than was in flight was lost"
        assert not any(state == "running" for _, state, _ in one["trials"])
        abandoned = left
    assert len(told) > KILLS, "the searches did not come far enough for this to tell anything"
    assert abandoned > 0
