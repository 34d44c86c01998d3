"""Data sets, each with a test split that nothing is ever trained on: real ones by name, and a user's own."""

from qhw.data.base import Dataset, holdout
from qhw.data.given import as_dataset
from qhw.data.reading import Reading
from qhw.data.registry import OWN, dataset_names, load_dataset

__all__ = ["OWN", "Dataset", "Reading", "as_dataset", "dataset_names", "holdout", "load_dataset"]
