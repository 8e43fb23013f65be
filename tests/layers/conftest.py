import pytest


@pytest.fixture(autouse=True)
def bits_of_torch(plain_pytorch: None) -> None:
    """Layers are held to the bits of torch's own norms; test_layer_kernels.py holds the kernels."""
