"""The second-order model against losses that were computed by running the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from qhw.quant_config import QuantConfig
from qhw.search.evaluators.base import Held
from qhw.search.evaluators.calibrated import Calibrated
from qhw.search.evaluators.second_order import SecondOrder
from qhw.search.network import Variants, sites_of
from qhw.search.space import SpaceSettings
from qhw.tasks import task_named
from qhw.tasks.base import Judge


def variants_of(model: nn.Module, samples: torch.Tensor) -> Variants:
    settings = SpaceSettings(weights=("fixed<3>", "e2m1", "fixed<8>"), activations=("fixed<4>", "fixed<8>"))
    base = QuantConfig(inputs="fixed<8>")
    return Variants(model, settings.space(sites_of(model, base, samples[:2]), base), samples)


def held_of(task: str, samples: torch.Tensor, targets: np.ndarray) -> Held:
    kind = task_named(task)
    return Held(samples.numpy(), Judge(kind, kind.metric(), targets))


@pytest.fixture(scope="module")
def samples() -> torch.Tensor:
    return torch.randn(96, 6, generator=torch.Generator().manual_seed(3))


def test_of_one_linear_layer_it_is_the_loss_itself(samples: torch.Tensor) -> None:
    """Squared error is its own second-order model, and outputs are linear in the last layer's weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    variants = variants_of(model, samples)
    widest = variants.space.widest()
    with torch.inference_mode():
        outputs = variants.module(widest)(samples)
    evaluator = SecondOrder(variants, held_of("regression", samples, outputs.numpy()))
    last = next(i for i, v in enumerate(variants.space.variables) if v.name == "2.weights")
    assert evaluator.increase([widest])[0] == 0.0
    seen = 0
    for place in range(3):
        point = (*widest[:last], place, *widest[last + 1 :])
        with torch.inference_mode():
            # The network's own result is rounded; its last layer's sum is what the model speaks of.
            loss = float(task_named("regression").loss(variants.module(point)(samples), outputs))
        assert evaluator.increase([point])[0] == pytest.approx(loss, rel=0.02, abs=1e-6)
        seen += loss > 1e-4
    assert seen >= 2


def test_pairs_of_layers_count_beside_what_each_does_alone(samples: torch.Tensor) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    targets = np.random.default_rng(0).integers(0, 3, len(samples))
    evaluator = SecondOrder(variants_of(model, samples), held_of("classification", samples, targets))
    space = evaluator.variants.space
    points = space.every()
    alone = sum(evaluator.products[rows, rows] for rows in (points + evaluator.offsets).T) / 2
    increase = evaluator.increase(points)
    assert np.allclose(evaluator.products, evaluator.products.T, atol=1e-9 * evaluator.products.max())
    assert np.linalg.eigvalsh(evaluator.products).min() > -1e-9 * evaluator.products.max()
    assert not np.allclose(increase, alone, rtol=0.01)
    point = tuple(map(int, points[3]))
    assert evaluator.evaluate(point).quality == pytest.approx(-increase[3])


def test_it_orders_points_as_the_loss_of_the_quantised_network_does(samples: torch.Tensor) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    variants = variants_of(model, samples)
    with torch.inference_mode():
        targets = model(samples).numpy()
    held = held_of("regression", samples, targets)
    evaluator, dear = SecondOrder(variants, held), Calibrated(variants, held)
    points = variants.space.every()[::2]
    loss = task_named("regression").loss
    seen = [
        float(loss(torch.from_numpy(dear.cache.outputs(tuple(map(int, point)))), torch.from_numpy(targets)))
        for point in points
    ]
    assert spearmanr(evaluator.increase(points), seen).statistic > 0.9
