"""Checkpoints of a training run: written whole or not at all, read without unpickling anything.

A file starts with a seal of this user's key over the rest: training does not go on from one that was damaged,
or that somebody else made. The checkpoint before the last is kept for that case.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qhw import vouched
from qhw.errors import InputError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
_SEAL_BYTES = 64


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training phase.

    Args:
        fingerprint: hash of everything that decides the outcome; another run's checkpoint is not used.
        epochs_done: whole epochs behind it.
        model, optimizer: their ``state_dict()``.
    """

    fingerprint: str
    epochs_done: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]


def fingerprint(*parts: object) -> str:
    """A hash over the ``repr`` of every part, in order."""
    return hashlib.sha256("\0".join(map(repr, parts)).encode()).hexdigest()


def weights_hash(model: nn.Module) -> str:
    """A hash over names, types and values of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def prepare_folder(folder: Path) -> None:
    """Create the folder, and find out now rather than after the first epoch whether it can be written.

    Raises:
        InputError: the folder cannot be created or written to.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"checkpoints cannot be written to {folder}: {error.strerror}",
            hint="give another folder, or make this one writable",
        ) from error


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write beside, then rename: an interrupted run leaves the previous checkpoint as it was."""
    beside = path.with_name(f"{path.name}.part")
    content = io.BytesIO()
    torch.save({"version": FORMAT_VERSION, **vars(checkpoint)}, content)
    try:
        beside.unlink(missing_ok=True)
        with beside.open("xb") as file:
            file.write(_seal_of(content.getbuffer()).encode())
            file.write(content.getbuffer())
        if path.exists():
            os.replace(path, _previous(path))
        os.replace(beside, path)
    except OSError as error:
        raise InputError(
            f"checkpoint {path} cannot be written: {error}", hint="free some space, or give another folder"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path, expected: str) -> Checkpoint | None:
    """The checkpoint at ``path``, or else the one before it.

    None where there is none, they are damaged (which is logged), or of another run.
    """
    for place in (path, _previous(path)):
        if (found := _load(place, expected)) is not None:
            return found
    return None


def _load(path: Path, expected: str) -> Checkpoint | None:
    try:
        with path.open("rb") as file:
            seal, content = file.read(_SEAL_BYTES), file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s cannot be read (%s); training does not go on from it", path, error.strerror)
        return None
    if not vouched.vouches(seal.decode("ascii", "replace"), "checkpoint", _digest(content)):
        logger.warning("%s is damaged, or was made by somebody else; training does not go on from it", path)
        return None
    state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    if state.pop("version") != FORMAT_VERSION or state["fingerprint"] != expected:
        logger.info("%s is of a run with other settings; training does not go on from it", path)
        return None
    return Checkpoint(**state)


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")


def _seal_of(content: bytes | memoryview) -> str:
    return vouched.seal("checkpoint", _digest(content))


def _digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
