"""Data sets of a few images in the official formats, written by the tests."""
