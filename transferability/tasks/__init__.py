"""Splits of a dataset's classes into task A and task B."""
