"""What the search for a gain of trained binary points varies, counts, adds up and compares."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from qhw.convert import convert
from qhw.data import load_dataset
from qhw.data.base import Dataset
from qhw.formats import Fixed
from qhw.models import build_model
from qhw.quantizers import FixedQuantizer, Quantizer
from qhw.train import Phase, TrainConfig

FOLDER = Path(__file__).parents[2] / "benchmarks"
CONFIG = TrainConfig(float_epochs=1, quantised_epochs=2, batch_size=32, learning_rate=1e-2)
STEPS = 10


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("qfx_points")
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load_dataset("digits")
    return dataclasses.replace(data, train_x=data.train_x[:160], train_y=data.train_y[:160])


def started(script: ModuleType, data: Dataset, formats: str = "element-wise 3") -> torch.nn.Module:
    """A network in narrow formats, its points at the least squared error."""
    images = torch.from_numpy(data.train_x[:2]).float()
    model = convert(build_model("digits-cnn", data, seed=0), script.FORMATS[formats].quant, images)
    Phase("float", 0, 1.0, CONFIG, None, "").run(model, data, None)
    return model


def open_points(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    quantizers = [m for m in model.modules() if isinstance(m, Quantizer) and m.is_open]
    return list({id(q.theta): q.theta for q in quantizers}.values())


def trained(script: ModuleType, data: Dataset, recipe: object) -> tuple[torch.nn.Module, object]:
    model = started(script, data)
    course = script.Course(model, recipe, torch.from_numpy(data.train_x).float(), 3, STEPS)
    script.PointsPhase("float", 2, 1e-2, CONFIG, None, "", course).run(model, data, None)
    return model, course


def test_held_points_stay_and_trained_ones_go_no_further_than_the_rates_add_up_to(
    script: ModuleType, digits: Dataset
) -> None:
    _, held = trained(script, digits, script.Recipe())
    assert np.ptp(np.stack(held.thetas), axis=0).max() == 0.0
    _, course = trained(script, digits, script.Recipe(rate=3))
    thetas = np.stack(course.thetas)
    assert len(thetas) == STEPS + 1
    gone = np.abs(thetas - thetas[0]).max()
    # A step of AdamW is its rate times a mean gradient over its size: hardly ever more than the rate.
    assert 0.05 < gone <= course.reach * 1.05
    rates = [3e-2 * 0.5 * (1 + np.cos(np.pi * step / (STEPS - 1))) for step in range(STEPS - 1)]
    assert course.reach == pytest.approx(3e-2 + sum(rates))


def test_points_are_held_from_the_middle_on(script: ModuleType, digits: Dataset) -> None:
    model, course = trained(script, digits, script.Recipe(rate=100, until=0.5))
    thetas = np.stack(course.thetas)
    assert (thetas[1 : STEPS // 2 + 1] != np.rint(thetas[1 : STEPS // 2 + 1])).any(1).all()
    assert (thetas[STEPS // 2 + 1 :] == np.rint(thetas[STEPS // 2])).all()
    assert not any(theta.requires_grad for theta in open_points(model))


def test_a_scale_is_free_until_its_point_is_held(script: ModuleType, digits: Dataset) -> None:
    model = started(script, digits)
    images = torch.from_numpy(digits.train_x).float()
    course = script.Course(model, script.Recipe(rate=10, free=True, until=0.5), images, 3, STEPS)
    quantizers = [m for m in model.modules() if isinstance(m, Quantizer) and m.is_open]
    assert all(quantizer.is_free for quantizer in quantizers)
    with torch.no_grad():
        course.points[0].add_(0.3)
    course.hold()
    assert not any(quantizer.is_free for quantizer in quantizers)
    assert all(bool(theta == theta.round()) for theta in open_points(model))


@pytest.mark.parametrize("update", ["sgd", "lsq"])
def test_gradient_descent_by_hand(script: ModuleType, digits: Dataset, update: str) -> None:
    _, course = trained(script, digits, script.Recipe(rate=7.0, update=update))
    went = np.stack(course.thetas)[1] - np.stack(course.thetas)[0]
    factors = np.array(course.factors)  # every tensor of this network has one binary point
    assert went == pytest.approx(-7e-2 * factors * course.gradients[0], rel=1e-3, abs=1e-6)
    assert (len(set(factors)) > 1) == (update == "lsq")


def test_lsqs_scale_counts_what_shares_a_point(script: ModuleType, digits: Dataset) -> None:
    model = started(script, digits)
    images = torch.from_numpy(digits.train_x).float()
    course = script.Course(model, script.Recipe(rate=1, update="lsq"), images, 3, STEPS)
    factors = {id(theta): factor for theta, factor in zip(course.points, course.factors, strict=True)}
    weights = model.get_submodule("conv2").weight_quant.tensor_quant
    assert factors[id(weights.theta)] == pytest.approx((16 * 16 * 9 * 127) ** -0.5)
    scale = model.get_submodule("norm1").scale_quantizer
    assert factors[id(scale.theta)] == pytest.approx((16 * 3) ** -0.5)
    result = model.get_submodule("norm1").result
    assert factors[id(result.theta)] == pytest.approx((16 * 8 * 8 * result.rule.mantissas[1]) ** -0.5)


def test_a_course_is_summed_up_by_hand(script: ModuleType, digits: Dataset) -> None:
    model = started(script, digits)
    course = script.Course(model, script.Recipe(rate=1), torch.from_numpy(digits.train_x).float(), 3, 4)
    wide = np.zeros(len(course.narrow))
    path, slopes = [0.0, 0.4, 0.6, 0.45, 0.7], [1.0, -1.0, 1.0, 1.0]
    course.thetas = [wide + value * course.narrow for value in path]
    course.gradients = [wide + slope * course.narrow for slope in slopes]
    found = course.summary()
    assert (found["moved"], found["shift"], found["crossings"], found["late_crossings"]) == (1, 1, 3, 1)
    assert found["moved_all"] == pytest.approx(course.narrow.mean())
    assert (found["travelled"], found["travelled_most"]) == (0.7, 0.7)
    assert (found["agreement"], found["gradient"], found["gradient_wide"]) == (0.5, 1.0, 0.0)


@pytest.mark.parametrize("channels", [None, 3])
def test_the_largest_number_fits_and_would_not_with_a_bit_more(
    script: ModuleType, channels: int | None
) -> None:
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[0.01], [1.0], [700.0]]
    )
    quantizer = FixedQuantizer(Fixed(5), channels=channels)
    script.largest_fits(quantizer, x)
    rows = x if channels else x.reshape(1, -1)
    largest = rows.abs().amax(1).numpy() / quantizer.unit
    assert (largest <= 15).all()
    assert (largest * 2 > 15).all()


def test_a_start_at_the_optimum_stays_in_its_cell(script: ModuleType) -> None:
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    quantizer = FixedQuantizer(Fixed(4))
    quantizer.start(x)
    before = quantizer.fraction
    script.at_optimum(quantizer, x)
    assert quantizer.fraction == before
    middle = float(before[0])
    theta = quantizer.theta.item()
    assert 0.0 < abs(theta - middle) < 0.5

    def error(theta: float) -> float:
        unit = 2.0**-theta
        return float(((x / unit).round().clamp(-8, 7) * unit - x).square().sum())

    assert error(theta) < error(middle)


def test_a_start_by_the_loss_lowers_it(script: ModuleType, digits: Dataset) -> None:
    model = started(script, digits, "element-wise 2")
    narrow = [m for m in model.modules() if isinstance(m, Quantizer) and m.spec.width == 2]
    images = torch.from_numpy(digits.train_x).float()
    targets = torch.from_numpy(digits.train_y)

    def loss() -> float:
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(model.eval()(images), targets))

    before, points = loss(), [q.theta.item() for q in narrow]
    script.by_loss(model, narrow, digits)
    moved = [q.theta.item() - point for q, point in zip(narrow, points, strict=True)]
    assert set(moved) <= {-1.0, 0.0, 1.0}
    assert any(moved)
    assert loss() < before


def test_every_recipe_has_one_to_be_compared_with(script: ModuleType) -> None:
    assert script.points_held("rate 10") == script.points_held("max, rate 10") == "held"
    assert script.points_held("frozen, loss") == script.points_held("frozen, another order") == "frozen"
    assert script.points_held("scratch, rate 10") == "scratch"
    assert script.norms_not_frozen("frozen, rate 10") == "rate 10"
    for _, _, recipes, _ in script.SCREENS:
        for recipe in recipes:
            held = script.RECIPES[script.points_held(recipe)]
            assert (held.rate, held.renewed, held.start) == (0.0, 0, "mse")


def test_no_two_jobs_share_a_key(script: ModuleType) -> None:
    wanted = {job for screen in script.SCREENS for job in script.jobs(*screen)}
    assert len({job.key for job in wanted}) == len(wanted)
    assert len(set(script.RECIPES.values())) == len(script.RECIPES)


def test_every_figure_lands_in_its_row_and_column(script: ModuleType) -> None:
    recipes = ("held", "rate 10", "frozen", "frozen, rate 10")
    records = []
    for index, job in enumerate(script.jobs("digits-cnn", ("element-wise 3",), recipes, range(2))):
        record = {"accuracy": 0.5 + index / 100, "crossings": index, "moved": index / 100, "seconds": 30}
        record |= {"reach": 1.33, "gradient": 2e-3, "agreement": 0.25, "travelled": 0.5, "late_crossings": 3}
        records.append((job, record))
    found = script.by_recipe(records)
    case = ("digits-cnn", "element-wise 3")
    assert script.over(found, case, "rate 10", "held") == pytest.approx([0.01, 0.01])
    gain = "+2.00 (+2.00 to +2.00)"
    row = f"| {' | '.join(case)} | held | 52.00 (50.00 to 54.00) | 54.00 (52.00 to 56.00) | {gain} |"
    assert any(line.startswith(row) for line in script.freezing_table(found))
    gain = "+1.00 (+1.00 to +1.00)"
    assert f"| frozen, rate 10 | {gain} | 2 of 2 | 1 | 1 | 0 |" in script.points_table(found)
    row = f"| {' | '.join(case)} | rate 10 | 1.33 | 2.0e-03 | 0.25 | 0.50 | 3.0 | 3.0 | 3% |"
    assert row in script.course_table(found)
    row = f"| rate 10 | 53.00 (51.00 to 55.00) | {gain} | 2 of 2 | 3.0 | 3% |"
    assert row in script.recipe_table(found, case)


def test_pixels_are_halved_by_their_mean(script: ModuleType) -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    assert script.halve(pixels).tolist() == [[[[2, 4], [10, 12]]]]
