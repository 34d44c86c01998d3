"""A network that scikit-learn trains on its digits in a second, as an exact graph of integers."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph, InputEncoding

HIDDEN = 12


@cache
def _split() -> tuple[NDArray[np.float32], IntArray]:
    digits = load_digits()
    return digits.images[:, None].astype(np.float32), digits.target


def test_images(count: int) -> tuple[NDArray[np.float32], IntArray]:
    """Digits (N, 1, 8, 8) that the network was not trained on, and what they are."""
    images, labels = _split()
    return images[-count:], labels[-count:]


test_images.__test__ = False  # type: ignore[attr-defined]


@cache
def digits_graph() -> ExactGraph:
    """Pixels 0 to 16, a hidden layer, logits: weights of 6 bits, results of 5 bits and of 18."""
    images, labels = _split()
    trained = MLPClassifier((HIDDEN,), max_iter=400, tol=1e-3, random_state=0)
    trained.fit(images[:-400].reshape(-1, 64) / 16, labels[:-400])
    b = GraphBuilder("digits")
    x = b.input("x", (1, 8, 8), Integer(5, False), -4, InputEncoding(1.0, 0.0, 0, 16, Rounding.RND_CONV))
    for index, (weights, biases) in enumerate(zip(trained.coefs_, trained.intercepts_, strict=True)):
        scale = np.abs(weights).max() / 31
        exponent = int(np.ceil(np.log2(scale)))
        if index == 0:
            x = b.reshape("flat", x, (64,))
        w = b.constant(f"w{index}", np.rint(weights * 2.0**-exponent).astype(np.int64), Integer(6), exponent)
        fine = b.type(x).exponent.values[0] + exponent
        c = b.constant(f"c{index}", np.rint(biases * 2.0**-fine).astype(np.int64), Integer(16), fine)
        x = b.matmul("logits" if index else "hidden_sum", x, w, c)
        if index == 0:
            x = b.requant("hidden", x, Integer(5, False), -3, rounding=Rounding.RND_CONV)
    return b.finish([x])
