"""Real data sets, each with a test split that nothing is ever trained on. NumPy only."""

from qhw.data.base import Dataset, holdout
from qhw.data.registry import dataset_names, load_dataset

__all__ = ["Dataset", "dataset_names", "holdout", "load_dataset"]
