"""The kernels on a CUDA device: the value cases again, and what only a GPU shows."""

from tests.kernel_cases.memory import poisoned_memory  # noqa: F401
