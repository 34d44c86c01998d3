"""Thousands of damaged files through the command line; ``campaign.py`` runs them."""
