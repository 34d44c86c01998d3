"""What ``import qhw`` offers, and when it imports what."""

from __future__ import annotations

import subprocess
import sys

import qhw


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_qhw_imports_nothing() -> None:
    assert python("import sys, qhw; print([n for n in sys.modules if n.startswith('qhw.')])") == "[]"


def test_every_promised_name_is_there() -> None:
    for name in qhw.__all__:
        assert callable(getattr(qhw, name)), name


def test_a_verb_and_its_submodule_share_a_name() -> None:
    """Whatever is imported first, ``qhw.cost(...)`` is the verb and ``qhw.cost.estimate`` the submodule's."""
    for first in ("import qhw.cost", "from qhw.cost import estimate", "import qhw; qhw.cost"):
        code = f"""
{first}
import qhw
import qhw.cost
from qhw.errors import InputError
assert callable(qhw.cost.estimate)
try:
    qhw.cost("nowhere.onnx", board="ultra96")
except InputError as error:
    print(error.message)
"""
        assert python(code) == "nowhere.onnx does not exist"


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(qhw, "synthesize")
