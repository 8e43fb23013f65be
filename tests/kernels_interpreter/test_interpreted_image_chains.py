"""`image_chains` under Triton's interpreter, on small images: it runs a program at a time."""

import pytest
import torch

from entprop_fast.kernels import image_chains as kernel
from tests.kernel_cases.image_chains import apiece, large, mixtures, same


@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 5, 11)])
def test_every_operation(shape: tuple[int, int, int]) -> None:
    same(kernel, apiece(shape), "cpu")


def test_statistics_of_more_than_a_block() -> None:
    same(kernel, large(), "cpu")


@pytest.mark.parametrize("chains", [0, 2])
def test_mixtures(chains: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of pixels, images that lie apart, strided weights."""
    monkeypatch.setattr(kernel, "BLOCK", 64)
    images, codes, strengths, weights, keep = (v[:3] for v in mixtures((3, 7, 13), chains, 2))
    apart = torch.stack([images, images + 1], -1)[..., 0]
    turned = weights.T.contiguous().T
    same(kernel, (apart, codes, strengths, turned, torch.stack([keep, keep], 1)[:, 1]), "cpu")


def test_grids_are_of_31_bits() -> None:
    def covered(batch: int, side: int, chains: int) -> bool:
        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(shape, device="meta", dtype=torch.uint8)

        images, codes = empty(batch, 3, side, side), empty(batch, chains, 2)
        return bool(kernel.covers(images, codes, codes, codes[:, :, 0], codes[:, 0, 0]))

    assert covered(2**12, 512, 3) and covered(1, 2**15, 3)
    assert not covered(2**10, 2**15, 3) and not covered(0, 32, 3)


def test_the_number_of_launches_does_not_depend_on_the_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launches: list[tuple[int, ...]] = []
    for name in ("prepare", "_apply", "_mix"):
        monkeypatch.setattr(kernel, name, _Counted(getattr(kernel, name), launches))
    given = [value[:2] for value in mixtures((1, 4, 4), 3, 2)]
    kernel.image_chains(*given)
    assert launches == [(6,), (6,), (6,), (6,), (2,)]


class _Counted:
    """Keeps the grids of a kernel's launches."""

    def __init__(self, function: object, grids: list[tuple[int, ...]]) -> None:
        self.function, self.grids = function, grids

    def __getitem__(self, grid: tuple[int, ...]) -> object:
        self.grids.append(grid)
        return self.function[grid]  # type: ignore[index]
