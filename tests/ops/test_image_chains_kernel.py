"""The C++ kernel of image_chains: threads, and sizes around those of its vectors."""

from collections.abc import Iterator

import pytest
import torch

from entprop_fast.ops.image_chains import NEAREST, OP, ImageOp, reference
from tests.kernel_cases.image_chains import CODES, STRENGTHS, mixtures, pictures
from tests.ops.conftest import needs_extension

pytestmark = needs_extension


@pytest.fixture
def threads() -> Iterator[None]:
    """Take four threads, and give them back."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_several_threads_give_the_same_bits(threads: None) -> None:
    given = mixtures((3, 33, 31), 3, 2)  # 24 images, each worth a thread
    found = OP(*given)
    torch.set_num_threads(1)
    assert torch.equal(found, OP(*given))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sizes_around_a_vector(channels: int, layout: torch.memory_format) -> None:
    """Every code at once, an image apiece, in rows that end before, at and after a register."""
    drawn = [(code, s) for code in CODES for s in STRENGTHS[ImageOp(code % NEAREST)][1:4]]
    codes = torch.tensor([code for code, _ in drawn], dtype=torch.uint8)[:, None, None]
    strengths = torch.tensor([strength for _, strength in drawn])[:, None, None]
    one = torch.ones(len(drawn), 1)
    for height, width in ((1, 64), (3, 3), (2, 15), (4, 16), (5, 17), (9, 31), (3, 65)):
        images = pictures((channels, height, width))[torch.arange(len(drawn)) % 8]
        given = (images.contiguous(memory_format=layout), codes, strengths, one, one[:, 0] * 0)
        assert torch.equal(OP(*given), reference(*given)), (height, width)
