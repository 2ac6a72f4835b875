"""The training loop, evaluation, resuming, distribution, and what a run records."""
