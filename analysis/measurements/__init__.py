"""Measurements on finished networks: similarity of representations, transferability metrics."""
