"""Write runs as one HTML page that stands for itself."""
