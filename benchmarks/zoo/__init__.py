"""The models that `benchmarks/model_zoo.py` puts through qhw, what is done with each, and their page."""
