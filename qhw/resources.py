"""Data files that come with the package: boards, HLS headers, firmware kernels, measured circuits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from qhw.errors import InputError

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(kind: Literal["boards", "hls", "mcu", "cost_models"]) -> Path:
    """The folder of a kind of data file: inside an installed wheel, or at the top of a source tree.

    Raises InputError where the installation lacks it.
    """
    for folder in (_PACKAGE / "_resources" / kind, _PACKAGE.parent / kind):
        if folder.is_dir():
            return folder
    raise InputError(f"This installation of qhw has no {kind!r} folder", hint="install the package again")
