"""Time augmentations of whole batches, beside chains that take image by image."""
