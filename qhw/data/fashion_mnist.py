"""Fashion-MNIST: 60,000 + 10,000 images of 28x28 pixels (Zalando Research, MIT licence)."""

from __future__ import annotations

from pathlib import Path

from qhw.data import idx
from qhw.data.base import Dataset
from qhw.errors import InputError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""The folder of the four files in Debian's package dataset-fashion-mnist."""


def load(root: Path | None = None) -> Dataset:
    """The whole data set from ``root``, a folder of the four idx files, or from Debian's package.

    Raises:
        InputError: neither the package nor such a folder exists, or a file is damaged.
    """
    return idx.load_folder(root or find(), name="fashion-mnist")


def find() -> Path:
    """The folder of Debian's package; raises InputError where it is not installed."""
    if not DEBIAN_FOLDER.is_dir():
        raise InputError(
            f"Fashion-MNIST is not installed ({DEBIAN_FOLDER} does not exist)",
            hint="apt-get install dataset-fashion-mnist, or give a folder with its four idx files "
            "(https://github.com/zalandoresearch/fashion-mnist)",
        )
    return DEBIAN_FOLDER
