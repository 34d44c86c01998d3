"""Number formats, their modes, and the notation that parses and prints back."""

from qhw.formats.base import Format, UniformFormat
from qhw.formats.few_valued import Binary, Ternary
from qhw.formats.fixed import Fixed
from qhw.formats.integer import Integer
from qhw.formats.khot import KHot
from qhw.formats.minifloat import Minifloat, Special
from qhw.formats.modes import Overflow, Rounding
from qhw.formats.parse import parse_fixed, parse_format
from qhw.formats.power_of_two import PowerOfTwo
from qhw.formats.scaled import Scaled
from qhw.formats.table import TableFormat

__all__ = [
    "Binary",
    "Fixed",
    "Format",
    "Integer",
    "KHot",
    "Minifloat",
    "Overflow",
    "PowerOfTwo",
    "Rounding",
    "Scaled",
    "Special",
    "TableFormat",
    "Ternary",
    "UniformFormat",
    "parse_fixed",
    "parse_format",
]
