"""No module reads a file, or runs what is in one, but by ``qhw.outside``; the few others are listed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "qhw"

PARSERS = {
    "json": {"load", "loads"},
    "tomllib": {"load", "loads"},
    "np": {"load", "fromfile", "loadtxt", "genfromtxt", "memmap", "fromregex"},
    "numpy": {"load", "fromfile", "loadtxt", "genfromtxt", "memmap", "fromregex"},
    "onnx": {"load", "load_model", "load_model_from_string", "load_from_string"},
    "csv": {"reader", "DictReader"},
    "gzip": {"open", "GzipFile", "decompress"},
    "zipfile": {"ZipFile"},
    "tarfile": {"open", "TarFile"},
    "shutil": {"unpack_archive"},
    "pickle": {"load", "loads", "Unpickler"},
    "marshal": {"load", "loads"},
    "yaml": {"load", "load_all", "safe_load", "full_load", "unsafe_load"},
    "torch": {"load"},
    "os": {"system", "popen", "open"},
    "ElementTree": {"parse", "fromstring", "iterparse"},
    "importlib.util": {"spec_from_file_location"},
}
"""Functions that read, by the module that has them."""

BUILT_IN = {"eval", "exec", "compile", "__import__", "open"}
METHODS = {"read_text", "read_bytes", "exec_module"}

ALLOWED = {
    # a checkpoint of the build folder, with weights_only, behind its seal
    "checkpoints.py": {"torch.load", ".open"},
    # an image that the door has opened
    "data/images.py": {".open"},
    # what a tool wrote a moment ago into a folder made for it
    "cost/oracle/nextpnr.py": {"json.loads", ".read_text"},
    "cost/oracle/vivado.py": {".read_text"},
    "cost/oracle/yosys_run.py": {"json.load"},
    "rtl/simulation/verilator.py": {"np.fromfile"},
    "flows/finn/driver.py": {".read_text"},
    "flows/hls4ml/project.py": {".read_text"},
    "flows/hls4ml/zynq.py": {".read_text"},
    "flows/mcu/execution.py": {"np.fromfile"},
    "flows/hls4ml/simulation.py": {"np.fromfile"},
    "flows/hls4ml/synthesis.py": {"ElementTree.parse"},
    "flows/rtl/simulation.py": {".read_bytes", "np.fromfile"},
    # copied into projects, it runs on a board that has NumPy and not this package
    "flows/finn/host.py": {"json.loads", ".read_text", "np.load"},
    "zynq/driver.py": {"json.loads", ".read_text", "np.load"},
    # the package's own files
    "zynq/folder.py": {".read_text"},
    "flows/rtl/circuit.py": {".read_text"},
    "rtl/base.py": {".read_text"},
    "rtl/constant_matrix.py": {".read_text"},
    "pipeline/manifest.py": {"json.loads", ".read_text"},
    "search/front.py": {"json.loads", ".read_text"},
    # both
    "rtl/simulation/runtime.py": {".open", ".read_bytes"},
    "cost/oracle/synth.py": {"json.loads", ".read_text", ".read_bytes"},
    "native.py": {".read_text", ".read_bytes"},
    # bytes that are hashed, and not looked at
    "flows/base.py": {".read_bytes"},
    "flows/sealed.py": {".open"},
    "pipeline/stages.py": {"json.loads", ".open", "os.open"},
    # the device that takes what nobody can be told
    "cli.py": {"os.open"},
    # the user's own key, by who owns it
    "vouched.py": {"os.open"},
    # what this user's own workers answer, or those of a scheduler that the user named
    "search/cluster.py": {"pickle.loads"},
    # a user's own Python file is code, and runs
    "pipeline/user_file.py": {"compile", "exec"},
}
"""By module: what it calls, by the reason why that is no file from outside."""


def readers(tree: ast.Module) -> Iterator[str]:
    """Every call in a module that reads, parses or runs something, and every name imported for that."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = str(node.module)
            yield from (
                f"{module}.{alias.name}"
                for alias in node.names
                if alias.name in PARSERS.get(module, ()) or module in ("pickle", "marshal")
            )
        elif isinstance(node, ast.Call) and (found := called(node)):
            yield found


def called(call: ast.Call) -> str:
    """The reader that a call names; empty where it is none."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id if function.id in BUILT_IN else ""
    if not isinstance(function, ast.Attribute):
        return ""
    module, name = ast.unparse(function.value), function.attr
    if name in PARSERS.get(module, ()):
        return "" if writes(call) else f"{module}.{name}"
    if name == "open" and not writes(call):
        return "" if module in ("flow", "self", "archive", "webbrowser", "Store") else ".open"
    if any(word.arg == "shell" for word in call.keywords):
        return "shell="
    return f".{name}" if name in METHODS else ""


def writes(call: ast.Call) -> bool:
    """Whether a call opens something to write it."""
    modes = [a.value for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Constant)]
    return any(isinstance(mode, str) and mode[:1] in ("w", "a", "x") and len(mode) < 4 for mode in modes)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import json\njson.loads(text)", {"json.loads"}),
        ("from json import loads", {"json.loads"}),
        ("from pickle import Unpickler as U", {"pickle.Unpickler"}),
        ("path.open()", {".open"}),
        ("path.open('w')\nzipfile.ZipFile(path, 'w')", set()),
        ("(folder / 'x').read_text()", {".read_text"}),
        ("eval(text)\nmodel.eval()", {"eval"}),
        ("torch.load(path, weights_only=True)", {"torch.load"}),
        ("subprocess.run(text, shell=True)", {"shell="}),
    ],
)
def test_readers_are_seen(text: str, found: set[str]) -> None:
    assert set(readers(ast.parse(text))) == found


def test_every_module_reads_by_the_door() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith("outside/") and (calls := set(readers(ast.parse(path.read_text())))):
            found[name] = calls
    unlisted = {name: calls - ALLOWED.get(name, set()) for name, calls in found.items()}
    assert {name: calls for name, calls in unlisted.items() if calls} == {}
    assert set(ALLOWED) <= set(found), "the list holds what is there no more"


def test_torch_reads_weights_alone() -> None:
    calls = [
        call
        for path in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.load"
    ]
    assert calls
    for call in calls:
        assert "weights_only=True" in [ast.unparse(word) for word in call.keywords]
