"""Mixed formats against uniform ones: `qhw search` on the networks of the study."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from minifloat_vs_integer.networks import CACHE, Network
from minifloat_vs_integer.store import Store
from qhw.api import search
from qhw.search.space import ACTIVATIONS, WEIGHTS
from qhw.search.strategies import DEFAULT

METHODS = "gpfq"
"""What quantises the points of a front in the end."""

INTEGER = ("fixed", "binary", "ternary")
SPACES: dict[str, dict[str, list[str]]] = {
    "joint": {},
    "integers": {
        "weights": [text for text in WEIGHTS if text.startswith(INTEGER)],
        "activations": [text for text in ACTIVATIONS if text.startswith(INTEGER)],
    },
}
"""The default space, and its integers alone."""

SEARCHES = {
    "uniform": ("uniform", "joint", METHODS),
    "uniform, no method": ("uniform", "joint", ""),
    "mixed": (DEFAULT, "joint", METHODS),
    "mixed by TPE": ("tpe", "joint", METHODS),
    "mixed, no method": (DEFAULT, "joint", ""),
    "mixed integers": (DEFAULT, "integers", METHODS),
    "mixed integers, no method": (DEFAULT, "integers", ""),
}
"""By name: the strategy, the space, the methods; a search that differs in methods alone is not run again."""

POINTS = 12
"""Of a front that are quantised by methods and tested, at most."""

UNIFORM_POINTS = len(WEIGHTS) * len(ACTIVATIONS)


def measure(names: Sequence[str], network: Network, store: Store, tell: Callable[[str], None]) -> None:
    """The fronts of these names that are not there yet."""
    for seed in range(network.search_seeds):
        for name in names:
            strategy, space, methods = SEARCHES[name]
            key = f"{network.name} {seed} {name}"
            if not store.has("fronts", key):
                record = searched(network, seed, strategy, space, methods)
                store.put("fronts", key, record)
                tell(f"{key}: {len(record['points'])} points in {record['seconds']:.0f} s")


def searched(network: Network, seed: int, strategy: str, space: str, methods: str) -> dict[str, Any]:
    """One search; choices by samples held out of the training split, then figures of the test split."""
    start = time.perf_counter()
    result = search(
        network.trained(seed),
        data=network.data,
        trained=True,
        board=network.target.board,
        flow=network.target.flow,
        fps=network.target.fps,
        multipliers="lut",
        space=SPACES[space],
        strategy=strategy,
        evaluations=UNIFORM_POINTS if strategy == "uniform" else network.evaluations,
        methods=methods,
        points=POINTS,
        seed=seed,
        out=CACHE / "search" / f"{network.name}-{seed}-{strategy}-{space}",
        resume=True,
    )
    points = [
        {
            "cost": point["cost"],
            "held": point["figure"],
            "test": point["test"],
            "formats": point["formats"],
        }
        for point in result.front["points"]
    ]
    return {
        "points": points,
        "judged_by": methods,
        "evaluations": result.front["evaluations"],
        "size": result.front["space_size"],
        "seconds": round(time.perf_counter() - start, 1),
    }
