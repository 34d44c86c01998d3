"""Compilers that are none: every one ends in one message, with what it said if it said something."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhw import native
from qhw.errors import ToolMissingError

SOURCE = Path(native.__file__).parents[1] / "tests" / "test_native.py"
"""Any file: the compilers here do not read it."""

COMPILERS = {
    "#!/bin/sh\nprintf 'gr\\366\\337e' >&2\nexit 1\n": "ended with exit code 1:\ngr\N{REPLACEMENT CHARACTER}",
    "#!/bin/sh\nexit 3\n": "ended with exit code 3 and said nothing",
    "#!/bin/sh\nkill -9 $$\n": "died of SIGKILL and said nothing",
    "#!/bin/sh\nexit 0\n": "No such file",
    "no program": "Exec format error",
    '#!/bin/sh\n[ "$1" = --version ] || exec sleep 30\n': "timed out",
}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_compiler_that_fails_in_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    program = tmp_path / "g++"
    program.write_text(compiler)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "TIMEOUT_SECONDS", 1)
    with pytest.raises(ToolMissingError) as caught:
        native.compiled(SOURCE)
    assert COMPILERS[compiler] in str(caught.value)


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under any number: no HOME, and no entry in /etc/passwd."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(ToolMissingError, match="set HOME or XDG_CACHE_HOME"):
        native.cache_folder()
