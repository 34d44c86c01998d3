"""Optuna's multi-objective tree-structured Parzen estimator.

Two densities are fitted, l(x) to the points that few beat and g(x) to the rest; the draw from l with the
largest l(x) / g(x) is proposed (Bergstra et al., NeurIPS 2011; for several objectives Ozaki et
al., JAIR 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qhw.search.strategies._optuna import OptunaStrategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Tpe(OptunaStrategy):
    """Optuna's ``TPESampler``, all variables modelled together."""

    name = "tpe"
    title = "Optuna's tree-structured Parzen estimator"
    source = "Bergstra et al. 2011"

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed, multivariate=True)


strategy = Tpe
