"""Simulation of the circuits by Verilator, and the proof that they compute what their references say."""
