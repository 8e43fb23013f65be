"""Inputs that nobody would type, wherever one comes in: no traceback, no hang, no stray write."""
