"""Notebooks are tests, too: what they need and is not installed, they are skipped for."""

from __future__ import annotations

import pytest

from qhw.data import fashion_mnist


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the notebook on Fashion-MNIST where that is not installed."""
    if fashion_mnist.DEBIAN_FOLDER.is_dir():
        return
    reason = "Fashion-MNIST is not installed: apt-get install dataset-fashion-mnist"
    for item in items:
        if item.path.name == "03_design_space.ipynb":
            item.add_marker(pytest.mark.skip(reason=reason))
