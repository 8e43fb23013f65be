"""Measurements: `python -m bench.digits`, drawn by `python -m bench.report`."""
