"""Before training: verify, prepare, inspect and look at data, and the demo's videos."""
