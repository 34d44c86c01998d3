"""Data sets: images, labels, their origin, and a split that stays unseen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qhw.errors import InputError

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Labelled images in a training and a test split.

    Args:
        name: short name, as on the command line.
        source: the data's origin, for the manifest.
        train_x: training images, uint8 of shape (N, C, H, W); ``test_x`` alike.
        train_y: training labels, int64 of shape (N,), 0 to ``classes`` - 1; ``test_y`` alike.
        classes: number of classes.
        normalisation: exponent of the power of two that brings pixels to 0..1 (-8 for 0..255).

    Raises:
        InputError: an array has the wrong type or shape, or a label is out of range.
    """

    name: str
    source: str
    train_x: Pixels
    train_y: Labels
    test_x: Pixels
    test_y: Labels
    classes: int
    normalisation: int

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            _check_split(
                self.name, split, getattr(self, f"{split}_x"), getattr(self, f"{split}_y"), self.classes
            )
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            raise InputError(
                f"data set {self.name}: training images are {self.train_x.shape[1:]}, "
                f"test images {self.test_x.shape[1:]}",
                allowed="one shape (channels, height, width) for both splits",
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.train_x.shape[1:]
        return channels, height, width

    @cached_property
    def sha256(self) -> str:
        """A hash over both splits, for the manifest and for checkpoints."""
        digest = hashlib.sha256()
        for array in (self.train_x, self.train_y, self.test_x, self.test_y):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def holdout(labels: Labels, every: int = 5) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (train, test): every ``every``-th sample of a class, in stored order, is for testing.

    Depends on no random generator, so the split is the same everywhere and for good.
    """
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        test[np.flatnonzero(labels == label)[::every]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


def _check_split(name: str, split: str, images: Pixels, labels: Labels, classes: int) -> None:
    where = f"data set {name}, {split} split"
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise InputError(
            f"{where}: images are {images.dtype} of shape {images.shape}",
            allowed="uint8 of shape (images, channels, height, width), at least one image",
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{where}: labels are {labels.dtype} of shape {labels.shape} for {len(images)} images",
            allowed="one integer per image",
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"{where}: labels run from {labels.min()} to {labels.max()}", allowed=f"0 to {classes - 1}"
        )
