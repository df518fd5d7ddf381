"""What was trained: the run store, the runner, finished runs as modules."""
