"""The README's snippets run as printed, and so do the commands that build the files among them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
FILES = {found[1]: text for kind, text in BLOCKS if kind == "python" and (found := FILE.match(text))}
SNIPPETS = [text for kind, text in BLOCKS if kind == "python" and not FILE.match(text)]
COMMANDS = [
    line
    for kind, text in BLOCKS
    if not kind
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("qhw ") and any(f" {name}:" in line for name in FILES)
]


def test_what_is_looked_for_is_there() -> None:
    assert set(FILES) == {"diabetes.py", "watch.py", "strokes.py"}
    assert len(SNIPPETS) == 4
    assert len(COMMANDS) == len(FILES)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[2])
def test_commands_build_with_no_code_apart(command: str, tmp_path: Path) -> None:
    if "watch" in command:
        pytest.importorskip("seglearn", reason="seglearn is not installed: pip install --no-deps seglearn")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    words = [*shlex.split(command)[1:], "--out", "built", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "qhw", *words], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    manifest = json.loads(done.stdout)
    rows = [row for row in manifest["verification"] if "not_compared" not in row]
    assert all(row["mismatches"] == 0 for row in rows)
    assert "hls4ml C-simulation" in {row["backend"] for row in rows}
    accuracy = manifest["accuracy"]
    assert accuracy["warning"] is None
    least = {"diabetes.py": ("mae", 0.65), "watch.py": ("top-1", 0.7), "strokes.py": ("iou", 0.7)}
    metric, bound = least[command.split()[2].partition(":")[0]]
    assert accuracy["metric"] == metric
    assert accuracy["quantised"] < bound if metric == "mae" else accuracy["quantised"] > bound


@pytest.mark.slow
def test_snippets_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for text in SNIPPETS:
        exec(compile(text, "README.md", "exec"), names)
    manifest = names["result"].manifest  # type: ignore[attr-defined]
    assert manifest["accuracy"]["quantised"] > 0.85
    assert all(row["mismatches"] == 0 for row in manifest["verification"] if "not_compared" not in row)
