"""From the catalogue of designs to measured sets, fitted models and their errors."""
