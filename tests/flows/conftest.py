"""Puts this folder on the path, so that the flows' tests share graphs of every operation."""
