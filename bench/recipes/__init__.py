"""Say how long each shipped recipe takes: its training step, measured, times its steps."""
