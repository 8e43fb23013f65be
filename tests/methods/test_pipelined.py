"""The rows of pipelined EntProp that wait from step to step."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import route
from tests.methods.support import (
    assert_equal,
    batch,
    dual_network,
    everything,
    generator,
    make,
    statistics,
)
from tests.methods.test_exactness import close
from tests.methods.test_exactness_of_pipelined import NAME, prepared


def test_one_forward_takes_along_what_the_last_step_perturbed() -> None:
    model = dual_network()
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    method = make(NAME, model=model, mixup=0.0, k=0.5)
    perturbed: list[Tensor] = []
    for i, rows in enumerate((12, 5, 12)):
        method(*batch(rows, seed=i))
        assert method.perturbed is not None
        perturbed.append(method.perturbed.clone())
    assert [len(rows) for rows in seen] == [12, 5 + 6, 12 + 3]
    for i, rows in enumerate((12, 5, 12)):
        assert_equal(seen[i][:rows], batch(rows, seed=i)[0])
        assert_equal(seen[i][rows:], perturbed[i - 1] if i else seen[i][:0])
    assert method.rows == 12 + 11 + 15
    assert method.cost(12) == 18 / 12


@pytest.mark.parametrize("rows", [12, 5])  # of the batch before the interruption
@pytest.mark.parametrize(
    "options", [{}, {"aux_labels": "mixed"}, {"mixup": 0.0, "cutmix": 1.0, "aux_labels": "mixed"}]
)
def test_a_resumed_run_is_bit_for_bit(rows: int, options: dict[str, Any], tmp_path: Path) -> None:
    options = {"mixup": 1.0, "k": 0.5} | options
    whole, resumed = prepared(**options), prepared(**options | {"generator": generator(1)})
    for i, size in enumerate((12, rows)):
        whole(*batch(size, seed=i))
    for part in ("model", "optimizer"):
        getattr(resumed, part).load_state_dict(copy.deepcopy(getattr(whole, part).state_dict()))
    resumed(*batch(7, seed=8))  # what it held is overwritten
    for part in ("model", "optimizer"):
        getattr(resumed, part).load_state_dict(copy.deepcopy(getattr(whole, part).state_dict()))
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert_equal(resumed.state_dict(), whole.state_dict())
    for i in range(2, 5):
        results = [list(method(*batch(seed=i))) for method in (whole, resumed)]
        assert_equal(*results)
    resumed.optimizer.zero_grad()
    whole.optimizer.zero_grad()
    assert_equal(everything(resumed), everything(whole))


def test_a_state_is_loaded_in_place_where_it_fits_and_is_apart() -> None:
    one, other = prepared(), prepared()
    one(*batch())
    other(*batch(seed=1))
    held = vars(other)["_images"]
    taken = one.state_dict()
    other.load_state_dict(taken)
    assert vars(other)["_images"] is held  # a captured step would go on reading it
    one(*batch(seed=2))
    assert_equal(other.state_dict(), taken)
    other.load_state_dict(prepared().state_dict())
    assert other.state_dict()["waiting"] is None
    assert other(*batch()).aux_loss == 0


def test_memory_stays_where_batches_are_no_larger() -> None:
    method = prepared(k=0.5)
    method(*batch(12))
    held = vars(method)["_images"]
    for rows in (5, 12, 8):
        method(*batch(rows))
        assert vars(method)["_images"] is held and vars(method)["waiting"] == rows // 2 + rows % 2
    method(*batch(14))
    assert len(vars(method)["_images"]) == 7


def test_backward_takes_rows_along_and_leaves_new_ones() -> None:
    stepped, run = prepared(), prepared()
    for i in range(3):
        expected = stepped(*batch(seed=i))
        run.optimizer.zero_grad()
        assert_equal(list(run.backward(*batch(seed=i))), list(expected))
        run.optimizer.step()
    assert_equal(everything(run), everything(stepped))


class Fails(Exception):
    """Out of order."""


@pytest.mark.parametrize(("name", "options"), [(NAME, {"k": 0.5}), ("free_at", {})])
def test_what_steps_carry_survives_a_refusal_however_late(
    name: str, options: dict[str, Any]
) -> None:
    method, untouched = make(name, **options), make(name, **options)
    for one in (method, untouched):
        torch.manual_seed(3)
        one(*batch())

    def fail(*_: object) -> None:
        raise Fails

    handle = method.optimizer.register_step_pre_hook(fail)
    method.optimizer.zero_grad()
    before = everything(method)
    for rows in (5, 14):  # in the memory there is; in new memory
        with pytest.raises(Fails):  # after the new values were put into the old ones' place
            method(*batch(rows, seed=1))
        method.optimizer.zero_grad()
        assert_equal(everything(method), before)
    handle.remove()
    results = []
    for one in (method, untouched):
        torch.manual_seed(4)
        results.append(list(one(*batch(seed=1))))
    assert_equal(*results)


@pytest.mark.parametrize("size", [5, 8])
def test_images_of_another_size_are_refused_while_rows_wait(size: int) -> None:
    method = prepared(mixup=1.0)
    method(*batch(size=size))
    method.waiting = 0  # type: ignore[attr-defined]
    method(*batch())  # both shapes are known now
    before = everything(method)
    for call in (method, method.backward):
        with pytest.raises(ValueError, match=rf"\(3, {size}, {size}\).*2 rows.*\(3, 6, 6\).*= 0"):
            call(*batch(size=size))
        assert_equal(everything(method), before)
    method.waiting = 0  # type: ignore[attr-defined]
    assert method(*batch(size=size)).aux_loss == 0


def test_layouts_may_change() -> None:
    one, other = prepared(k=0.5), prepared(k=0.5)
    for i in range(4):
        images, labels = batch(seed=i)
        layout = torch.channels_last if i in (1, 2) else torch.contiguous_format
        expected = one(images, labels)
        found = other(images.contiguous(memory_format=layout), labels)
        for name, value in found._asdict().items():
            close(value, getattr(expected, name), name)


class Strides(nn.Module):
    """Notes whether its input is channels_last."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return x


def test_the_one_pass_has_the_layout_of_the_images() -> None:
    notes = Strides()
    method = make(NAME, model=nn.Sequential(notes, dual_network()))
    for i, layout in enumerate((torch.contiguous_format, *[torch.channels_last] * 3)):
        images, labels = batch(seed=i)
        method(images.contiguous(memory_format=layout), labels)
    assert notes.seen == [False, False, True, True]  # in the second the waiting rows are not yet


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
    model = dual_network()
    for name in frozen:
        half = model.get_submodule(name)
        half.training = False  # of bn2 the main half alone
    model.bn1 = Folded(model.get_submodule("bn1"))
    method = make(NAME, model=model, mixup=0.0, k=0.5)
    images, labels = batch()
    method(images, labels)
    assert method.perturbed is not None and method.selected_index is not None
    rows, targets = method.perturbed.clone(), labels[method.selected_index]
    alone = copy.deepcopy(model)
    with route(alone, "aux"):
        expected = nn.functional.cross_entropy(alone(rows), targets)
    close(method(*batch(seed=1)).aux_loss, expected.detach(), "aux_loss")
    for name, value in statistics(alone).items():
        if "aux_bn" in name:
            close(statistics(model)[name], value, name)
