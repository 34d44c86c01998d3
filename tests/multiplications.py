"""Copies of ap_types with which no number can be multiplied: what compiles with them has no multiplier."""

from __future__ import annotations

import shutil
from pathlib import Path

REFUSAL = "a multiplication of ap types"

# The two places that every product of ap types goes through; both are templates, so that only its use fails.
INTEGER_PRODUCT = "    ret.V = lhs.V Sym rhs.V;                                                  \\\n"
FIXED_PRODUCT = "    r.V *= op2.V;\n    return r;\n"


def forbid_multiplications(ap_types: Path) -> None:
    """Change a copy of ap_types: a multiplication that is instantiated does not compile."""
    refusal = f'static_assert({{}}, "{REFUSAL}");'
    product = refusal.format("#Sym[0] != '*' || _AP_W < 0")
    _replace(ap_types / "ap_int_base.h", INTEGER_PRODUCT, f"    {product} \\\n{INTEGER_PRODUCT}")
    _replace(
        ap_types / "ap_fixed_base.h", FIXED_PRODUCT, f"    {refusal.format('_AP_W < 0')}\n{FIXED_PRODUCT}"
    )


def without_multiplications(ap_types: Path, folder: Path) -> Path:
    """A copy of ap_types in a new folder, so changed."""
    shutil.copytree(ap_types, folder)
    forbid_multiplications(folder)
    return folder


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, path
    path.write_text(text.replace(old, new))
