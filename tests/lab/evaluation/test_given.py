"""Check FOUND W2 and C9: data of `evaluate_model` is looked at, and comes in any usual form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from entprop_fast.lab.evaluation import EvaluationOptions, evaluate_model
from entprop_fast.lab.evaluation.metrics import NaNLogits, accuracy
from tests.lab.evaluation.support import Around, Brightness, tiny_cifar

CLEAN = EvaluationOptions(corruptions="none", pgd=2)
CLASSES = 4


def pair(count: int = 12) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] with labels by their brightness, a quarter of them wrong."""
    labels = torch.arange(count) % CLASSES
    images = ((labels + 0.5) / CLASSES).view(-1, 1, 1, 1).expand(count, 3, 8, 8).clone()
    return images, torch.where(torch.arange(count) % 4 == 0, 1, labels)


class Items(Dataset[tuple[Tensor, int]]):
    """A data set with items of its own making."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


class Named(Dataset[Any]):
    """Items as Hugging Face's data sets have them, with more in them."""

    def __init__(self, items: Items, image: str, label: str) -> None:
        self.items, self.image, self.label = items, image, label

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        image, label = self.items[index]
        return {self.image: image, self.label: label, "path": f"{index}.png"}


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __init__(self, items: Items, turn: int = 0) -> None:
        self.items, self.turn, self.passes = items, turn, 0

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        self.passes += self.turn
        return (self.items[(i + self.passes) % len(self.items)] for i in range(len(self.items)))


def forms(images: Tensor, labels: Tensor) -> dict[str, Any]:
    items = Items(images, labels)
    return {
        "tensors": (images, labels),
        "dataset": items,
        "tensor dataset": TensorDataset(images, labels),
        "loader": DataLoader(items, batch_size=5),
        "dictionaries": DataLoader(Named(items, "pixel_values", "labels"), batch_size=5),
        "data set of dictionaries": Named(items, "image", "label"),
        "shuffled": DataLoader(items, batch_size=5, shuffle=True),
        "one by one": DataLoader(items, batch_size=1, sampler=torch.arange(len(items)).tolist()),
        "stream": DataLoader(Stream(items), batch_size=5),
    }


FORMS = tuple(forms(*pair()))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_numbers(form: str) -> None:
    """FOUND C9: a DataLoader, a Dataset and tensors."""
    options = EvaluationOptions(corruptions="digits", pgd=2)
    torch.manual_seed(3)
    found = evaluate_model(Brightness(CLASSES), forms(*pair())[form], options)
    wanted = evaluate_model(Brightness(CLASSES), pair(), options)
    assert found.sa == wanted.sa == 75.0
    assert [row.images for row in found.rows] == [row.images for row in wanted.rows]
    if form != "shuffled":  # draws of noise are by the image's number
        assert found == wanted


def test_a_loader_that_shuffles_keeps_one_order() -> None:
    """FOUND C9: intervals pair an image's answers, so each pass must see the same order."""
    seen: list[Tensor] = []

    def sees(x: Tensor) -> Tensor:
        seen.append(x.detach()[:, 0, 0, 0].clone())
        return x

    images, labels = torch.rand(12, 3, 8, 8), torch.arange(12) % CLASSES
    loader = DataLoader(Items(images, labels), batch_size=12, shuffle=True)
    evaluate_model(Around(sees), loader, EvaluationOptions(corruptions="none", pgd=1))
    clean, attacked = seen[0], seen[1]  # PGD starts within 8/255 of each image
    assert not torch.equal(clean, images[:, 0, 0, 0])
    assert (clean - attacked).abs().max() <= 8 / 255 + 1e-6


def test_a_source_whose_order_changes_is_refused() -> None:
    """FOUND C9: where no order can be kept, the message says so."""
    loader = DataLoader(Stream(Items(*pair()), turn=1), batch_size=4)
    with pytest.raises(ValueError, match="shuffle=False"):
        evaluate_model(Brightness(CLASSES), loader, CLEAN)


