"""Hold the Triton kernels and their launchers: tensors in, tensors out, no argument checks."""
