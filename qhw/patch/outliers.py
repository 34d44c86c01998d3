"""Value-driven patch classification (VDPC): which patches' inputs hold outliers.

QuantMCU, arXiv 2401.13714. Only a summary of the paper was at hand: patches fall into two classes by whether
their values hold outliers, seen against a Gaussian; behind those that do, every feature map of the patch's
branch keeps 8 bits. How far off an outlier lies, and what makes it a patch's, are parameters here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ir import ExactGraph
from qhw.patch.plan import PatchPlan, front_of, patches_of
from qhw.patch.regions import regions_of


def outlier_shares(
    graph: ExactGraph,
    plan: PatchPlan,
    values: Mapping[str, IntArray],
    sigmas: float,
) -> list[float]:
    """Of each patch, the share of samples in which its input holds an outlier.

    An outlier is more than ``sigmas`` standard deviations away from the mean; both are those of all values of
    that tensor, over all samples. A patch's input is its receptive field, halo included.

    Args:
        values: mantissas (N, *shape) of the tensors that patches are cut from: the graph's inputs.
    """
    far = {name: _far(array, sigmas) for name, array in values.items()}
    front, _ = front_of(graph, plan)
    shares = []
    for patch in patches_of(graph, plan.cut, plan.grid):
        regions = regions_of(graph, front, plan.cut, patch)
        held = [
            array[(slice(None), slice(None), *(slice(a, b) for a, b in regions[name]))]
            .reshape(len(array), -1)
            .any(axis=1)
            for name, array in far.items()
            if name in regions
        ]
        shares.append(float(np.mean(np.any(held, axis=0))))
    return shares


def _far(values: IntArray, sigmas: float) -> IntArray:
    numbers = np.asarray(values, dtype=np.float64)
    return np.asarray(np.abs(numbers - numbers.mean()) > sigmas * numbers.std())
