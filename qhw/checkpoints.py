"""Checkpoints of a training run: written whole or not at all, read without unpickling anything."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qhw.errors import InputError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1


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
    beside = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        torch.save({"version": FORMAT_VERSION, **vars(checkpoint)}, beside)
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"checkpoint {path} cannot be written: {error}", hint="free some space, or give another folder"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path, expected: str) -> Checkpoint | None:
    """The checkpoint at ``path``, or None where there is none, it is damaged, or of another run."""
    if not path.is_file():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        version = state.pop("version")
        checkpoint = Checkpoint(**state)
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:
        logger.warning("%s is damaged (%s); training starts over", path, type(error).__name__)
        return None
    if version != FORMAT_VERSION or checkpoint.fingerprint != expected:
        logger.info("%s is of a run with other settings; training starts over", path)
        return None
    return checkpoint
