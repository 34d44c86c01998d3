"""Checkpoints: what was written is what is read, or nothing is."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from qhw.checkpoints import Checkpoint, load, save


def checkpoint(epochs: int) -> Checkpoint:
    torch.manual_seed(epochs)
    model = nn.Linear(5, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    return Checkpoint("run", epochs, model.state_dict(), optimizer.state_dict())


def assert_is(found: Checkpoint | None, epochs: int) -> None:
    expected = checkpoint(epochs)
    assert found is not None
    assert found.epochs_done == epochs
    assert all(torch.equal(found.model[name], value) for name, value in expected.model.items())


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_read_back(tmp_path: Path) -> None:
    assert load(tmp_path / "float.pt", "run") is None
    save(tmp_path / "float.pt", checkpoint(1))
    assert_is(load(tmp_path / "float.pt", "run"), 1)
    assert load(tmp_path / "float.pt", "another run") is None


def test_every_flipped_bit_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "float.pt"
    save(path, checkpoint(1))
    whole = path.read_bytes()
    positions = range(0, len(whole), 41)
    assert len(positions) > 50
    with caplog.at_level(logging.WARNING):
        for position in positions:
            flip(path, position)
            assert load(path, "run") is None, position
            path.write_bytes(whole)
    assert len(caplog.records) == len(positions)
    assert all("float.pt is damaged" in record.message for record in caplog.records)
    assert_is(load(path, "run"), 1)


def test_training_goes_on_from_the_one_before_a_damaged_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "float.pt"
    for epochs in (1, 2, 3):
        save(path, checkpoint(epochs))
    assert_is(load(path, "run"), 3)
    flip(path, 2000)
    assert_is(load(path, "run"), 2)
    assert len(caplog.records) == 1


def test_a_writer_that_was_killed_leaves_one(tmp_path: Path) -> None:
    """Between the two renamings there is the one before alone; a file half written is no checkpoint."""
    path = tmp_path / "float.pt"
    save(path, checkpoint(1))
    path.rename(tmp_path / "float.pt.before")
    (tmp_path / "float.pt.part").write_bytes(b"half")
    assert_is(load(path, "run"), 1)
    save(path, checkpoint(2))
    assert_is(load(path, "run"), 2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["float.pt", "float.pt.before"]


def test_somebody_elses_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "float.pt", checkpoint(1))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    assert load(tmp_path / "float.pt", "run") is None


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("float.pt", "float.pt.part", "float.pt.before"):
        (folder / name).symlink_to(victim)
    save(folder / "float.pt", checkpoint(1))
    assert victim.read_text() == "years of work"
    assert_is(load(folder / "float.pt", "run"), 1)
