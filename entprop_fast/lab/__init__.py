"""The laboratory: what the commands add to the library, which imports none of it."""
