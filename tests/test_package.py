"""What ``import qhw`` offers, and when it imports what."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

import qhw

PROJECT = Path(__file__).parent.parent


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
    """Whatever is imported first, ``qhw.cost(...)`` is the verb and ``qhw.cost.estimate`` the function."""
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


def test_the_licence_is_apaches_to_the_letter_and_the_metadata_names_it() -> None:
    """The digest is that of https://www.apache.org/licenses/LICENSE-2.0.txt."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert project["project"]["license"] == "Apache-2.0"
    assert project["project"]["license-files"] == ["LICENSE"]
    # Older ones know no SPDX expression (PEP 639), and would leave the file out of the wheel.
    assert project["build-system"]["requires"] == ["hatchling>=1.27"]
    text = (PROJECT / "LICENSE").read_text()
    assert len(text.splitlines()) == 202
    assert "Copyright [yyyy] [name of copyright owner]" in text
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
