"""What the program costs: a file per benchmark, each a command, and what they share."""
