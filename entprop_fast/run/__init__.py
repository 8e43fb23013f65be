"""A run behind the commands: its settings, loop, folder, results and terminal output."""
