"""The compiled element-wise kernel of the fast executor."""

from __future__ import annotations

import ctypes
import functools
import logging
from pathlib import Path

from qhw.errors import ToolMissingError
from qhw.native import compiled

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels") / "elementwise.cpp"


@functools.cache
def elementwise_kernel() -> ctypes.CDLL | None:
    """The kernel, compiled now if it is not in the cache; None (with the reason logged) without it."""
    try:
        library = compiled(SOURCE, ["-mprefer-vector-width=512"]).load()
    except ToolMissingError as error:
        logger.warning("element-wise operations run in NumPy, slower, with the same codes: %s", error)
        return None
    library.qhw_elementwise.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]
    library.qhw_elementwise.restype = None
    return library
