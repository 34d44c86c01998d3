"""Built-in reference models, plain ``nn.Module``s by name. Listing them needs no torch; building one does."""

from qhw.models.registry import ModelEntry, build_model, model_entry, model_names

__all__ = ["ModelEntry", "build_model", "model_entry", "model_names"]