BAD = {
    "bytes of 0 and 1": lambda images: images.round().to(torch.uint8),
    "normalised": lambda images: (images - 0.5) / 0.25,
    "bytes as floats": lambda images: images * 255,
    "nan": lambda images: images.index_fill(0, torch.tensor([7]), torch.nan),
    "infinite": lambda images: images.index_fill(0, torch.tensor([7]), torch.inf),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("values", BAD)
def test_values_that_are_no_image_are_refused(values: str, form: str) -> None:
    """FOUND W2: accuracies on normalised images or on 0 ... 255 came without a word."""
    images, labels = pair()
    given = forms(BAD[values](images), labels)[form]
    words = {"nan": "not finite", "infinite": "not finite", "bytes of 0 and 1": "images are uint8"}
    words |= {"normalised": "Normalize", "bytes as floats": "divide them by 255"}
    word = words[values]
    with pytest.raises(ValueError, match=word):
        evaluate_model(Brightness(CLASSES), given, CLEAN)


@pytest.mark.parametrize("form", ["tensors", "dataset", "loader"])
def test_another_range_and_bytes(form: str) -> None:
    """FOUND W2: the way out that the message names."""
    images, labels = pair()
    wide = forms(images * 255, labels)[form]
    found = evaluate_model(Around(lambda x: x / 255), wide, CLEAN, input_range=(0, 255))
    bytes_ = forms((images * 255).round().to(torch.uint8), labels)[form]
    assert found.sa == evaluate_model(Brightness(CLASSES), bytes_, CLEAN).sa == 75.0


IMAGES, LABELS = pair()
CIFAR = tiny_cifar()
UNUSABLE: list[tuple[Any, type[Exception], str]] = [
    ((IMAGES, LABELS[:2]), ValueError, "12 images but 2 labels"),
    ((IMAGES[0], LABELS), ValueError, "images have shape"),
    ((IMAGES, LABELS.float()), ValueError, "labels are"),
    ((IMAGES, LABELS[:, None]), ValueError, "labels are"),
    ((IMAGES, LABELS - 100), ValueError, "labels are"),
    (DataLoader(Items(IMAGES, LABELS - 2)), ValueError, "labels are"),
    (TensorDataset(IMAGES, LABELS.float()), ValueError, "labels are"),
    ((IMAGES, LABELS + 9), ValueError, "gives 4 logits, and the labels of images are of 13"),
    ((IMAGES, LABELS, LABELS), TypeError, "data is a tuple"),
    ([(IMAGES, LABELS)], TypeError, "data is a list"),
    ((IMAGES.numpy(), LABELS.numpy()), TypeError, "data is a tuple of ndarray, ndarray"),
    (IMAGES, TypeError, "data is a Tensor"),
    (DataLoader(cast(Any, [{"x": IMAGES[0]}])), TypeError, "images, labels"),
    (DataLoader(cast(Any, [(IMAGES[0], 1), (IMAGES[0, :, :4], 1)])), ValueError, "shape"),
    (Items(IMAGES[:0], LABELS[:0]), ValueError, "no test image"),
    (replace(CIFAR, test_images=CIFAR.test_images.float()), ValueError, "input_range"),
    (
        replace(CIFAR, test_images=CIFAR.test_images.clamp(0, 1)),
        ValueError,
        "test images are uint8",
    ),
]


@pytest.mark.parametrize(("data", "error", "named"), UNUSABLE)
def test_data_that_cannot_be_used_is_named(data: Any, error: type[Exception], named: str) -> None:
    """FOUND W2: labels outside, PIL images, dictionaries, images of two sizes, wrong values."""
    with pytest.raises(error, match=named):
        evaluate_model(Brightness(4), data, CLEAN)


def test_images_that_do_not_fit_the_network_are_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for images in (IMAGES[:, :1], IMAGES[:, :, :2]):
        with pytest.raises(ValueError, match="data: images"):
            evaluate_model(model, (images, LABELS), CLEAN)


def test_labels_of_any_whole_dtype() -> None:
    narrow = evaluate_model(Brightness(4), (IMAGES, LABELS.int()), CLEAN)
    assert narrow == evaluate_model(Brightness(4), (IMAGES, LABELS), CLEAN)


class Breaks(Brightness):
    """NaN for dark images alone, which the clean ones are not."""

    def __init__(self, below: float, value: float = torch.nan) -> None:
        super().__init__(CLASSES)
        self.below, self.value = below, value

    def forward(self, x: Tensor) -> Tensor:
        dark = x.mean(dim=(1, 2, 3)) < self.below
        return super().forward(x).masked_fill(dark[:, None], self.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_network_that_answers_no_number_is_named(value: float) -> None:
    """FOUND W2: NaN counted as class 0."""
    images, labels = pair()
    with pytest.raises(NaNLogits, match="3 of 12 clean"):
        evaluate_model(Breaks(0.2, value), (images, labels), CLEAN)
    with pytest.raises(NaNLogits, match="3 of 12"):  # the accuracy of every epoch
        accuracy(Breaks(0.2, value), [(images, labels)])
    bright = (images * 0.1 + 0.7, labels)
    assert evaluate_model(Breaks(0.2, value), bright, CLEAN).sa >= 0
    with pytest.raises(NaNLogits, match="severity"):
        evaluate_model(Breaks(0.6, value), bright, EvaluationOptions(corruptions="generated"))


def test_minus_infinity_rules_one_class_out() -> None:
    """FOUND W2, the neighbour that is right: a masked class."""
    masks = Around(after=lambda logits: logits.index_fill(1, torch.tensor([3]), -torch.inf))
    assert evaluate_model(masks, pair(), CLEAN).sa == 50.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_networks_of_any_floating_dtype(dtype: torch.dtype) -> None:
    """FOUND C9: the images take the network's dtype."""
    found = evaluate_model(Brightness(CLASSES).to(dtype), pair(), CLEAN)
    assert found.sa == 75.0


def test_outputs_that_hold_logits_and_outputs_that_do_not() -> None:
    """FOUND C9: `.logits` works, a tuple is a clear refusal."""
    named = Around(after=lambda logits: SimpleNamespace(logits=logits))
    assert evaluate_model(named, pair(), CLEAN) == evaluate_model(Brightness(4), pair(), CLEAN)
    assert accuracy(named, [pair()]) == 0.75
    assert accuracy(Around(after=lambda logits: {"logits": logits}), [pair()]) == 0.75
    for form, kind, word in (
        (lambda logits: (logits, logits), TypeError, "tuple of Tensor, Tensor"),
        (lambda logits: {"out": logits}, TypeError, "dict"),
        (lambda logits: logits.long(), ValueError, "int64"),
        (lambda logits: logits.argmax(dim=1), ValueError, r"\(12,\)"),
        (lambda logits: logits.mean(dim=0, keepdim=True), ValueError, r"\(1, 4\)"),
        (lambda logits: logits[:, :, None, None], ValueError, r"classes"),
    ):
        with pytest.raises(kind, match=word):
            evaluate_model(Around(after=form), pair(), CLEAN)
        with pytest.raises(kind, match=word):
            accuracy(Around(after=form), [pair()])


@pytest.mark.parametrize("forward", ["view", "reshape"])
def test_networks_that_view_their_activations_as_rows(forward: str) -> None:
    """Images come channels_last, which ``view`` does not take after a convolution."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolve, self.classify = nn.Conv2d(3, 2, 3), nn.Linear(72, 4)

        def forward(self, x: Tensor) -> Tensor:
            rows = getattr(self.convolve(x), forward)(len(x), -1)
            logits: Tensor = self.classify(rows)
            return logits

    torch.manual_seed(0)
    model = Rows()
    found = evaluate_model(model, pair(), EvaluationOptions(corruptions="digits", pgd=2))
    right = model.eval()(pair()[0]).argmax(1) == pair()[1]
    assert found.sa == 100 * right.float().mean()


def test_a_network_without_parameters_and_one_that_writes_into_its_input() -> None:
    """FOUND C9: neighbours; the caller's images stay as they were."""

    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x.mul_(-1).add_(1)  # as some normalise
            mean = 1 - x.mean(dim=(1, 2, 3))
            return -(mean[:, None] - (torch.arange(CLASSES) + 0.5) / CLASSES).abs()

    images, labels = pair()
    before = images.clone()
    assert evaluate_model(Writes(), (images, labels), CLEAN).sa == 75.0
    assert torch.equal(images, before)
