"""Layers adjusted once for what they depend on are those that methods make of the whole network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qhw.search.adjusted import AdjustedLayers, adjusts_layers
from qhw.search.evaluators import make_evaluator
from qhw.search.evaluators.base import Held
from qhw.train import predict


def points(small: Any, count: int) -> list[tuple[int, ...]]:
    return small.space.sample(np.random.default_rng(0), count)


@pytest.mark.parametrize("method", ["gpfq", "adaround", "flexround"])
def test_layers_are_those_of_the_method_on_the_whole_network(small: Any, method: str) -> None:
    layers = AdjustedLayers(small.variants, (method,), small.variants.samples)
    plain = small.variants.module(points(small, 1)[0])
    for point in points(small, 2):
        found, expected = (
            layers.network(point).state_dict(),
            small.variants.quantised(point, (method,)).state_dict(),
        )
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert not torch.equal(found["conv2.weight"], plain.state_dict()["conv2.weight"])


def test_what_lies_in_front_of_a_change_is_not_adjusted_again(small: Any) -> None:
    layers = AdjustedLayers(small.variants, ("gpfq",), small.variants.samples)
    first = points(small, 1)[0]
    layers.network(first)
    assert layers.adjusted == 3  # two convolutions and the linear layer
    last = max(i for i, variable in enumerate(small.space.variables) if variable.kind == "weights")
    layers.network((*first[:last], (first[last] + 1) % 4, *first[last + 1 :]))
    assert layers.adjusted == 4


@pytest.mark.parametrize("methods", [(), ("gpfq",), ("gpfq", "bias-correction")])
def test_what_is_judged_is_the_network_that_is_exported(small: Any, methods: tuple[str, ...]) -> None:
    held = Held(small.data.test_x, small.data.judge)
    evaluator = make_evaluator("calibrated", small.variants, held, methods=methods)
    for point in points(small, 2):
        found = evaluator.evaluate(point)
        assert found.figure == held.judge.score(predict(evaluator.network(point), held.samples))
        expected = small.variants.quantised(point, methods).state_dict()
        exported = evaluator.network(point).state_dict()
        assert all(torch.equal(exported[key], expected[key]) for key in expected)


def test_methods_that_need_the_whole_network_are_told_apart() -> None:
    assert adjusts_layers(("gpfq",))
    assert not adjusts_layers(("gpfq", "bias-correction"))
    assert not adjusts_layers(("equalize",))
