"""Integers, minifloats and k-hot numbers on four networks: accuracy, memory, LUT at equal throughput.

    python benchmarks/minifloat_vs_integer [--parts cells prices ...] [--networks mlp ...] [--report]

Each figure is written to results.json as soon as it is known: a run that was stopped goes on. Without
``--parts`` all that is missing is measured, which takes hours; then README.md and the plots are written.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from rich.console import Console

from minifloat_vs_integer import cells, efficientnet, fronts, hgq, report
from minifloat_vs_integer.formats import METHOD_FORMATS, every
from minifloat_vs_integer.networks import NETWORKS, Network
from minifloat_vs_integer.store import Store
from qhw.errors import QhwError
from qhw.ptq.settings import names_in

Tell = Callable[[str], None]

RECIPES = ("none", "gpfq")
"""Methods by which every format is tried."""


def measure_cells(network: Network, store: Store, tell: Tell) -> None:
    """Every format, without methods and by the default one."""
    for seed in range(network.seeds):
        for methods in RECIPES:
            cells.measure(network, seed, methods, every(), store, tell)


def measure_free(network: Network, store: Store, tell: Tell) -> None:
    """Every format with free scales per channel, as in the literature."""
    for seed in range(network.free_seeds):
        for methods in RECIPES:
            cells.measure(network, seed, methods, every("free per channel"), store, tell)


def measure_methods(network: Network, store: Store, tell: Tell) -> None:
    """Every method on some formats."""
    for seed in range(network.method_seeds):
        for methods in ("none", *names_in("methods")):
            cells.measure(network, seed, methods, METHOD_FORMATS, store, tell)


PARTS: dict[str, Callable[[Network, Store, Tell], None]] = {
    "prices": cells.price,
    "cells": measure_cells,
    "methods": measure_methods,
    "free": measure_free,
    "fronts": partial(fronts.measure, ["uniform", "mixed"]),
    "tpe-fronts": partial(fronts.measure, ["mixed by TPE"]),
    "integer-fronts": partial(fronts.measure, ["mixed integers"]),
    "fronts-no-method": partial(fronts.measure, [name for name in fronts.SEARCHES if "no method" in name]),
    "trained": hgq.measure,
}

WHOLE: dict[str, Callable[[Store, Tell], None]] = {
    "efficientnet": efficientnet.measure,
    "efficientnet-methods": efficientnet.measure_methods,
    "efficientnet-prices": efficientnet.price,
    "efficientnet-free": efficientnet.measure_free,
}
"""Parts with a network of their own."""


def main() -> None:
    """Measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, *WHOLE], default=[*PARTS, *WHOLE])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3, help="of each network, at most")
    parser.add_argument("--report", action="store_true", help="only write the tables of what is recorded")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("qhw").setLevel(logging.WARNING)
    store, start = Store(), time.perf_counter()
    console = Console(stderr=True)

    def tell(text: str) -> None:
        console.print(f"{time.perf_counter() - start:7.0f} s  {text}", highlight=False, markup=False)

    for part in [] if given.report else given.parts:
        if part in WHOLE:
            WHOLE[part](store, tell)
            continue
        for name in given.networks:
            PARTS[part](NETWORKS[name].limited(given.seeds), store, tell)
    report.write(store.records)


if __name__ == "__main__":
    try:
        main()
    except QhwError as error:
        Console(stderr=True).print(str(error), highlight=False, markup=False)
        sys.exit(2)
