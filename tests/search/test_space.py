"""The space of formats: variables of a network's layers, points, and what a user says about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhw.errors import InputError, UnsupportedError
from qhw.flows.base import load_flow
from qhw.quant_config import QuantConfig
from qhw.search.space import Site, Space, SpaceSettings, Variable

SITES = [
    Site("conv1", "weights"),
    Site("norm1", "activations", meets=0),
    Site("conv2", "weights"),
    Site("norm2", "activations", meets=0),
    Site("add", "activations"),
    Site("classify", "weights"),
    Site("classify", "activations", is_output=True),
]


def space(**settings: object) -> Space:
    return SpaceSettings.from_mapping(settings).space(SITES, QuantConfig())


def test_branches_that_meet_share_a_variable_and_the_output_is_left_out() -> None:
    found = [(variable.name, variable.layers) for variable in space().variables]
    assert found == [
        ("conv1.weights", ("conv1",)),
        ("norm1.activations", ("norm1", "norm2")),
        ("conv2.weights", ("conv2",)),
        ("add.activations", ("add",)),
        ("classify.weights", ("classify",)),
    ]
    assert len(space(residual=False).variables) == 6


def test_ties_pins_and_options_of_layers() -> None:
    found = space(
        weights=["fixed<2>", "fixed<4>"],
        tie=[["conv*"]],
        pin={"classify": {"weights": "fixed<8>"}},
        options={"add": {"activations": ["e2m1", "fixed<6>"]}},
    )
    assert [v.name for v in found.variables] == ["conv1.weights", "norm1.activations", "add.activations"]
    assert found.variables[0].layers == ("conv1", "conv2")
    assert found.variables[2].options == ("e2m1", "fixed<6>")
    assert str(found.config((0, 0, 0)).layer("classify").weights) == "fixed<8>"


def test_a_point_is_a_configuration() -> None:
    found = space(weights=["e2m1", "fixed<4>"], activations=["fixed<4>", "fixed<6>"])
    config = found.config((0, 1, 1, 0, 0))
    assert [str(config.layer(path).weights) for path in ("conv1", "conv2", "classify")] == [
        "e2m1",
        "fixed<4>",
        "e2m1",
    ]
    assert [str(config.result(path)) for path in ("norm1", "norm2", "add")] == [
        "fixed<6>",
        "fixed<6>",
        "fixed<4>",
    ]
    assert str(config.result("classify", last=True)) == "fixed<16>"


def test_paths_that_look_like_patterns_are_taken_literally() -> None:
    sites = [Site("blocks[0]", "weights"), Site("blocks0", "weights")]
    found = SpaceSettings(weights=("fixed<4>", "fixed<8>")).space(sites, QuantConfig())
    config = found.config((0, 1))
    assert str(config.layer("blocks[0]").weights) == "fixed<4>"
    assert str(config.layer("blocks0").weights) == "fixed<8>"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weight": ["fixed<4>"]}, "unknown setting 'weight'"),
        ({"weights": "fixed<4>"}, "weights is 'fixed<4>'"),
        ({"weights": ["fixed<4"]}, "fixed<4"),
        ({"weights": []}, "weights is empty"),
        ({"weights": ["fixed<4>", "fixed<4>"]}, "names a format of conv1.weights twice"),
        ({"tie": ["conv1"]}, "tie holds 'conv1'"),
        ({"tie": [["layer9"]]}, "'layer9', which matches no layer"),
        ({"pin": {"conv1": "fixed<4>"}}, "pin is"),
        ({"pin": {"conv1": {"scales": "fixed<4>"}}}, "names 'scales'"),
        ({"options": {"conv9": {"weights": ["fixed<4>"]}}}, "'conv9', which matches no layer"),
        ({"residual": "no"}, "residual is 'no'"),
        ({"weights": ["fixed<4>"], "activations": ["fixed<4>"]}, "The search space is empty"),
    ],
)
def test_bad_settings(settings: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        space(**settings)


def test_groups_stand_for_their_formats() -> None:
    found = space(
        weights=["few-valued", "integers", "minifloats"], options={"add": {"activations": ["integers"]}}
    )
    first = found.variables[0].options
    assert first[:3] == ("binary", "ternary", "fixed<2>")
    assert {"fixed<7>", "e1m1", "e2m0", "e2m1", "e5m2", "e1m6"} <= set(first)
    assert len(first) == 2 + 7 + 24
    assert next(v for v in found.variables if v.name == "add.activations").options[0] == "fixed<2>"


def test_a_point_of_another_space_is_refused() -> None:
    with pytest.raises(InputError, match="no point of the space"):
        space().config((0, 0))
    with pytest.raises(InputError, match="no point of the space"):
        space().config((99, 0, 0, 0, 0))
    with pytest.raises(InputError, match=r"'conv9\.weights' is no variable"):
        space().point({"conv9.weights": "fixed<4>"})


def test_uniform_points_take_the_next_wider_format_where_a_layer_lacks_one() -> None:
    found = space(
        weights=["fixed<4>", "fixed<8>"],
        activations=["fixed<6>"],
        options={"classify": {"weights": ["fixed<5>", "fixed<8>"]}},
    )
    texts = [list(found.formats(point).values()) for point in found.uniform()]
    assert texts == [
        ["fixed<4>", "fixed<4>", "fixed<5>"],
        ["fixed<8>", "fixed<8>", "fixed<8>"],
        ["fixed<8>", "fixed<8>", "fixed<5>"],
    ]
    assert found.formats(found.widest()) == dict.fromkeys(
        ("conv1.weights", "conv2.weights", "classify.weights"), "fixed<8>"
    )


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 1000))
def test_points(counts: list[int], seed: int) -> None:
    texts = ("fixed<3>", "fixed<4>", "e2m1", "fixed<8>")
    found = Space(
        tuple(Variable(f"l{i}.weights", "weights", (f"l{i}",), texts[:n]) for i, n in enumerate(counts))
    )
    every = [tuple(map(int, row)) for row in found.every()]
    assert len(set(every)) == found.size == np.prod(counts)
    for point in found.sample(np.random.default_rng(seed), 5):
        assert found.point(found.formats(point)) == point
        near = list(found.neighbours(point))
        assert len(near) == sum(counts) - len(counts)
        assert all(sum(a != b for a, b in zip(point, other, strict=True)) == 1 for other in near)
    assert Space.from_mapping(found.to_mapping()) == found


def test_formats_by_default_are_those_that_the_flow_carries() -> None:
    settings = SpaceSettings().carried(load_flow("finn").carries, "finn")
    assert set(settings.weights) < set(SpaceSettings().weights)
    assert "e2m1" not in settings.weights
    assert {"fixed<4>", "ternary"} <= set(settings.weights)
    assert SpaceSettings().carried(load_flow("rtl").carries, "rtl") == SpaceSettings()


@pytest.mark.parametrize(
    "asked",
    [
        {"weights": ["fixed<4>", "e2m1"]},
        {"options": {"conv1": {"weights": ["e2m1", "fixed<4>"]}}},
        {"pin": {"conv1": {"weights": "e2m1"}}},
    ],
)
def test_a_format_that_was_asked_for_is_refused_by_the_flow_that_cannot_carry_it(
    asked: dict[str, Any],
) -> None:
    with pytest.raises(UnsupportedError, match=r"e2m1 for weights, which the finn flow cannot carry"):
        SpaceSettings.from_mapping(asked).carried(load_flow("finn").carries, "finn")
