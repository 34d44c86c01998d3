"""How far narrower feature maps move a network's outputs, each one alone: a measure of what they lose.

Of two maps whose own errors are equal, one may move the outputs far and the other not at all: how much a map
matters is measured here, not estimated. HAWQ (arXiv 1905.03696) estimates it by the loss's curvature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray
from qhw.graph.encode import decode_output
from qhw.graph.ir import ExactGraph
from qhw.patch.plan import PatchPlan
from qhw.patch.unrolled import with_patches
from qhw.patch.widths import Width, narrowed

BATCH = 32
"""Samples that are run at a time."""


class OutputErrors:
    """Errors of a network's outputs by what was narrowed; each is measured once, so keep it for several λ.

    Args:
        graph: feature maps of the widths that were given, without patches.
        samples: mantissas (N, *shape) of its inputs.
    """

    def __init__(self, graph: ExactGraph, samples: Mapping[str, IntArray]) -> None:
        self.graph, self.samples = graph, samples
        self._wide: list[NDArray[np.float64]] = []
        self._known: dict[tuple[object, ...], float] = {}

    def share(self, names: Sequence[str], width: Width, plan: PatchPlan | None = None) -> float:
        """The squared error of the outputs against their variance; the mean over several outputs.

        Args:
            names: the tensors that are narrowed: all the others stay as they are.
            plan: the names are those of the graph with a copy of the layers for each of these patches.
        """
        key = (*names, width, *((plan.cut, *plan.grid) if plan else ()))
        if key not in self._known:
            base = with_patches(self.graph, plan) if plan else self.graph
            found = self._outputs(narrowed(base, dict.fromkeys(names, width)))
            self._wide = self._wide or self._outputs(self.graph)
            pairs = zip(self._wide, found, strict=True)
            self._known[key] = float(np.mean([_relative(wide, narrow) for wide, narrow in pairs]))
        return self._known[key]

    def _outputs(self, graph: ExactGraph) -> list[NDArray[np.float64]]:
        from qhw.sim.fast import FastExecutor

        codes = FastExecutor(graph, batch=BATCH)(self.samples)
        return [np.asarray(decode_output(graph, name, codes[name]), np.float64) for name in graph.outputs]


def _relative(wide: NDArray[np.float64], narrow: NDArray[np.float64]) -> float:
    """The squared error against the variance over the samples; 0 against 0 is 0."""
    error, power = float(np.sum((narrow - wide) ** 2)), float(np.sum((wide - wide.mean(axis=0)) ** 2))
    return error / power if power else float(error > 0)
