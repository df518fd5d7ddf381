"""What to train: configuration, cells, specifications of runs, and jobs."""
