"""Triton kernels and their plain launchers: tensors in, tensors out, no argument checks."""
