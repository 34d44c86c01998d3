"""From a model and a board to a build folder: stages that are resumed, checked and recorded."""
