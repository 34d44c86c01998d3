"""What tests of searches share: a small trained network in a small space, and one PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import postgresql_server
import pytest

from qhw.data.base import Dataset
from qhw.search.space import Space


@dataclass
class Small:
    """A network, trained for a moment, its data and its space."""

    data: Dataset
    variants: object
    space: Space


@pytest.fixture(scope="session")
def small() -> Small:
    return _small(("ternary", "e2m1", "khot<6,2>", "fixed<5>"), ("fixed<3>", "e3m2", "fixed<6>"))


@pytest.fixture(scope="session")
def small_integers() -> Small:
    """The same with integers alone, which every flow takes."""
    return _small(("ternary", "fixed<3>", "fixed<5>"), ("fixed<3>", "fixed<6>"))


def _small(weights: tuple[str, ...], activations: tuple[str, ...]) -> Small:
    import torch

    from qhw.data import load_dataset
    from qhw.models import build_model
    from qhw.quant_config import QuantConfig
    from qhw.search.network import Variants, sites_of
    from qhw.search.space import SpaceSettings
    from qhw.train import Phase, TrainConfig

    torch.set_num_threads(1)
    data = load_dataset("digits")
    model = build_model("digits-cnn", data)
    Phase("float", 2, 3e-3, TrainConfig(), None, "").run(model, data, None)
    samples = torch.from_numpy(data.train_x[:128]).float()
    settings = SpaceSettings(weights=weights, activations=activations)
    space = settings.space(sites_of(model, QuantConfig(), samples[:2]), QuantConfig())
    return Small(data, Variants(model, space, samples), space)


@pytest.fixture(scope="session")
def server() -> Iterator[postgresql_server.Server]:
    if reason := postgresql_server.missing():
        pytest.skip(reason)
    with postgresql_server.running() as found:
        yield found
