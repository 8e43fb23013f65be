"""Run a user's functions that make networks and images: those named on the command line alone."""

MODEL = "model:"  # how the arch of a caller's network begins, before its function's name or class
DATA = "data:"  # likewise for a data set
