"""short-qat and full-qat: a point judged after training."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from trained_problem import failing_loss, same, small_problem

from qhw import checkpoints
from qhw.errors import InputError
from qhw.search.evaluators import evaluator_class, list_evaluators
from qhw.search.evaluators.calibrated import Calibrated
from qhw.search.evaluators.full_qat import FullQat
from qhw.search.evaluators.short_qat import ShortQat
from qhw.train import Phase, predict


def build(kind: type[FullQat], **settings: object) -> FullQat:
    problem = small_problem()
    return kind(problem.variants, problem.held, problem.data, dataclasses.replace(problem.config, **settings))


def narrow() -> tuple[int, ...]:
    return tuple(0 for _ in small_problem().space.variables)


def test_they_are_found_by_name_dearest_last():
    assert list_evaluators()[-2:] == ["short-qat", "full-qat"]
    assert evaluator_class("short-qat") is ShortQat
    assert evaluator_class("full-qat") is FullQat


def test_training_recovers_what_narrow_formats_cost():
    problem = small_problem()
    rounded = Calibrated(problem.variants, problem.held).evaluate(narrow())
    trained = build(FullQat, quantised_epochs=4).evaluate(narrow())
    assert trained.quality > rounded.quality + 0.1
    assert trained.low < trained.figure < trained.high
    assert trained.seconds > 0


def test_it_is_what_the_training_phase_gives():
    problem, point = small_problem(), narrow()
    evaluator = build(FullQat)
    module = problem.variants.module(point)
    Phase("quantised", 2, problem.config.quantised_learning_rate, problem.config, None, "").run(
        module, problem.data, None
    )
    assert evaluator.evaluate(point).figure == problem.held.judge.score(predict(module, problem.held.samples))
    assert same(evaluator.network(point).state_dict(), module.state_dict())


def test_short_qat_trains_a_few_epochs_of_the_recipe():
    assert build(ShortQat, quantised_epochs=12).epochs == 2
    assert build(ShortQat, quantised_epochs=1).epochs == 1
    assert build(FullQat, quantised_epochs=12).epochs == 12


def test_variants_are_left_as_they_were():
    variants = small_problem().variants
    before = [checkpoints.weights_hash(module) for module in [variants.model, *variants.modules]]
    threads = torch.get_num_threads()
    build(ShortQat).evaluate(variants.space.widest())
    assert [checkpoints.weights_hash(module) for module in [variants.model, *variants.modules]] == before
    assert torch.get_num_threads() == threads


def test_a_loss_that_is_no_number_names_the_epoch(monkeypatch: pytest.MonkeyPatch):
    with failing_loss(monkeypatch, after=12), pytest.raises(InputError, match="epoch 2, step 3"):
        build(FullQat).evaluate(narrow())
