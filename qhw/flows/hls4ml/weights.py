"""The weights of a project, which it has twice: in headers for synthesis, as text for the C-simulation.

A header holds its array for synthesis alone; the simulation reads the text file of the same name as it runs.
What is verified is what is synthesised only where the two hold the same numbers.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path

from qhw.errors import CheckFailedError
from qhw.outside import refuse_link
from qhw.outside.text import read_text

_FOLDER = Path("firmware", "weights")
_HEADER = re.compile(
    r"(?://[^\n\\]*\n)*\s*#ifndef (\w+)\n#define \1\n\s*"
    r"#ifndef __SYNTHESIS__\n([^\n;={}#]+);\n#else\n\2 = \{([^{}]*)\};\s*#endif\s*#endif\s*"
)
"""The form in which hls4ml writes a header: one array, declared for the simulation, filled for synthesis."""
_LARGEST_FILE = 1 << 31
_NUMBERS = re.compile(r"[-+.,0-9eE ]*")
_HINT = "change both files alike; to have them written again, delete the header and run the same qhw build"


def check_weights(folder: Path) -> None:
    """Check that the headers and the text files of a project's weights hold the same numbers.

    Raises:
        CheckFailedError: they do not, a file is missing, or a header has another form; it names the file.
    """
    for header in sorted((folder / _FOLDER).glob("*.h")):
        refuse_link(header)
        refuse_link(header.with_suffix(".txt"))
        _check(header, header.with_suffix(".txt"))


def _check(header: Path, text: Path) -> None:
    form = _HEADER.fullmatch(read_text(header, "header of weights", _LARGEST_FILE))
    if form is None:
        raise CheckFailedError(
            f"{header} has not the form that qhw writes: what synthesis reads there cannot be verified",
            hint="delete it and run the same qhw build: it is written again",
        )
    if not text.is_file():
        raise CheckFailedError(f"{text} is missing: the simulation reads the weights of {header.name} there")
    synthesised, simulated = form[3].strip(), read_text(text, "file of weights", _LARGEST_FILE).strip()
    if synthesised == simulated and _NUMBERS.fullmatch(simulated):
        return
    for index, (ours, theirs) in enumerate(zip_longest(synthesised.split(","), simulated.split(","))):
        if not _are_equal(ours, theirs):
            raise CheckFailedError(
                f"{header} and {text.name} differ in element {index}: synthesis reads "
                f"{_shown(ours)}, the simulation {_shown(theirs)}",
                hint=_HINT,
            )


def _are_equal(first: str | None, second: str | None) -> bool:
    try:
        return first is not None and second is not None and Fraction(first) == Fraction(second)
    except (ValueError, ZeroDivisionError):
        return False


def _shown(number: str | None) -> str:
    return "nothing" if number is None else repr(number.strip()[:40])
