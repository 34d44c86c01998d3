"""Weights that torch wrote, from outside: of bounded size, and no object but tensors unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from qhw.errors import InputError
from qhw.outside import opened, shown


def read_weights(path: Path, what: str, limit: int, hint: str | None = None) -> Any:
    """What ``torch.save`` wrote, tensors on the CPU; needs torch.

    Raises:
        InputError: as for :func:`qhw.outside.opened`; it is damaged, or holds something else than tensors.
    """
    import torch

    with opened(path, what, limit, hint) as file:
        try:
            return torch.load(file, weights_only=True, map_location="cpu")
        except (
            RuntimeError,
            EOFError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            pickle.UnpicklingError,
        ) as error:
            raise InputError(
                f"The {what} {shown(str(path))} holds no weights: {str(error).splitlines()[0][:200]}",
                hint=hint,
            ) from None
