"""Lockstep training of a cohort of networks."""
