"""Value checks of the kernels, shared by every way of running them.

Each module holds `CASES`: name -> function of (launchers, device) that raises AssertionError where
a kernel is wrong. Truth is float64 PyTorch on the CPU.
"""
