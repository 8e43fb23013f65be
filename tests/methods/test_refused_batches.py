"""Batches that a call refuses; whatever is refused, nothing has changed."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import Method, convert_dual_norm, create_method
from entprop_fast.methods import METHODS
from tests.methods import support as s

Change = Callable[[Tensor, Tensor], tuple[Any, Any]]


def with_value(value: float) -> Change:
    def change(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        images[3, 1, 2, 4] = value
        return images, labels

    return change


def with_label(value: int) -> Change:
    return lambda images, labels: (images, labels.index_fill(0, torch.tensor(5), value))


# What is wrong, and what the message names.
WRONG: dict[str, tuple[Change, str]] = {
    "images no tensor": (lambda x, y: (x.numpy(), y), "images.*ndarray"),
    "labels no tensor": (lambda x, y: (x, y.tolist()), "labels.*list"),
    "three dimensions": (lambda x, y: (x[:, 0], y), r"images.*\(12, 6, 6\)"),
    "no rows": (lambda x, y: (x[:0], y[:0]), r"images.*\(0, 3, 6, 6\)"),
    "no width": (lambda x, y: (x[..., :0], y), r"images.*\(12, 3, 6, 0\)"),
    "bytes": (lambda x, y: ((x * 255).byte(), y), "images.*uint8"),
    "another dtype": (lambda x, y: (x.float(), y), "images.*float32.*float64"),
    "half": (lambda x, y: (x.half(), y), "images.*float16.*float64"),
    "int32 labels": (lambda x, y: (x, y.int()), "labels.*int32.*int64"),
    "float labels": (lambda x, y: (x, y.double()), "labels.*float64.*int64"),
    "one-hot": (lambda x, y: (x, y[:, None]), r"labels.*\(12, 1\).*\(12,\)"),
    # Who mixes, and what to do with one-hot labels.
    "soft": (lambda x, y: (x, nn.functional.one_hot(y).double()), r"labels.*mixup=.*argmax\(1\)"),
    "soft int": (lambda x, y: (x, nn.functional.one_hot(y)), r"labels.*mixup=.*argmax\(1\)"),
    "fewer labels": (lambda x, y: (x, y[:-1]), r"labels.*\(11,\).*\(12,\)"),
    "label -1": (with_label(-1), "labels.*-1"),
    "label -100": (with_label(-100), "labels.*-100"),
    "label 5": (with_label(s.CLASSES), r"labels.*5.*\[0, 5\)"),
    "below": (with_value(-0.01), r"images.*-0\.01.*input_range.*normalization"),
    "above": (with_value(1.5), r"images.*1\.5.*input_range"),
    "infinite": (with_value(math.inf), r"images.*inf.*input_range"),
    "nan": (with_value(math.nan), r"images.*nan.*input_range"),
    "five channels": (  # of its first pass
        lambda x, y: (torch.cat((x, x[:, :2]), 1), y),
        r"images.*\(\d+, 5, 6, 6\)",
    ),
    "too small": (lambda x, y: (x[..., :2, :2], y), r"images.*\(\d+, 3, 2, 2\)"),
    "elsewhere": (lambda x, y: (x.to("meta"), y), "images.*meta.*cpu"),
    "labels elsewhere": (lambda x, y: (x, y.to("meta")), "labels.*meta.*cpu"),
}


# What a method's own passes find out; all else is refused before them.
LATE = ("label 5", "five channels", "too small")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (name, what)
        for what in WRONG
        for name in (METHODS if what in LATE else ("entprop", "entprop_pipelined", "free_at"))
    ],
)
def test_wrong_batch(name: str, what: str) -> None:
    """At the first call and later; gradients that were there stay."""
    method = s.make(name, generator=s.generator(5))
    change, match = WRONG[what]
    for seed in (1, 2):
        for parameter in method.model.parameters():
            parameter.grad = torch.full_like(parameter, 0.25)
        s.refuse(method, *change(*s.batch(seed=seed)), match=match)
        assert method(*s.batch(seed=seed)).loss.isfinite()  # and it goes on


@pytest.mark.parametrize("bound", [0, 1])
def test_values_within_the_tolerance_count_as_inside(bound: int) -> None:
    for beyond, refused in ((0.99e-5, False), (1.01e-5, True)):
        images, labels = with_value(bound + (beyond if bound else -beyond))(*s.batch())
        plain, inside = s.make(), s.make(normalization=(s.MEAN, s.STD))
        for method, given in ((plain, images), (inside, s.normalised(images))):
            if refused:
                s.refuse(method, given, labels, match="images")
            else:
                method(given, labels)


def test_bounds_in_float32_after_a_normalisation_count_as_inside() -> None:
    images, labels = s.batch(dtype=torch.float32)
    images[0], images[1] = 0.0, 1.0
    method = s.make(model=s.dual_network(dtype=torch.float32), normalization=(s.MEAN, s.STD))
    method(s.normalised(images), labels)


@pytest.mark.parametrize("input_range", [(-1.0, 1.0), (0.0, 255.0)])
def test_input_range(input_range: tuple[float, float]) -> None:
    low, high = input_range
    images, labels = s.batch()
    s.make(input_range=input_range)(images * (high - low) + low, labels)
    s.refuse(s.make(input_range=input_range), images + high, labels, match="input_range")


def test_normalization_of_other_channels() -> None:
    method = s.make(normalization=((0.5, 0.5), (0.2, 0.2)))
    s.refuse(method, *s.batch(), match="normalization has 2 channels, the images have 3")


def test_check_decides_on_values_but_not_on_shapes() -> None:
    images, labels = with_value(1.5)(*s.batch())
    assert s.make(check=False)(images, labels).loss.isfinite()
    s.refuse(s.make(check=True), images, labels, match="input_range")
    s.refuse(s.make(check=None), images, labels, match="input_range")
    s.refuse(s.make(check=False), images[0], labels, match="shape")
    s.refuse(s.make(check=False), images, labels.int(), match="dtype")


@pytest.mark.parametrize("check", [None, True])
def test_labels_are_checked_at_every_call(check: bool | None) -> None:
    method = s.make(check=check)
    for i in range(2):
        s.refuse(method, *with_label(s.CLASSES)(*s.batch()), match=r"\[0, 5\)")
        method(*s.batch(seed=i))


@pytest.mark.parametrize("name", METHODS)
def test_a_model_in_eval_mode(name: str) -> None:
    method = s.make(name)
    method.model.eval()
    s.refuse(method, *s.batch(), match=r"model.*train\(\)")


@pytest.mark.parametrize("name", ["entprop", "mixup", "mixprop", "cutmix", "entprop_pipelined"])
def test_one_row_has_no_partner(name: str) -> None:
    option = "cutmix" if name == "cutmix" else "mixup"
    s.refuse(
        s.make(name, generator=s.generator(5)),
        *s.batch(1),
        match=f"batch of B=1.*{option}=1.*2 rows",
    )


@pytest.mark.parametrize(("p_adv", "rows"), [(0.2, 1), (0.9, 4)])
def test_a_split_that_leaves_no_clean_row(p_adv: float, rows: int) -> None:
    method = s.make("fast_advprop", p_adv=p_adv, generator=s.generator(5))
    s.refuse(method, *s.batch(rows), match=rf"B={rows}: p_adv={p_adv}")
    method(*s.batch(12))


def pixels(name: str = "entprop", **kwargs: Any) -> Method:
    """A method on a network whose last norm sees one value for each row of 4x4 images."""
    model = s.dual_network()
    model.conv2 = nn.Conv2d(4, 6, 4).double()
    return s.make(name, model=model, generator=s.generator(5), **kwargs)


@pytest.mark.parametrize(
    ("name", "options", "rows", "match"),
    [
        ("entprop", {"k": 0.2}, 4, "k=0.2 of a batch of B=4, m=1"),
        ("entprop", {"mixup": 0.0}, 1, "B=1"),
        ("advprop", {"k": 0.2}, 4, "k=0.2 of a batch of B=4, m=1"),
        ("entprop_pipelined", {}, 4, "k=0.2 of a batch of B=4, m=1"),
        ("fast_advprop", {"k": 0.2}, 4, "k=0.2 of a batch of B=4, m=1"),
        ("fast_advprop", {}, 4, "p_adv=0.2 of a batch of B=4, m=1"),
        ("fast_advprop", {"p_adv": 0.7}, 4, "p_adv=0.7 leaves of a batch of B=4"),
    ],
)
def test_one_row_where_a_norm_would_see_one_value(
    name: str, options: dict[str, Any], rows: int, match: str
) -> None:
    method = pixels(name, **options)
    s.refuse(method, *s.batch(rows, size=4), match=match)
    method(*s.batch(12, size=4))  # more rows
    s.refuse(method, *s.batch(rows, size=4), match=match)
    assert pixels(name, **options)(*s.batch(rows, size=6)).loss.isfinite()  # four values for each


def test_free_training_refuses_images_of_another_size() -> None:
    method = s.make("free_at")
    method(*s.batch())
    s.refuse(method, *s.batch(size=8), match=r"\(12, 3, 8, 8\).*delta.*\(3, 6, 6\)")
    method(*s.batch(20))  # more rows: theirs start at 0
    assert method.state_dict()["delta"].shape == (20, 3, 6, 6)


def test_a_frozen_auxiliary_half_takes_one_value() -> None:
    method = pixels(k=0.2)
    method.model.get_submodule("bn2.aux_bn").eval()
    assert method(*s.batch(4, size=4)).loss.isfinite()


@pytest.mark.parametrize("rows", [1, 4])  # B = 1; m = 1
def test_a_single_row_that_the_model_cannot_take(rows: int) -> None:
    images, labels = s.batch(rows)
    method = s.make(mixup=0.0)
    s.refuse(method, torch.cat((images, images), 1), labels, match=r"images of shape.*cannot take")


def test_an_assertion_of_the_model_is_a_matter_of_the_images() -> None:
    def insist(logits: Tensor) -> Tensor:
        raise AssertionError("Input height (6) doesn't match model (224)")

    s.refuse(
        s.make(model=s.ending_in(insist)),
        *s.batch(),
        match=r"images of shape \(12, 3, 6, 6\).*doesn't match",
    )


def test_a_criterion_that_reduces_leaves_itself_as_it_was() -> None:
    model, criterion = s.dual_network(), s.Counts("mean")
    optimizer = torch.optim.SGD([*model.parameters(), criterion.scale], lr=0.1)
    method = create_method("entprop", model, optimizer, criterion=criterion)
    criterion.scale.grad = torch.ones_like(criterion.scale)
    s.refuse(method, *s.batch(), match=r"criterion.*shape \(\).*\(12,\).*none")
    assert criterion.calls == 0 and criterion.replaced == 0


def test_a_refusal_puts_back_what_the_optimizer_holds_beside_the_model() -> None:
    model, other = s.dual_network(), nn.Parameter(torch.ones(2))
    other.grad = torch.ones(2)
    method = create_method("entprop", model, torch.optim.SGD([*model.parameters(), other], lr=0.1))
    s.refuse(method, *with_label(s.CLASSES)(*s.batch()), match="labels")
    s.assert_equal(other.grad, torch.ones(2))


@pytest.mark.parametrize("equalize", [False, True])
def test_a_refusal_after_the_main_pass_takes_its_gradients_back(equalize: bool) -> None:
    def only_the_batch(logits: Tensor) -> Tensor:
        return logits.view(12, s.CLASSES)

    method = s.make(model=s.ending_in(only_the_batch), equalize=equalize)
    for parameter in method.model.parameters():  # to which the main pass adds
        parameter.grad = torch.full_like(parameter, 0.25)
    s.refuse(method, *s.batch(), match=r"images of shape \(2, 3, 6, 6\).*cannot take")


def test_a_refusal_restores_a_dropout_mask_of_the_default_generator() -> None:
    model = convert_dual_norm(nn.Sequential(nn.Dropout(0.5), s.dual_network()))
    s.refuse(s.make(model=model), *with_label(s.CLASSES)(*s.batch()), match="labels")
