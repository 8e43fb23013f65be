"""as_transform: a torchvision v2 transform, in a Compose, a DataLoader and a pickle."""

import copy
import pickle
import sys

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from entprop_fast.augment import AugMix, TrivialAugment, as_transform, parse_chain

AUGMENT = AugMix(severity=5)


def test_one_image_and_a_batch() -> None:
    transform = as_transform(AUGMENT)
    assert isinstance(transform, v2.Transform)
    batch = torch.randint(0, 256, (6, 3, 9, 8), dtype=torch.uint8)
    torch.manual_seed(1)
    expected = AUGMENT(batch)
    torch.manual_seed(1)
    assert torch.equal(transform(batch), expected)
    torch.manual_seed(1)
    assert torch.equal(transform(batch[0]), expected[0])
    assert repr(AUGMENT) in repr(transform)


def test_a_sample_in_a_compose() -> None:
    pipeline = v2.Compose(
        [v2.ToImage(), as_transform(AUGMENT), v2.ToDtype(torch.float32, scale=True)]
    )
    picture = Image.effect_noise((8, 9), 60).convert("RGB")
    label = torch.tensor([3, 4])
    found, same, more = pipeline(picture, label, {"name": "a", "id": 7})
    assert type(found) is tv_tensors.Image and found.dtype == torch.float32
    assert found.shape == (3, 9, 8)
    assert same is label and more == {"name": "a", "id": 7}


def test_kinds_of_images() -> None:
    """Out comes what went in; the draws are the same for all."""
    picture = Image.effect_noise((8, 9), 60)
    grey = v2.functional.pil_to_tensor(picture)
    transform = as_transform(TrivialAugment())
    results = []
    for image in (picture, grey, tv_tensors.Image(grey)):
        torch.manual_seed(4)
        results.append(transform(image))
        assert type(results[-1]) is (Image.Image if image is picture else type(image))
    assert torch.equal(v2.functional.pil_to_tensor(results[0]), results[1])
    assert torch.equal(results[2].as_subclass(torch.Tensor), results[1])


def test_labels_of_a_batch_stay() -> None:
    images, labels = torch.rand(4, 1, 5, 5), torch.rand(4)
    found, same = as_transform(parse_chain("augmix+randaugment"))(images, labels)
    assert same is labels and found.shape == images.shape


def test_copies() -> None:
    for copied in (
        copy.deepcopy(as_transform(AUGMENT)),
        pickle.loads(pickle.dumps(as_transform(AUGMENT))),
    ):
        assert isinstance(copied, v2.Transform) and copied.augmentation == AUGMENT


def test_workers_draw_by_their_seed() -> None:
    images = [
        torch.full((1, 6, 6), 9 * row, dtype=torch.uint8) + torch.arange(6, dtype=torch.uint8)
        for row in range(4)
    ]
    transform = as_transform(AUGMENT)

    def epoch(seed: int) -> torch.Tensor:
        loader: DataLoader[torch.Tensor] = DataLoader(
            images,  # type: ignore[arg-type]
            num_workers=2,
            generator=torch.Generator().manual_seed(seed),
            collate_fn=lambda rows: torch.stack([transform(row) for row in rows]),
        )
        return torch.cat(list(loader))

    first = epoch(0)
    assert torch.equal(first, epoch(0)) and not torch.equal(first, epoch(1))


@pytest.mark.parametrize("moving", ["mask", "boxes", "video"])
def test_what_would_have_to_move_is_refused(moving: str) -> None:
    other = {
        "mask": tv_tensors.Mask(torch.zeros(5, 5)),
        "boxes": tv_tensors.BoundingBoxes([[0, 0, 1, 1]], format="XYXY", canvas_size=(5, 5)),
        "video": tv_tensors.Video(torch.zeros(2, 3, 5, 5)),
    }[moving]
    with pytest.raises(TypeError, match=type(other).__name__):
        as_transform(AUGMENT)(tv_tensors.Image(torch.zeros(3, 5, 5)), other)


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"^augmentation is a str"):
        as_transform("augmix")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^images: expected"):
        as_transform(AUGMENT)(torch.zeros(2, 5, 5))
    sys.modules["entprop_fast.augment.as_transform"]._transform_class.cache_clear()
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"needs torchvision: pip install .*\[vision\]"):
        as_transform(AUGMENT)
