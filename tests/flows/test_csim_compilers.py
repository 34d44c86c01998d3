"""A C-simulation whose compiler fails in its own way ends in one message."""

from __future__ import annotations

from pathlib import Path

import pytest
from hls4ml_project import designed, random_inputs, small_graph

from qhw.errors import CheckFailedError, QhwError, ToolMissingError
from qhw.flows.base import Project
from qhw.flows.hls4ml import Hls4mlFlow

GRAPH = small_graph()
FLOW = Hls4mlFlow("io_parallel")

COMPILERS: dict[str, tuple[type[QhwError], str]] = {
    "#!/bin/sh\nprintf 'gr\\366\\337e' >&2\nexit 1\n": (
        CheckFailedError,
        "ended with exit code 1:\ngr\N{REPLACEMENT CHARACTER}",
    ),
    "#!/bin/sh\nexit 3\n": (CheckFailedError, "ended with exit code 3 and said nothing"),
    "#!/bin/sh\nkill -9 $$\n": (CheckFailedError, "died of SIGKILL"),
    "#!/bin/sh\nexit 0\n": (ToolMissingError, "though it succeeded"),
    "no program": (ToolMissingError, "g++ cannot be run: Exec format error"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return FLOW.write(designed(FLOW, GRAPH), tmp_path_factory.mktemp("compilers") / "project")


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_message_tells_how_the_compiler_ended(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    program = tmp_path / "g++"
    program.write_text(compiler)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    kind, words = COMPILERS[compiler]
    with pytest.raises(kind) as caught:
        FLOW.simulate(project, random_inputs(GRAPH, 2))
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000
