"""Operators on a T×H×W grid, in plain torch."""
