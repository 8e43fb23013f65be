"""The rows of pipelined EntProp that wait from step to step."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import route
from tests.methods import support as s
from tests.methods.test_exactness import close
from tests.methods.test_exactness_of_pipelined import NAME, prepared


def test_one_forward_takes_along_what_the_last_step_perturbed() -> None:
    model = s.dual_network()
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    method = s.make(NAME, model=model, mixup=0.0, k=0.5)
    perturbed: list[Tensor] = []
    for i, rows in enumerate((12, 5, 12)):
        method(*s.batch(rows, seed=i))
        assert method.perturbed is not None
        perturbed.append(method.perturbed.clone())
    assert [len(rows) for rows in seen] == [12, 5 + 6, 12 + 3]
    for i, rows in enumerate((12, 5, 12)):
        s.assert_equal(seen[i][:rows], s.batch(rows, seed=i)[0])
        s.assert_equal(seen[i][rows:], perturbed[i - 1] if i else seen[i][:0])
    assert method.rows == 12 + 11 + 15
    assert method.cost(12) == 18 / 12


def test_memory_stays_where_batches_are_no_larger() -> None:
    method = prepared(k=0.5)
    method(*s.batch(12))
    held = vars(method)["_images"]
    for rows in (5, 12, 8):
        method(*s.batch(rows))
        assert vars(method)["_images"] is held and vars(method)["waiting"] == rows // 2 + rows % 2
    method(*s.batch(14))
    assert len(vars(method)["_images"]) == 7


@pytest.mark.parametrize(("name", "options"), [(NAME, {"k": 0.5}), ("free_at", {})])
def test_what_steps_carry_survives_a_refusal_however_late(
    name: str, options: dict[str, Any]
) -> None:
    method, untouched = s.make(name, **options), s.make(name, **options)
    for one in (method, untouched):
        torch.manual_seed(3)
        one(*s.batch())

    def fail(*_: object) -> None:
        raise KeyError

    handle = method.optimizer.register_step_pre_hook(fail)
    method.optimizer.zero_grad()
    before = s.everything(method)
    for rows in (5, 14):  # in the memory there is; in new memory
        with pytest.raises(KeyError):  # after the new values were put into the old ones' place
            method(*s.batch(rows, seed=1))
        method.optimizer.zero_grad()
        s.assert_equal(s.everything(method), before)
    handle.remove()
    results = []
    for one in (method, untouched):
        torch.manual_seed(4)
        results.append(list(one(*s.batch(seed=1))))
    s.assert_equal(*results)


@pytest.mark.parametrize("size", [5, 8])
def test_images_of_another_size_are_refused_while_rows_wait(size: int) -> None:
    method = prepared(mixup=1.0)
    method(*s.batch(size=size))
    method.waiting = 0  # type: ignore[attr-defined]
    method(*s.batch())  # both shapes are known now
    before = s.everything(method)
    for call in (method, method.backward):
        with pytest.raises(ValueError, match=rf"\(3, {size}, {size}\).*2 rows.*\(3, 6, 6\).*= 0"):
            call(*s.batch(size=size))
        s.assert_equal(s.everything(method), before)
    method.waiting = 0  # type: ignore[attr-defined]
    assert method(*s.batch(size=size)).aux_loss == 0


def test_layouts_may_change() -> None:
    one, other = prepared(k=0.5), prepared(k=0.5)
    for i in range(4):
        images, labels = s.batch(seed=i)
        layout = torch.channels_last if i in (1, 2) else torch.contiguous_format
        expected = one(images, labels)
        found = other(images.contiguous(memory_format=layout), labels)
        for name, value in found._asdict().items():
            close(value, getattr(expected, name), name)


def test_the_one_pass_has_the_layout_of_the_images() -> None:
    seen: list[bool] = []
    model = s.dual_network()
    model.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    method = s.make(NAME, model=model)
    for i, layout in enumerate((torch.contiguous_format, *[torch.channels_last] * 3)):
        images, labels = s.batch(seed=i)
        method(images.contiguous(memory_format=layout), labels)
    assert seen == [False, False, True, True]  # in the second the waiting rows are not yet


class Folded(nn.Module):
    """A norm that sees the halves of an image as rows of their own, as windows are."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        halves = x.view(rows, channels, 2, height // 2, width).transpose(1, 2)
        y: Tensor = self.norm(halves.reshape(2 * rows, channels, height // 2, width))
        return y.view_as(halves).transpose(1, 2).reshape_as(x)


@pytest.mark.parametrize("frozen", [(), ("bn2",), ("bn2.aux_bn",)], ids=str)
def test_what_waits_goes_through_the_auxiliary_halves(frozen: tuple[str, ...]) -> None:
    """Also where a layer's rows are not the batch's, and where one half is in eval mode."""
    model = s.dual_network()
    for name in frozen:
        half = model.get_submodule(name)
        half.training = False  # of bn2 the main half alone
    model.bn1 = Folded(model.get_submodule("bn1"))
    method = s.make(NAME, model=model, mixup=0.0, k=0.5)
    images, labels = s.batch()
    method(images, labels)
    assert method.perturbed is not None and method.selected_index is not None
    rows, targets = method.perturbed.clone(), labels[method.selected_index]
    alone = copy.deepcopy(model)
    with route(alone, "aux"):
        expected = nn.functional.cross_entropy(alone(rows), targets)
    close(method(*s.batch(seed=1)).aux_loss, expected.detach(), "aux_loss")
    for name, value in s.statistics(alone).items():
        if "aux_bn" in name:
            close(s.statistics(model)[name], value, name)
