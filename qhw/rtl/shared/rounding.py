"""How units round: the modes of :mod:`qhw.formats`, by their place."""

from __future__ import annotations

from qhw.formats.modes import Rounding
from qhw.rtl.base import Parameter

ROUNDINGS = tuple(Rounding)
"""A unit's ROUNDING parameter is an index into this."""

ROUNDING = Parameter("ROUNDING", 0, len(ROUNDINGS) - 1, "a mode of Rounding, by place", default=4)
