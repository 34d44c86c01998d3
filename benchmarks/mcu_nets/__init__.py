"""Trained networks of a microcontroller's size, for benchmarks/quantmcu.py."""
