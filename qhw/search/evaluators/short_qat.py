"""The metric on samples held out after a few epochs of quantisation-aware training."""

from __future__ import annotations

from qhw.search.evaluators.full_qat import FullQat

EPOCHS = 2
"""Epochs of training, at the recipe's peak rate with a warm-up and a cosine of their own."""


class ShortQat(FullQat):
    """As ``full-qat``, but a few epochs: cheap enough for a search, dear enough to recover most of a loss."""

    name = "short-qat"
    title = f"metric on held-out samples after {EPOCHS} epochs of quantised training"
    rank = 3

    @property
    def epochs(self) -> int:
        """Epochs that each point is trained for."""
        return min(EPOCHS, self.config.quantised_epochs)


evaluator = ShortQat
