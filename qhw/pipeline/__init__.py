"""Builds: a model and a board become a build folder, in stages that are resumed, checked and recorded."""
