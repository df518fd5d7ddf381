"""Benchmarks of speed, memory and advice: a module per command, and what the commands share."""
