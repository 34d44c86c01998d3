"""Which package imports which: numbers know nobody, hardware no training, and torch stays in its place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "qhw"

FOUNDATIONS = {"errors", "formats", "native", "outside", "resources", "torch_device", "vouched"}
WAIST = FOUNDATIONS | {"onnx_ops", "graph", "sim"}
KNOWN = {
    "errors": set(),
    "outside": {"errors"},
    "formats": {"errors"},
    "native": {"errors", "outside", "vouched"},
    "vouched": {"native"},
    "torch_device": {"errors"},
    "onnx_ops": FOUNDATIONS,
    "graph": WAIST,
    "sim": WAIST,
    "devices": FOUNDATIONS,
    "tasks": FOUNDATIONS,
    "data": FOUNDATIONS | {"arrays", "tasks"},
    "rtl": FOUNDATIONS | {"devices"},
    "cost": WAIST | {"boards", "devices", "rtl"},
    "patch": WAIST,
    "zynq": WAIST | {"boards", "devices"},
    "flows": WAIST | {"boards", "devices", "rtl", "cost", "patch", "zynq"},
}
"""What the packages behind the waist know of the others, imports inside functions included."""

TRAINING = {
    "quantizers",
    "layers",
    "convert",
    "export",
    "models",
    "train",
    "tracing",
    "calls",
    "checkpoints",
    "accelerator",
    "ptq",
    "patch",
    "search",
}
"""Where torch and Brevitas are imported with the module; elsewhere only when a function needs them."""

HEAVY = {"torch", "brevitas"}


def modules(package: str) -> list[Path]:
    single = PACKAGE / f"{package}.py"
    return [single] if single.exists() else sorted((PACKAGE / package).rglob("*.py"))


def imported(tree: ast.Module, *, in_functions: bool) -> Iterator[str]:
    """Full names of what is imported when a module is run, and maybe when its functions are."""
    rest: list[ast.AST] = list(tree.body)
    while rest:
        node = rest.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            rest += node.orelse
        elif in_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            rest += ast.iter_child_nodes(node)


def test_imports_are_seen_wherever_they_stand() -> None:
    text = """
import qhw.a
if TYPE_CHECKING:
    import qhw.types
try:
    from qhw import b
except ImportError:
    import torch.nn
class C:
    import qhw.c
def f():
    import brevitas
"""
    tree = ast.parse(text)
    outside = {"qhw.a", "qhw.b", "qhw.c", "torch.nn"}
    assert set(imported(tree, in_functions=False)) == outside
    assert set(imported(tree, in_functions=True)) == outside | {"brevitas"}


@pytest.mark.parametrize("package", sorted(KNOWN))
def test_a_package_knows_those_in_front_of_it_alone(package: str) -> None:
    files = modules(package)
    assert files
    for path in files:
        names = (name.split(".") for name in imported(ast.parse(path.read_text()), in_functions=True))
        known = {parts[1] for parts in names if parts[0] == "qhw"}
        assert known <= KNOWN[package] | {package}, path


COST = ("oracle", "calibration", "pricing")
"""The parts of the cost package; each knows those in front of it."""


@pytest.mark.parametrize("part", COST)
def test_measuring_knows_no_models_and_models_no_prices(part: str) -> None:
    files = modules(f"cost/{part}")
    assert files
    known = {f"qhw.cost.{other}" for other in COST[: COST.index(part) + 1]}
    for path in files:
        names = imported(ast.parse(path.read_text()), in_functions=True)
        used = {".".join(name.split(".")[:3]) for name in names if name.startswith("qhw.cost")}
        assert used <= known, path


def test_torch_is_imported_with_the_modules_that_train_alone() -> None:
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        package = path.relative_to(PACKAGE).with_suffix("").parts[0]
        names = imported(ast.parse(path.read_text()), in_functions=False)
        if any(name.split(".")[0] in HEAVY for name in names):
            found.add(package)
    assert found <= TRAINING
    assert {"quantizers", "layers", "convert", "export"} <= found
