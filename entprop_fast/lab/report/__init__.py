"""Write and show results: tables, pictures and progress."""
