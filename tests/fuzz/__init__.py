"""Inputs that nobody would type, wherever one comes in: no traceback, no hang, no stray write.

``python -m tests.fuzz --cases 20000`` runs many; `test_fuzz` runs 2,000.
"""
