"""What the numbers say: contrasts, intervals, claims."""
