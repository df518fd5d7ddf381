"""The run store, the runner, and finished runs as modules."""
