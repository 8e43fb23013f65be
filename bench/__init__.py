"""Measure (`pytest bench`, `python -m bench.digits`) and report (`python -m bench.report`)."""
