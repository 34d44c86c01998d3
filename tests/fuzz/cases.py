"""One case of a campaign: an input made from a seed and damaged, and the command that a user gives it to."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qhw.resources import resource_dir

from . import seeds
from .file_mutations import (
    mutated_csv,
    mutated_idx,
    mutated_json,
    mutated_npy,
    mutated_npz,
    mutated_toml,
)
from .onnx_mutations import damaged_bytes, mutated

Chance = random.Random


@dataclass(frozen=True)
class Case:
    """What is run.

    Args:
        arguments: of the command line, in the case's folder; or ``read KIND FILE``: a reader without one.
        told: the seed and what was done to it.
        is_exact: exit code 1 of it means that two executions of one model differ.
    """

    arguments: tuple[str, ...]
    told: str
    is_exact: bool = False


def case(kind: str, seed: int, index: int, where: Path, folder: Path) -> Case:
    """Case ``index`` of a campaign, written into a folder; ``where`` holds the seeds.

    The same numbers and seeds give the same case.
    """
    chance = random.Random(f"{kind} {seed} {index}")
    if kind == "onnx":
        return _onnx(chance, where, folder)
    make = chance.choices([make for make, _ in FILES], [weight for _, weight in FILES])[0]
    return make(chance, where, folder)


# --- models ---


def _onnx(chance: Chance, where: Path, folder: Path) -> Case:
    """A damaged model; where it still lowers, the fast executor must give what the interpreter does."""
    model, name = seeds.model(chance)
    content, told = mutated(model, chance)
    (folder / "case.onnx").write_bytes(content)
    commands = (
        (70, ("diff", "case.onnx", "case.onnx@interpreter", "--samples", "3", "--json")),
        (5, ("simulate", "case.onnx", "--samples", "3")),
        (
            3,
            (
                "simulate",
                "case.onnx",
                "--samples",
                "2",
                "--input",
                chance.choice(["uint8", "int4", "uint16"]),
            ),
        ),
        (4, ("simulate", "case.onnx", "--samples", "2", "--backend", "qonnx")),
        (5, ("cost", "case.onnx", "--board", "zcu102", "--json")),
        (4, ("cost", "case.onnx", "--board", "ulx3s", "--flow", "rtl")),
        (8, ("build", "case.onnx", "--board", "zcu102", "--out", "out", "--json")),
    )
    arguments = chance.choices([a for _, a in commands], [weight for weight, _ in commands])[0]
    return Case(arguments, f"{name}: {told}", is_exact=arguments[0] == "diff")


# --- other files ---


def _written(
    name: str,
    source: Path,
    folder: Path,
    mutate: Callable[[bytes, Chance], tuple[bytes, str]],
    chance: Chance,
) -> str:
    """A damaged file in the case's folder, and what was done to it."""
    content, told = mutate(source.read_bytes(), chance)
    (folder / name).write_bytes(content)
    return f"{name}: {told}"


def _board(chance: Chance, where: Path, folder: Path) -> Case:
    told = _written(
        "case.toml", where / chance.choice(["board.toml", "based.toml"]), folder, mutated_toml, chance
    )
    shutil.copy(where / "small.onnx", folder)
    commands = (
        ("boards", "case.toml", "--json"),
        ("boards", "./case.toml"),
        ("cost", "small.onnx", "--board", "case.toml", "--json"),
        ("cost", "small.onnx", "--board", "case.toml", "--flow", "rtl"),
    )
    return Case(chance.choice(commands), told)


def _config(chance: Chance, where: Path, folder: Path) -> Case:
    told = _written(
        "case.toml", where / chance.choice(["config.toml", "options.toml"]), folder, mutated_toml, chance
    )
    for name in ("small.onnx", "data.npz"):
        shutil.copy(where / name, folder)
    return Case(("build", "--config", "case.toml", "--json"), told)


def _input(chance: Chance, where: Path, folder: Path) -> Case:
    told = _written("case.npy", where / "x.npy", folder, mutated_npy, chance)
    shutil.copy(where / "small.onnx", folder)
    backend = chance.choice(["exact", "exact", "interpreter", "qonnx"])
    return Case(("simulate", "small.onnx", "--input", "case.npy", "--backend", backend, "--json"), told)


