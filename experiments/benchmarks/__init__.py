"""What the program costs: a file a benchmark, each a command, and what they share."""
