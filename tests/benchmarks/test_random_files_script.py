"""The comparison of random files finds a wrong graph, reduces the file, and tells lost from refused files."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from file_reference import Output
from onnx import ModelProto
from random_files import random_file

import qhw.graph.lower
from qhw.graph.ir import ExactGraph

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "random_files.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("random_files_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def convolving(script: ModuleType) -> Any:
    """The first file whose graph has a convolution."""
    files = (random_file(seed, "power") for seed in range(100))
    return next(file for file in files if script.lowered(file).get("operations", {}).get("Conv"))


def test_a_weight_that_is_off_by_one_is_found(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    file = convolving(script)
    assert script.checked(file, "power", None)["verdict"] == "ok"
    right = qhw.graph.lower.lower

    def wrong(source: Any) -> ExactGraph:
        graph = right(source)
        weights = {node.inputs[1] for node in graph.nodes if node.op == "Conv"}
        for name in weights:
            graph.constants[name] = np.clip(-graph.constants[name], *_bounds(graph, name))
        return graph

    monkeypatch.setattr(qhw.graph.lower, "lower", wrong)
    record = script.checked(file, "power", None)
    assert record["verdict"] == "contract"
    small = script.reduced(file, lambda f: script.checked(f, "power", None)["verdict"] == "contract")
    assert script.checked(small, "power", None)["verdict"] == "contract"
    assert len(small.model.graph.node) < len(file.model.graph.node)
    assert "Conv(" in script.written_out(small.model)


def _bounds(graph: ExactGraph, name: str) -> tuple[int, int]:
    format = graph.tensors[name].format
    return format.mantissa_low, format.mantissa_high


def test_equal_numbers_are_equal_however_they_are_scaled(script: ModuleType) -> None:
    ints = np.array([[1, -2, 3]], dtype=object)
    assert not script.difference(Output(ints, 1), Output(ints * 4, -1))
    assert not script.difference(Output(ints, 1), Output(ints, 0, np.array(2.0), np.array(0.0)))
    assert "1 of 3" in script.difference(Output(ints, 0), Output(np.array([[1, -2, 4]], dtype=object), 0))
    # Beyond float64's 53 bits, too.
    large = ints * (1 << 70)
    assert script.difference(Output(large, 0), Output(large + 1, 0))


def test_another_checkout_answers_in_a_process_of_its_own(script: ModuleType) -> None:
    file = convolving(script)
    server = script.Server(Path(qhw.__file__).parents[1])
    try:
        here, there = script.lowered(file), server.lowered(file)
    finally:
        server.close()
    assert here == there
    lost = dataclasses.replace(file, model=_with_unknown_operator(file.model))
    assert script.checked(lost, "power", _Answering(there))["verdict"] == "lost"


@dataclasses.dataclass
class _Answering:
    """A checkout that lowers whatever it is given."""

    answer: dict[str, Any]

    def lowered(self, file: Any) -> dict[str, Any]:
        return self.answer


def _with_unknown_operator(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.graph.node[0].op_type = "NoSuchOperator"
    return copy


def test_messages_are_told_apart_by_their_words(script: ModuleType) -> None:
    messages = ("Conv 'a1': its scale 0.5 differs", "Conv 'b': its scale 1e-3 differs")
    assert len({script.sample_of(message) for message in messages}) == 1
    assert script.sample_of("Conv 'a': another reason") != script.sample_of(messages[0])