def _trace(chance: Chance, where: Path, folder: Path) -> Case:
    told = _written("case.npz", where / "trace.npz", folder, mutated_npz, chance)
    shutil.copy(where / "small.onnx", folder)
    return Case(
        ("diff", *chance.choice([("small.onnx", "case.npz"), ("case.npz", "small.onnx")]), "--json"), told
    )


def _data(chance: Chance, where: Path, folder: Path) -> Case:
    told = _written("case.npz", where / "data.npz", folder, mutated_npz, chance)
    shutil.copy(where / "small.onnx", folder)
    return Case(("simulate", "small.onnx", "--data", "case.npz", "--json"), told)


def _idx(chance: Chance, where: Path, folder: Path) -> Case:
    shutil.copytree(where / "idx", folder / "idx")
    shutil.copy(where / "small.onnx", folder)
    name = chance.choice(sorted(os.listdir(where / "idx")))
    told = _written(f"idx/{name}", where / "idx" / name, folder, mutated_idx, chance)
    if chance.random() < 0.2:
        (folder / "idx" / name).rename(folder / "idx" / f"{name}.gz")
    return Case(("simulate", "small.onnx", "--data", "idx", "--json"), told)


BUILD_FILES = (
    ("build.json", 5), ("graph/graph.json", 8), ("graph/constants.npz", 4), ("vectors/inputs.npz", 3),
    ("vectors/targets.npz", 2), ("vectors/outputs.npz", 1), ("cost/folding.json", 3), ("cost/layers.json", 1),
    ("model.onnx", 2), ("project/qhw_project.json", 5), ("project/qhw_orders.npy", 2),
    ("project/firmware/weights/w3.txt", 1), (".qhw/stages/lower.json", 2), (".qhw/stages/cost.json", 2),
    (".qhw/stages/project.json", 2), (".qhw/stages/import.json", 2), (".qhw/stages/vectors.json", 2),
)  # fmt: skip
"""Files of a build folder that qhw reads again, and how often each is damaged."""

_AGAIN = ("build", "small.onnx", "--board", "ultra96", "--data", "data.npz", "--out", "build", "--json")
BUILD_COMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "project": (
        ("simulate", "build", "--backend", "csim", "--samples", "2", "--json"),
        ("diff", "build", "small.onnx", "--samples", "2"),
    ),
    ".qhw": (_AGAIN,),
    "": (
        ("simulate", "build", "--json"),
        ("cost", "build", "--json"),
        ("diff", "build@exact", "small.onnx"),
        _AGAIN,
    ),
}
"""What reads the files of a folder in a build folder; of any other: the last."""

_BY_SUFFIX = {".json": mutated_json, ".npz": mutated_npz, ".npy": mutated_npy}


def _build_folder(chance: Chance, where: Path, folder: Path) -> Case:
    """A build folder in which one file is damaged or missing."""
    shutil.copytree(where / "build", folder / "build")
    for name in ("small.onnx", "data.npz"):
        shutil.copy(where / name, folder)
    name = chance.choices([n for n, _ in BUILD_FILES], [weight for _, weight in BUILD_FILES])[0]
    path, told = Path("build") / name, f"{name} is missing"
    if chance.random() < 0.04:
        (folder / path).unlink()
    else:
        mutate = _BY_SUFFIX.get(path.suffix, damaged_bytes)
        told = _written(str(path), where / path, folder, mutate, chance)
    commands = BUILD_COMMANDS.get(name.split("/")[0], BUILD_COMMANDS[""])
    return Case(chance.choice(commands), told)


def _measured(chance: Chance, where: Path, folder: Path) -> Case:
    told = _written("measured.csv", where / "measured.csv", folder, mutated_csv, chance)
    return Case(("read", "measured", "measured.csv"), told)


def _model_json(chance: Chance, where: Path, folder: Path) -> Case:
    told = _written(
        "model.json", resource_dir("cost_models") / "ecp5" / "model.json", folder, mutated_json, chance
    )
    return Case(("read", "model", "model.json"), told)


FILES: tuple[tuple[Callable[[Chance, Path, Path], Case], float], ...] = (
    (_board, 14), (_config, 16), (_input, 12), (_trace, 12), (_data, 9), (_idx, 5), (_build_folder, 26),
    (_measured, 3), (_model_json, 3),
)  # fmt: skip
