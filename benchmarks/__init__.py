"""Measurements run by hand: `python -m benchmarks.NAME`; results in benchmarks/results."""
