"""The README's snippets run as printed, and so do the commands that build the files among them.

Other builds are planned: every option, name and file of theirs is looked up, and no more (such models are
trained and built elsewhere). Not run are what commands printed, which differs by machine, and their table.
"""

from __future__ import annotations

import copy
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from qonnx_factory import Net

from qhw.cli import main
from qhw.data import fashion_mnist
from qhw.errors import CheckFailedError
from qhw.pipeline import options as parsing
from qhw.pipeline.options import BuildOptions
from qhw.pipeline.run import make_plan
from qhw.search.options import SearchOptions
from qhw.search.run import make_plan as make_search_plan

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
FILES = {found[1]: text for kind, text in BLOCKS if kind == "python" and (found := FILE.match(text))}
SNIPPETS = [text for kind, text in BLOCKS if kind == "python" and not FILE.match(text)]
OWN, BY_OTHERS = [*SNIPPETS[:3], *SNIPPETS[5:]], SNIPPETS[3:5]
COMMANDS = [
    shlex.split(line.removeprefix("$ "), comments=True)
    for kind, text in BLOCKS
    if not kind
    for line in text.replace("\\\n", " ").splitlines()
    if re.match(r"(\$ )?(qhw|make|python) ", line)
]
BUILT = [words for words in COMMANDS if len(words) > 2 and words[2].partition(":")[0] in FILES]
PLANNED = [words for words in COMMANDS if words[:2] == ["qhw", "build"] and words not in BUILT]
RUN = [words for words in COMMANDS if words[:2] in (["qhw", "simulate"], ["qhw", "diff"])]
PTQ = [words for words in COMMANDS if words[:2] == ["qhw", "ptq"]]
SEARCHES = [words for words in COMMANDS if words[:2] == ["qhw", "search"]]


def test_what_is_looked_for_is_there() -> None:
    assert {kind for kind, _ in BLOCKS} == {"", "python", "toml"}
    assert set(FILES) == {"diabetes.py", "watch.py", "strokes.py", "digits_net.py"}
    assert [len(OWN), len(BY_OTHERS)] == [4, 2]
    assert [len(BUILT), len(PLANNED), len(RUN), len(PTQ), len(SEARCHES)] == [len(FILES), 12, 2, 3, 4]
    rest = [words for words in COMMANDS if words not in (*BUILT, *PLANNED, *RUN, *PTQ, *SEARCHES)]
    assert rest == [["make", "demo"], ["make", "test"], ["python", "digits_net.py"]]


def run(words: list[str], folder: Path) -> str:
    """What a command prints; it has to end well."""
    command = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("words", BUILT, ids=lambda words: words[2])
def test_commands_build_with_no_code_apart(words: list[str], tmp_path: Path) -> None:
    name = words[2].partition(":")[0]
    if name == "watch.py":
        pytest.importorskip("seglearn", reason="seglearn is not installed: pip install --no-deps seglearn")
    for file, text in FILES.items():
        (tmp_path / file).write_text(text)
    if ["python", name] in COMMANDS:
        run(["python", name], tmp_path)
    manifest = json.loads(run([*words, "--out", "built", "--json"], tmp_path))
    rows = [row for row in manifest["verification"] if "not_compared" not in row]
    assert all(row["mismatches"] == 0 for row in rows)
    assert "hls4ml C-simulation" in {row["backend"] for row in rows}
    accuracy = manifest["accuracy"]
    assert accuracy["warning"] is None
    metric, bound = {
        "diabetes.py": ("mae", 0.65),
        "watch.py": ("top-1", 0.7),
        "strokes.py": ("iou", 0.7),
        "digits_net.py": ("top-1", 0.94),
    }[name]
    assert accuracy["metric"] == metric
    assert accuracy["quantised"] < bound if metric == "mae" else accuracy["quantised"] > bound


