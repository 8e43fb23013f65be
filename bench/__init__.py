"""Measurements: `pytest bench` for speed, `python -m bench.digits` for accuracy."""
