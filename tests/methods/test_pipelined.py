"""Pipelined EntProp: its steps by hand and by the reference, and the rows that wait in between."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast.methods import Method
from entprop_fast.reference import entprop_pipelined_step
from tests.methods.by_hand_others import OthersByHand
from tests.methods.support import (
    assert_equal,
    batch,
    dual_network,
    everything,
    generator,
    gradients,
    make,
    parameters,
    sgd,
    statistics,
)
from tests.methods.test_exactness import MEAN, STD, Focal, close, compare, draw
from tests.methods.test_exactness_of_others import images_of, settings

NAME = "entprop_pipelined"
SIZES = (12, 12, 7, 12, 12, 14)  # rows: a smaller batch in the middle, a larger one at the end
OPTIONS: list[dict[str, Any]] = [
    {},
    {"k": 0.6},
    {"k": 1.0},
    {"aux_weight": 0.3},
    {"aux_weight": 2.0, "max_grad_norm": 0.05, "label_smoothing": 0.1},
    {"k": 0.6, "alpha": 0.02, "eps": 0.01},
    {"k": 0.6, "alpha": 0.3, "eps": 0.5},  # the image range cuts
    {"alpha": 0.3, "input_range": (-1.0, 2.0)},
    {"score": "margin", "k": 0.6},
    {"score": "energy"},
]
MIXED: list[dict[str, Any]] = [
    {},
    {"k": 0.6, "aux_labels": "mixed", "aux_weight": 0.5},
    {"k": 0.6, "score": "random"},
]


def check(
    method: Method, hand: OthersByHand, source: torch.Generator, options: dict[str, Any]
) -> None:
    """Steps on batches of several sizes beside the formulas."""
    s = settings({"k": 0.2} | options)
    beta = options.get("mixup", 0.0), options.get("cutmix", 0.0)
    for i, rows in enumerate(SIZES):
        images, labels = images_of(s, i, rows)
        draws = draw(source, rows, beta[0], s.score, beta[1])
        result = method((images - hand.mean) / hand.std, labels)
        compare(method, hand, result, hand.pipelined(images, labels, s, draws))
        assert (float(result.aux_loss) > 0) == (i > 0)


def prepared(**options: Any) -> Method:
    usual: dict[str, Any] = {"mixup": 0.0, "generator": generator(7)}
    return make(NAME, **usual | options)


def state() -> dict[str, Tensor]:
    return dual_network().state_dict()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_by_hand(options: dict[str, Any]) -> None:
    check(prepared(**options), OthersByHand(state()), generator(7), options)


@pytest.mark.parametrize("mixing", [{"mixup": 1.0}, {"mixup": 0.2}, {"cutmix": 1.0}], ids=str)
@pytest.mark.parametrize("options", MIXED, ids=str)
def test_by_hand_with_mixed_images(mixing: dict[str, float], options: dict[str, Any]) -> None:
    check(prepared(**mixing, **options), OthersByHand(state()), generator(7), options | mixing)


def test_by_hand_with_normalised_images() -> None:
    options: dict[str, Any] = {"k": 0.6, "alpha": 0.3, "mixup": 1.0}
    method = prepared(normalization=(MEAN, STD), **options)
    check(method, OthersByHand(state(), MEAN, STD), generator(7), options)


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_by_hand_with_a_criterion(mixup: float) -> None:
    def focal(log_p: Tensor, labels: Tensor) -> Tensor:
        true = log_p[range(len(labels)), labels]
        return -((1 - true.exp()) ** 2) * true

    options: dict[str, Any] = {"k": 0.6, "mixup": mixup, "aux_weight": 0.5}
    hand = OthersByHand(state(), loss=focal)
    check(prepared(criterion=Focal(), **options), hand, generator(7), options)


@pytest.mark.parametrize("k", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("options", [{"mixup": 1.0}, {"aux_weight": 0.3, "alpha": 0.02}], ids=str)
def test_the_method_equals_the_reference_step(k: float, options: dict[str, Any]) -> None:
    method, model = prepared(k=k, **options), dual_network()
    optimizer, waiting = sgd(model), None
    given: dict[str, Any] = {"k": k, "mixup": 0.0, "generator": generator(7)} | options
    for i, rows in enumerate(SIZES):
        result = method(*batch(rows, seed=i))
        main, aux, waiting = entprop_pipelined_step(
            model,
            optimizer,
            *batch(rows, seed=i),
            waiting,
            **given,
        )
        close(result.loss, main, "loss")
        close(result.aux_loss, aux, "aux_loss")
        assert method.perturbed is not None
        close(method.perturbed, waiting[0], "perturbed")
    for name, value in (parameters(method.model) | statistics(method.model)).items():
        close(value, (parameters(model) | statistics(model))[name], name)


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


def test_running_statistics_move_once_in_a_step_that_takes_rows_along() -> None:
    method = prepared()
    for i in range(3):
        method(*batch(seed=i))
    for name, buffer in method.model.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert buffer == (2 if "aux_bn" in name else 3), name


def test_the_first_step_leaves_the_auxiliary_halves_alone() -> None:
    method = prepared()
    before = copy.deepcopy(method.model.state_dict())
    assert method(*batch()).aux_loss == 0
    for name, value in method.model.state_dict().items():
        assert torch.equal(value, before[name]) == ("aux_bn" in name), name
    assert all(
        (gradient is None) == ("aux_bn" in name)
        for name, gradient in gradients(method.model).items()
    )


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


def test_what_waits_survives_a_refusal_however_late() -> None:
    method = prepared(k=0.5)
    method(*batch())

    def fail(*_: object) -> None:
        raise Fails

    handle = method.optimizer.register_step_pre_hook(fail)
    method.optimizer.zero_grad()
    before = everything(method)
    for rows in (5, 14):  # in the memory there is; in new memory
        with pytest.raises(Fails):  # after the new rows were put into the old ones' place
            method(*batch(rows, seed=1))
        method.optimizer.zero_grad()
        assert_equal(everything(method), before)
    handle.remove()
    untouched = prepared(k=0.5)
    untouched(*batch())
    assert_equal(list(method(*batch(seed=1))), list(untouched(*batch(seed=1))))


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


def test_labels_are_those_of_the_rows() -> None:
    """All of a batch's rows wait, without a move: the next loss is the one they had."""
    method = prepared(k=1.0, alpha=0.0)
    images, labels = batch()
    method.optimizer.param_groups[0].update(lr=0.0, weight_decay=0.0)
    with torch.no_grad():  # both halves alike
        for name in ("bn1", "bn2"):
            norm = method.model.get_submodule(name)
            for kind in ("weight", "bias"):
                norm.get_parameter(f"aux_bn.{kind}").copy_(norm.get_parameter(kind))
    first = method(images, labels)
    second = method(*batch(seed=1))
    close(second.aux_loss, first.loss, "aux_loss")
    assert second.loss != first.loss
