"""Names of the devices that PyTorch computes on; PyTorch is imported when one is looked for."""

from __future__ import annotations

import re
from typing import Any

from qhw.errors import InputError

DEVICES = "cpu, cuda, cuda:N, auto"


def is_device(name: object) -> bool:
    """Whether a text names a device, there or not."""
    return isinstance(name, str) and re.fullmatch(r"cpu|auto|cuda(:\d{1,4})?", name) is not None


def chosen_device(name: str) -> Any:
    """The ``torch.device`` of that name: cpu, cuda, cuda:N, or auto (a GPU where there is one).

    Raises:
        InputError: the name is none, or that GPU is not there.
    """
    if not is_device(name):
        raise InputError(f"device is {name!r}", allowed=DEVICES)
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index < count:
        return torch.device("cuda", index)
    has_cuda = torch.version.cuda is not None
    raise InputError(
        f"device {name} is not there: PyTorch {torch.__version__} sees {count} CUDA devices",
        allowed=", ".join(["cpu", "auto", *(f"cuda:{i}" for i in range(count))]),
        hint="look at nvidia-smi" if has_cuda else "install PyTorch's CUDA build, or use the CPU",
    )
