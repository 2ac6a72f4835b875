"""Workers, batches in shared memory, their order, and where a run goes on."""
