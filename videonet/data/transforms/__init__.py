"""Which frames a clip takes, and what happens to its pixels and targets."""
