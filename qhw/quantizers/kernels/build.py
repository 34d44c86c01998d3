"""The compiled quantizer kernels of this machine."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from qhw.native import Library, compiled

SOURCE = Path(__file__).with_name("fixed.cpp")

# No fused multiply-add and no relaxed arithmetic: the bits have to be those of the eager form. The last two
# flags let rounding be vectorised: nothing here reads errno or floating-point traps.
FLAGS = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")


@cache
def library() -> Library:
    """The kernels, compiled now if they are not in the cache.

    Raises:
        ToolMissingError: there is no g++, it failed, or the cache folder cannot be written.
    """
    return compiled(SOURCE, [*FLAGS, *_openmp_flags()])


def _openmp_flags() -> list[str]:
    """Links to the OpenMP library that torch brings, so that both share one pool of threads."""
    folder = Path(torch.__file__).parent / "lib"
    found = sorted(folder.glob("libgomp*.so*"))
    return [str(found[0]), f"-Wl,-rpath,{folder}"] if found else []
