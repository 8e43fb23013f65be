"""Time the common corruptions in batches, beside a chain that takes image by image."""