class PlannedError(CheckFailedError):
    """A build came as far as its plan."""


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of the names that the README takes for the user's own."""
    for kind, text in BLOCKS:
        if kind == "toml":
            found = re.match(r"# (\w+\.toml)", text)
            assert found is not None
            (tmp_path / found[1]).write_text(text)
    shutil.copy(ROOT / "boards" / "zcu104.toml", tmp_path / "my_board.toml")
    (tmp_path / "net.py").write_text("def make_net():\n    raise SystemExit\n")
    for seed, name in enumerate(("model.onnx", "changed.onnx")):
        net, random = Net((1, 8, 8)), np.random.default_rng(seed)
        x = net.node("Flatten", "x", axis=1)
        x = net.node("MatMul", x, net.quant(random.integers(-7, 8, (64, 10)) * 0.125, 4, 0.125), name="fc")
        onnx.save(net.model(net.quant(x, 8, 4.0, name="last")), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", PLANNED, ids=lambda words: " ".join(words[2:]))
def test_other_builds_are_planned(
    words: list[str],
    surroundings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if "fashion-mnist" in words and not fashion_mnist.DEBIAN_FOLDER.is_dir():
        pytest.skip("Fashion-MNIST is not installed: apt-get install dataset-fashion-mnist")

    def planned(options: BuildOptions, **_: Any) -> None:
        raise PlannedError(make_plan(options).folder.name)

    monkeypatch.setattr("qhw.pipeline.run.build", planned)
    with pytest.raises(SystemExit) as ended:
        main(words[1:])
    assert ended.value.code == PlannedError.exit_code, capfd.readouterr().err
    assert not list(surroundings.glob("qhw-build*"))


@pytest.mark.parametrize("words", RUN, ids=lambda words: " ".join(words[1:]))
def test_other_commands_run(words: list[str], surroundings: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Here the two files differ, as those of the README do: exit code 1."""
    with pytest.raises(SystemExit) as ended:
        main(words[1:])
    out, err = capfd.readouterr()
    assert int(ended.value.code or 0) == (1 if words[1] == "diff" else 0), err
    assert ("First difference: layer 'fc' (MatMul)" in out) == (words[1] == "diff")


@pytest.mark.parametrize("words", PTQ, ids=lambda words: " ".join(words[1:]))
def test_quantisation_without_training_is_planned(
    words: list[str], surroundings: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its options are looked up; such commands are run in tests/cli."""

    def planned(options: BuildOptions, *_: Any, **__: Any) -> None:
        options.quant_config(), options.ptq_settings()
        raise PlannedError(options.model)

    monkeypatch.setattr("qhw.pipeline.quantise.quantise_file", planned)
    with pytest.raises(SystemExit) as ended:
        main(words[1:])
    assert ended.value.code == PlannedError.exit_code, capfd.readouterr().err


@pytest.mark.parametrize("words", SEARCHES, ids=lambda words: " ".join(words[1:]))
def test_searches_are_planned(
    words: list[str], surroundings: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if "resnet8" in words and not fashion_mnist.DEBIAN_FOLDER.is_dir():
        pytest.skip("Fashion-MNIST is not installed: apt-get install dataset-fashion-mnist")
    (surroundings / "weights.pt").write_bytes(b"")

    def planned(options: SearchOptions, **_: Any) -> None:
        raise PlannedError(make_search_plan(options).folder.name)

    monkeypatch.setattr("qhw.search.run.search", planned)
    with pytest.raises(SystemExit) as ended:
        main(words[1:])
    assert ended.value.code == PlannedError.exit_code, capfd.readouterr().err


def test_the_configuration_file_says_what_the_readme_says(surroundings: Path) -> None:
    options = parsing.merge(surroundings / "build.toml", {"model": "resnet8", "board": "ultra96"})
    config = options.quant_config()
    written = tomllib.loads((surroundings / "build.toml").read_text())
    assert str(config.weights) == written["quant"]["weights"]
    assert options.training == written["training"]
    assert set(config.overrides) == set(written["quant"]["overrides"])


def test_make_knows_its_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {words[1] for words in COMMANDS if words[0] == "make"}
    for target in {*named, *re.findall(r"`make ([\w-]+)`", README)}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the snippets of qhw's own leave, run in their order."""
    defined: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("snippets"))
        for text in OWN:
            exec(compile(text, "README.md", "exec"), defined)
        yield defined


def check(manifest: dict[str, Any]) -> None:
    assert manifest["accuracy"]["quantised"] > 0.85
    rows = [row for row in manifest["verification"] if "not_compared" not in row]
    assert all(row["mismatches"] == 0 for row in rows)
    assert "hls4ml C-simulation" in {row["backend"] for row in rows}


@pytest.mark.slow
def test_snippets_run_in_order(names: dict[str, Any]) -> None:
    check(names["result"].manifest)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "package", "model"),
    [(BY_OTHERS[0], "lightning", "by_lightning"), (BY_OTHERS[1], "transformers", "by_trainer")],
    ids=("lightning", "transformers"),
)
def test_what_other_loops_trained_builds(
    text: str, package: str, model: str, names: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
    import torch

    import qhw

    defined = copy.copy(names)
    exec(compile(text, "README.md", "exec"), defined)
    trained = defined[model].cpu().eval()
    before = qhw.convert(defined["mine"], qhw.QuantConfig(activations="fixed<6>"), defined["x"])
    weights = [dict(net.named_parameters())["0.weight"] for net in (before, trained)]
    assert not torch.equal(*weights)
    data = (defined["train"], defined["test"])
    check(qhw.build(trained, board="pynq-z2", data=data, out=model).manifest)
