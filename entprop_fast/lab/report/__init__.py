"""Tables, pictures and progress: how results are written and shown."""
