"""The first minutes: `qhw` alone, completion in the shell, tools that are missing, and what is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from qonnx_factory import Net

from qhw.boards import list_boards
from qhw.cli import main
from qhw.doctor import diagnose
from qhw.flows import list_flows
from qhw.flows.base import ProjectFlow, load_flow
from qhw.report.first_contact import what_next

ROOT = Path(__file__).parents[2]


def test_the_name_alone_says_where_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([])
    out, err = capfd.readouterr()
    assert (ended.value.code or 0, err) == (0, "")
    assert "qhw build --board ultra96" in out
    assert "qhw doctor" in out
    assert "Go on" not in out


def test_and_how_to_go_on_with_what_was_made(tmp_path: Path) -> None:
    for age, name in enumerate(("qhw-search/a", "qhw-build/b", "qhw-build/c", "qhw-build/d", "qhw-build/no")):
        (tmp_path / name).mkdir(parents=True)
        if not name.endswith("no"):
            (tmp_path / name / "report.html").touch()
            os.utime(tmp_path / name / "report.html", (age, age))
    told = [line.split()[-1] for line in what_next(tmp_path).splitlines() if line.startswith("  open")]
    assert told == [str(tmp_path / f"qhw-build/{name}/report.html") for name in "dcb"]


def completed(words: str, folder: Path) -> list[str]:
    """What bash offers for a line of words."""
    asked = {
        "_QHW_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "qhw"],
        capture_output=True,
        text=True,
        env={**os.environ, **asked, "PYTHONPATH": str(ROOT)},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_shell_completes_commands_boards_flows_and_models(tmp_path: Path) -> None:
    (tmp_path / "digits.onnx").touch()
    (tmp_path / "digits.txt").touch()
    assert completed("qhw bu", tmp_path) == ["build"]
    assert completed("qhw build --board ", tmp_path) == list(list_boards())
    assert completed("qhw cost model.onnx --flow ", tmp_path) == list(list_flows())
    assert completed("qhw build digits", tmp_path) == ["digits-cnn", "digits.onnx"]
    assert completed("qhw build --multi", tmp_path) == ["--multipliers"]


def test_every_tool_that_a_flow_names_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    missing = {tool.name: tool.how_to_get for tool in diagnose().missing}
    for name in list_flows():
        flow = load_flow(name)
        for tool in flow.tools if isinstance(flow, ProjectFlow) else ():
            assert missing[tool.program], tool


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and an sdist of a clean copy of what is versioned."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel that the sdist gives, beside this one's dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    (sdist,) = built.glob("*.tar.gz")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    done = subprocess.run([*command, "-w", str(folder), str(sdist)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (wheel,) = folder.glob("*.whl")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "-q",
    ]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The dependencies are found by a path; .pth files there, such as an editable qhw's, are not read.
    (site / "dependencies.pth").write_text(str(Path(np.__file__).parents[1]) + "\n")
    return python.parent


def test_the_wheel_holds_what_the_package_reads(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("qhw/py.typed", "qhw/report/templates/page.css", "qhw/pipeline/build.schema.json"):
        assert name in names
    assert "qhw/_resources/boards/ultra96.toml" in names
    assert any(name.startswith("qhw/_resources/cost_models/rtl/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", ".venv"))]


def test_what_is_installed_runs_elsewhere(installed: Path, tmp_path: Path) -> None:
    net, random = Net((1, 4, 4)), np.random.default_rng(0)
    x = net.node("Flatten", net.quant(net.x, 4, 0.25, signed=0), axis=1)
    x = net.node("MatMul", x, net.quant(random.integers(-7, 8, (16, 4)) * 0.125, 4, 0.125), name="fc")
    onnx.save(net.model(net.quant(x, 8, 1.0, name="last")), tmp_path / "net.onnx")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(installed / words[0]), *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    place = run("python", "-c", "import qhw; print(qhw.__file__)").strip()
    assert Path(place).is_relative_to(installed.parent)
    assert "ultra96" in run("qhw", "boards")
    assert "fc" in run("qhw", "cost", "net.onnx", "--board", "ultra96")


def test_the_citation_says_the_version_and_the_licence() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
