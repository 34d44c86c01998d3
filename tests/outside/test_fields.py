"""Every field of every kind of file, given values of other types: a message that names the file, or none."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qhw.boards import load_board
from qhw.cost.calibration import model_file
from qhw.errors import InputError, QhwError
from qhw.formats.integer import Integer
from qhw.formats.modes import Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import (
    ExactGraph,
    HostStep,
    InputEncoding,
    InputStep,
    OutputScale,
    Postprocessing,
)
from qhw.graph.serialize import load_graph, save_graph
from qhw.pipeline.options import BuildOptions, merge
from qhw.quant_config import LayerFormats, QuantConfig
from qhw.resources import resource_dir
from qhw.sim.postprocess import postprocess, predicted_classes

WRONG: tuple[Any, ...] = (
    None, True, -1, 1.5, 1 << 40, 10**30, "x", "", [], {}, [1, [2]], ["a"], {"a": 1}, [-1], [1 << 40],
    "y" * 5000,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of every part of a JSON value; of a list, of its first two."""
    yield path
    parts = (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    )
    for key, part in parts:
        yield from places(part, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another part at a path."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def answer(use: Callable[[], object]) -> str:
    """The message that an action ends in; empty where it ends well."""
    try:
        use()
    except QhwError as error:
        return str(error)
    return ""


def refused(path: Path, use: Callable[[], object]) -> int:
    """How many changes of a JSON file are refused; any other exception than a message fails the test."""
    text, count = path.read_text(), 0
    document = json.loads(text)
    for place in places(document):
        for value in WRONG:
            path.write_text(json.dumps(changed(document, place, value)))
            said = answer(use)
            count += bool(said)
            named = not said or str(path.parent) in said or path.name in said
            assert (named, len(said) < 3000) == (True, True), (place, value, said[:3000])
    path.write_text(text)
    use()
    return count


def graph_with_a_host() -> ExactGraph:
    """An input that the host scales and clips, a convolution, and a Softmax on the host."""
    builder = GraphBuilder("g")
    steps = (InputStep("Mul", (None, 0.5)), InputStep("Clip", (None,), (("max", 6.0), ("min", -math.inf))))
    encoding = InputEncoding(0.5, 0.0, -8, 7, Rounding.RND_CONV, before=steps)
    x = builder.input("x", (1, 3, 3), Integer(4), -1, encoding)
    weight = builder.constant("w", np.arange(-9, 9).reshape(2, 1, 3, 3), Integer(5))
    y = builder.requant("q", builder.conv("conv", x, weight), Integer(6), 1)
    builder.output(y, OutputScale((0.5, 0.25)))
    graph = builder.finish()
    graph.postprocessing = Postprocessing(
        ("y",), (HostStep("Softmax", "s", ("y",), ("z",), ((2, 1, 1),), {"axes": (1,)}),), ("z",)
    )
    return graph


def used(graph: ExactGraph) -> None:
    inputs = {name: np.zeros((1, *graph.tensors[name].shape), dtype=np.float32) for name in graph.inputs}
    outputs = interpret(graph, encode_inputs(graph, inputs))
    values = {name: decode_output(graph, name, outputs[name]) for name in graph.outputs}
    postprocess(graph, values)
    predicted_classes(graph, values)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_exact_graph(tmp_path: Path) -> None:
    graph = graph_with_a_host()
    save_graph(graph, tmp_path)
    assert load_graph(tmp_path).input_encodings == graph.input_encodings

    def load_and_use() -> None:
        loaded = load_graph(tmp_path)
        answer(lambda: used(loaded))  # an input of another range, say, is refused; nothing else may happen

    assert refused(tmp_path / "graph.json", load_and_use) > 1000


def test_host_steps_that_go_round_in_circles(tmp_path: Path) -> None:
    save_graph(graph_with_a_host(), tmp_path)
    stored = json.loads((tmp_path / "graph.json").read_text())
    stored["postprocessing"]["steps"][0]["outputs"] = ["y"]
    (tmp_path / "graph.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="host step 's' writes what is there already"):
        load_graph(tmp_path)


def test_a_fitted_model(tmp_path: Path) -> None:
    whole = json.loads((resource_dir("cost_models") / "ecp5" / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(whole))
    few = dict(list(model_file.read(tmp_path / "model.json").units.items())[:1])
    model_file.write(tmp_path / "model.json", model_file.FittedFamily("ecp5", ("yosys",), few))
    assert refused(tmp_path / "model.json", lambda: model_file.read(tmp_path / "model.json")) > 300


def test_the_description_of_a_project(tmp_path: Path) -> None:
    pytest.importorskip("hls4ml")
    from qhw.flows.hls4ml import Hls4mlFlow
    from qhw.flows.hls4ml.project import read_description

    flow = Hls4mlFlow(io_type="io_stream")
    flow.write(flow.prepare(graph_with_a_host(), load_board("ultra96")), tmp_path / "project")
    (tmp_path / "alone").mkdir()
    for name in ("qhw_project.json", "qhw_orders.npy"):
        shutil.copy(tmp_path / "project" / name, tmp_path / "alone" / name)
    path = tmp_path / "alone" / "qhw_project.json"
    assert refused(path, lambda: read_description(tmp_path / "alone")) > 500
    stored = json.loads(path.read_text())
    for name in ("../../../bin/sh", "a b", "a\n", "-o", "$(x)", "a;b", "x" * 2000):
        path.write_text(json.dumps(stored | {"name": name}))
        with pytest.raises(InputError, match=r"at \$\.name"):
            read_description(tmp_path / "alone")


TOML = (
    "0", "-1", "1.5", "1e300", "true", '"x"', '""', "[]", "{}", "[1, [2]]", "{a = 1}", '["a"]',
    "1979-05-27", "07:32:00", "9223372036854775807", "-9223372036854775808",
)  # fmt: skip


def accepted(path: Path, text: str, use: Callable[[], object]) -> bool:
    path.write_text(text)
    try:
        use()
    except InputError:
        return False
    return True


def test_options_of_a_build(tmp_path: Path) -> None:
    path = tmp_path / "options.toml"

    def use() -> None:
        options = merge(path, {"layer": ["a:weights=fixed<4>"]})
        options.quant_config()
        assert options.wanted
        json.dumps(options.to_json())

    names = [*(item.name for item in fields(BuildOptions)), "format", "io_type", "quant.overrides.a"]
    names += [f"quant.{item.name}" for item in fields(QuantConfig)]
    names += [f"quant.overrides.a.{item.name}" for item in fields(LayerFormats)]
    outcomes = {(n, v): accepted(path, f"{n} = {v}\n", use) for n in names for v in TOML}
    assert 20 < sum(outcomes.values()) < len(outcomes) / 4
    assert not any(outcomes[name, "1979-05-27"] for name in names)


def test_fields_of_a_board(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    board = load_board("ultra96")
    names = [*asdict(board), *board.capacity, "kind", "sources.lut", "other"]
    outcomes = {
        (n, v): accepted(path, f'based_on = "ultra96"\n{n} = {v}\n', lambda: load_board(path))
        for n in names
        for v in TOML
    }
    assert 10 < sum(outcomes.values()) < len(outcomes) / 4
