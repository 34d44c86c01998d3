"""Hostile files by the command line: one message, bounded memory and time, nothing written or run."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hostile_files import npy_header, write_bomb
from onnx import ModelProto, TensorProto, numpy_helper
from qonnx_factory import Net

GIB = 1 << 30

CHILD = """
import contextlib, io, json, re, resource, sys, time
from pathlib import Path
from qhw.cli import main
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
results = {}
for name, arguments in json.load(sys.stdin).items():
    out, err, start = io.StringIO(), io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stopped:
            code = stopped.code
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"[:500]
    results[name] = [code, out.getvalue(), err.getvalue(), time.perf_counter() - start]
results["peak"] = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
print(json.dumps(results))
"""
"""Runs commands one after the other, in 6 GiB of address space; their exit codes, outputs and seconds."""


def plain_model() -> ModelProto:
    net = Net((4,))
    net.annotations["x"] = "INT4"
    return net.model(net.quant(net.node("Relu", net.quant("x", 4, 1.0)), 4, 1.0, signed=0))


def with_constant(folding: str, *numbers: list[int], axes: tuple[int, ...] = (0,)) -> ModelProto:
    """A model that adds the largest number of what one node makes of constants, of int64."""
    net = Net((4,))
    names = [net.constant(np.array(values), f"given{i}") for i, values in enumerate(numbers)]
    made = net.node("ReduceMax", net.node(folding, *names, name="made"), axes=list(axes), keepdims=0)
    model = net.model(net.quant(net.node("Add", net.quant(net.x, 4, 1.0), made), 8, 1.0))
    for tensor, values in zip((t for t in model.graph.initializer if t.name in names), numbers, strict=True):
        tensor.CopyFrom(numpy_helper.from_array(np.array(values, dtype=np.int64), tensor.name))
    return model


def repeated(op: str, *numbers: float) -> ModelProto:
    """A model that enlarges an image."""
    net = Net((1, 4, 4))
    operand = net.constant(np.array(numbers), "numbers")
    inputs = ("", operand) if op == "Resize" else (operand,)
    options = {"mode": "nearest"} if op == "Resize" else {}
    model = net.model(net.quant(net.node(op, net.quant(net.x, 4, 1.0), *inputs, **options), 8, 1.0))
    if op == "Tile":
        tensor = next(t for t in model.graph.initializer if t.name == operand)
        tensor.CopyFrom(numpy_helper.from_array(np.array(numbers, dtype=np.int64), operand))
    return model


def claiming(*dims: int) -> ModelProto:
    """A model whose constant has another shape than bytes."""
    model = with_constant("Identity", [1, 2, 3, 4])
    tensor = next(t for t in model.graph.initializer if t.name == "given0")
    tensor.dims[:] = dims
    return model


def many_constants() -> ModelProto:
    """Forty constants of 256 MiB each, none of which is stored."""
    net = Net((4,))
    x = net.quant(net.x, 4, 1.0)
    for index in range(40):
        large = net.node("ConstantOfShape", net.constant(np.array([1 << 26]), f"shape{index}"))
        x = net.node("Add", x, net.node("ReduceMax", large, axes=[0]))
    model = net.model(net.quant(x, 8, 1.0))
    for tensor in model.graph.initializer:
        if tensor.name.startswith("shape"):
            tensor.CopyFrom(numpy_helper.from_array(np.array([1 << 26]), tensor.name))
    return model


def renamed(name: str) -> ModelProto:
    model = plain_model()
    model.graph.node[0].name = name
    return model


def not_utf8() -> bytes:
    return renamed("node-name").SerializeToString().replace(b"node-name", b"node\xff\xfeame")


def of_type(kind: int) -> ModelProto:
    model = plain_model()
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


MODELS: dict[str, tuple[ModelProto | bytes, str]] = {
    "constant_of_shape": (with_constant("ConstantOfShape", [10**12]), "has shape (1000000000000,)"),
    "expand": (
        with_constant("Expand", [1], [10**6, 10**6, 4], axes=(0, 1, 2)),
        "shape (1000000, 1000000, 4)",
    ),
    "tile": (with_constant("Tile", [1], [10**12]), "has shape (1000000000000,)"),
    "resize": (repeated("Resize", 1, 1, 1e6, 1e6), "has shape (1, 1, 4000000, 4000000)"),
    "copies": (repeated("Tile", 1, 1, 1, 1 << 24), "repeats a computed tensor 16,777,216 times"),
    "many": (many_constants(), "the constants that the model computes hold"),
    "claimed": (claiming(10**12), "The constant 'given0' has shape (1000000000000,)"),
    "negative": (claiming(-1), "The constant 'given0' has shape (-1,)"),
    "cut_short": (claiming(5), "The constant 'given0' is damaged: INT64, shape (5,)"),
    "long_name": (renamed("n" * 100_000), "has 100000 characters"),
    "not_utf8": (not_utf8(), "UTF-8 text"),
    "uint64": (of_type(TensorProto.UINT64), "has type UINT64"),
    "noise": (b"\x08\x07" + b"\xff" * 5000, "is not an ONNX file"),
    "groups": (b"\x3a\x82\x80\x80\x80\x10" + b"\x0a" * 5000, "is not an ONNX file"),
}

BOARDS = {
    "tcl": ('part = "x\\"; exec touch pwned; set y \\"[exec touch pwned]"', "part is"),
    "escape": ('name = "u/../../../pwned"', "name is"),
    "deep": ("lut = " + "[" * 20_000, "nested too deeply"),
    "markup": ('title = "[bold]\\u001b[31mred"', "title is"),
    "long": ('title = "' + "x" * 5000 + '"', "has 5,000 characters"),
}
CONFIGS = {
    "digits": ("seed = " + "1" * 5000, "is not a TOML file"),
    "hexadecimal": ("seed = 0x" + "f" * 5000, "is an integer of 20000 bits"),
    "deep": ("[quant]\noverrides = " + "{a=" * 20_000, "nested too deeply"),
    "dotted": ("quant" + ".a" * 30_000 + " = 1", "a key of too many parts"),
    "overrides": ("[quant]\noverrides = 5", "overrides is 5"),
    "channel": ('[quant.overrides.a]\nper_channel = "no"', "per_channel is 'no'"),
    "layers": ("quant = [1]", "quant is [1]"),
    "option": ('"[/x]\\u001b]0;t" = 1', "unknown option"),
}
ARRAYS = {
    "token": (b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'shape': ((\n" + b" " * 200, "is not a .npy file"),
    "claimed": (npy_header("'<f8'", f"({10**12},)"), "is not a .npy file"),
    "objects": (npy_header("'|O'", "(1,)") + bytes(8), "is not a .npy file"),
    "pickle": (b"cos\nsystem\n(S'touch pwned'\ntR.", "is not a .npy file"),
}
DEVICES = ("/dev/zero", "pipe", ".")


def write_files(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Hostile files in a folder, and by name the commands that are given one, and the words that answer."""
    commands: dict[str, tuple[list[str], str]] = {}
    onnx.save(plain_model(), folder / "plain.onnx")
    os.mkfifo(folder / "pipe")
    build = ["build", "plain.onnx", "--board", "ultra96", "--out", "out"]
    for name, (model, said) in MODELS.items():
        content = model if isinstance(model, bytes) else model.SerializeToString()
        (folder / f"{name}.onnx").write_bytes(content)
        commands[f"model {name}"] = (["cost", f"{name}.onnx", "--board", "ultra96"], said)
    commands["build"] = (["build", "long_name.onnx", "--board", "ultra96", "--out", "out"], "100000 char")
    for name, (text, said) in BOARDS.items():
        (folder / f"board_{name}.toml").write_text(f'based_on = "ultra96"\n{text}\n')
        commands[f"board {name}"] = (["build", "plain.onnx", "--board", f"board_{name}.toml"], said)
        commands[f"boards {name}"] = (["boards", f"board_{name}.toml"], said)
    for name, (text, said) in CONFIGS.items():
        (folder / f"config_{name}.toml").write_text(text)
        commands[f"config {name}"] = ([*build, "--config", f"config_{name}.toml"], said)
    for name, (content, said) in ARRAYS.items():
        (folder / f"{name}.npy").write_bytes(content)
        commands[f"input {name}"] = (["simulate", "plain.onnx", "--input", f"{name}.npy"], said)
        (folder / f"{name}.npz").write_bytes(content)
        commands[f"trace {name}"] = (["diff", "plain.onnx", f"{name}.npz"], "is not a file of arrays")
    for name in DEVICES:
        said = "cannot be read: it is"
        commands[f"config {name}"] = ([*build, "--config", name], said)
        commands[f"input {name}"] = (["simulate", "plain.onnx", "--input", name], said)
        if name != ".":
            commands[f"model {name}"] = (["simulate", name], said)
            commands[f"built {name}"] = (["build", name, "--board", "ultra96", "--out", "out"], said)
            commands[f"board {name}"] = (["boards", f"./{name}" if name == "pipe" else name], said)
            commands[f"data {name}"] = (["simulate", "plain.onnx", "--data", name], said)
            commands[f"trace {name}"] = (["diff", "plain.onnx", name], said)
    for clock in ("nan", "inf", "-5", "1e300", "0.5"):
        given = ["plain.onnx", "--board", "ultra96", f"--clock-mhz={clock}"]
        commands[f"cost at {clock}"] = (["cost", *given], "1 to 2000 MHz")
        commands[f"build at {clock}"] = (["build", *given, "--out", "out"], "1 to 2000 MHz")
    commands["samples"] = (["simulate", "plain.onnx", "--samples", "9" * 20], "random samples are asked for")
    write_bomb(folder / "trace.npz", "tensor:x", "'<i8'", 3 * GIB)
    write_bomb(folder / "data.npz", "train_x", "'<i8'", 3 * GIB)
    commands["trace bomb"] = (["diff", "plain.onnx", "trace.npz"], "unpacks to 3,221,225,")
    commands["data bomb"] = (["simulate", "plain.onnx", "--data", "data.npz"], "unpacks to 3,221,225,")
    (folder / "idx").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / "idx" / f"{name}-ubyte.gz").write_bytes(gzip.compress(bytes(1 << 24)) * 65)
    commands["idx bomb"] = (["simulate", "plain.onnx", "--data", "idx"], "unpacks to too much")
    return commands


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def answers(place: Path) -> tuple[dict[str, tuple[list[str], str]], dict[str, Any]]:
    """The commands with the words that should answer, and what did."""
    commands = write_files(place)
    before = sorted(place.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps({name: arguments for name, (arguments, _) in commands.items()}),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=place,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout)
    results["left"] = [str(path) for path in sorted(place.rglob("*")) if path not in before]
    return commands, results


def test_each_ends_in_one_message(answers: Any) -> None:
    commands, results = answers
    assert len(commands) >= 70
    other = {name: results[name][:3] for name in commands if results[name][:2] != [2, ""]}
    assert other == {}
    unsaid = {name: results[name][2] for name, (_, said) in commands.items() if said not in results[name][2]}
    assert unsaid == {}
    for name, (arguments, _) in commands.items():
        _, _, err, seconds = results[name]
        assert err.count("Error: ") == 1, (arguments, err)
        assert len(err) < 6000, (arguments, len(err))
        assert all(line.isprintable() for line in err.splitlines()), (arguments, err)
        assert seconds < 20, (arguments, seconds)


def test_nothing_is_written_or_run(answers: Any) -> None:
    _, results = answers
    assert results["left"] == []


def test_memory_stays_bounded(answers: Any) -> None:
    _, results = answers
    assert results["peak"] < 3 * GIB
