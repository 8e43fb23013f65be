"""Checkpoints of timm's split norms and of AdvProp's repositories give the outputs they gave."""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from entprop_fast import convert_dual_norm, models, route
from entprop_fast.layers.routing import Target
from entprop_fast.models import load_aux_checkpoint
from tests.layers import oracle

convert_splitbn_model: Any = timm.layers.convert_splitbn_model
Made = Callable[[int], nn.Module]
BN, LN = nn.BatchNorm2d, nn.LayerNorm


class Mixed(nn.Module):
    """Two norms, a half of the batch through each, as AdvProp's repositories write it.

    `names` are those of the two; "bn.1" is the second of a list, "" the module itself.
    """

    def __init__(self, norm: nn.Module, main: str, aux: str) -> None:
        super().__init__()
        self.halves: list[Any] = []
        for name, half in ((main, norm), (aux, copy.deepcopy(norm))):
            at, _, index = name.partition(".")
            if not index:
                self.add_module(at, half)
            elif index == "0":
                self.add_module(at, nn.ModuleList([half]))
            else:
                self.get_submodule(at).append(half)  # type: ignore[operator]
            self.halves.append(lambda x, half=half: half(x))
        self.status = "clean"

    def forward(self, x: Tensor) -> Tensor:
        main, aux = self.halves
        if self.status == "mix":
            first, second = x.chunk(2)
            return torch.cat([main(first), aux(second)])
        y: Tensor = (main if self.status == "clean" else aux)(x)
        return y


class MixedItself(nn.BatchNorm2d):
    """A batch norm with a second one as its child."""

    def __init__(self, channels: int, aux: str) -> None:
        super().__init__(channels)
        self.add_module(aux, BN(channels))
        self.halves: list[Any] = [super().forward, self.get_submodule(aux)]
        self.status = "clean"

    forward = Mixed.forward  # type: ignore[assignment]


def randomized(model: Any) -> Any:
    oracle.randomize(model)
    return model


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def network(first: Made, second: Made) -> Any:
    """Convolution, norm, norm over the last dimension, linear: images [N, 3, 4, 4]."""
    layers = [nn.Conv2d(3, 4, 1), first(4), nn.ReLU(), second(4), nn.Flatten(), nn.Linear(64, 5)]
    return randomized(nn.Sequential(*layers).double())


def dual() -> Any:
    return convert_dual_norm(network(BN, LN))


def two(main: str, aux: str, norm: Made = BN) -> Made:
    return lambda channels: Mixed(norm(channels), main, aux)


TARGETS: dict[str, Target] = {"clean": "main", "adv": "aux", "mix": 3}
LAYOUTS: dict[str, tuple[Made, Made]] = {
    "aux_bn": (lambda c: MixedItself(c, "aux_bn"), two("main_bn", "aux_bn", LN)),
    "bn_adv in itself": (lambda c: MixedItself(c, "bn_adv"), two("ln", "ln_aux", LN)),
    "bn, aux_bn": (two("bn", "aux_bn"), two("clean_bn", "adv_bn", LN)),
    "bn.0, bn.1": (two("bn.0", "bn.1"), two("bn.0", "bn.1", LN)),
    "BN_c, BN_a": (two("BN_c", "BN_a"), two("BN_c", "BN_a", LN)),
    "bn_clean, bn_adv": (two("bn_clean", "bn_adv"), two("bn_clean", "bn_adv", LN)),
    "clean_bn, noise_bn": (two("clean_bn", "noise_bn"), two("clean_bn", "noise_bn", LN)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_of_both_halves_are_the_other_library_s(layout: str) -> None:
    theirs = network(*LAYOUTS[layout])
    ours, x = load_aux_checkpoint(dual(), theirs.state_dict()), torch.randn(6, 3, 4, 4).double()
    for training in (False, True):
        for status, target in TARGETS.items():
            for module in theirs.modules():
                module.status = status
            theirs.train(training)
            ours.train(training)
            with route(ours, target):
                close(ours(x), theirs(x))
    again = load_aux_checkpoint(dual(), theirs.state_dict())  # what training moved
    for key, value in again.state_dict().items():
        close(ours.state_dict()[key], value)


def split(parts: int = 2) -> Any:
    model = timm.create_model("test_resnet", num_classes=5)
    return randomized(convert_splitbn_model(model, parts)).double()


def unsplit() -> Any:
    return convert_dual_norm(timm.create_model("test_resnet", num_classes=5).double())


@pytest.mark.parametrize("route_taken", ["checkpoint", "model"])
def test_timm_s_split_norms(route_taken: str, tmp_path: Path) -> None:
    """Of the script's checkpoint and of the model itself: the outputs are timm's."""
    theirs, x = split(), torch.randn(6, 3, 32, 32).double()
    ours = convert_dual_norm(copy.deepcopy(theirs)) if route_taken == "model" else unsplit()
    if route_taken == "checkpoint":
        held = {"module." + key: value for key, value in theirs.state_dict().items()}
        found = {"epoch": 3, "arch": "it", "state_dict": held, "args": argparse.Namespace(lr=0.1)}
        torch.save(found, tmp_path / "last.pth.tar")
        load_aux_checkpoint(ours, str(tmp_path / "last.pth.tar"))
    close(ours.eval()(x), theirs.eval()(x))
    ours.train()
    theirs.train()
    with route(ours, 3):
        close(ours(x), theirs(x))
    for key, value in theirs.state_dict().items():
        close(ours.state_dict()[key.replace("aux_bn.0.", "aux_bn.")], value)


def test_further_auxiliary_norms_are_dropped_and_named() -> None:
    theirs = split(3)
    with pytest.warns(UserWarning, match=r"dropped: .*aux_bn\.1") as caught:
        ours = load_aux_checkpoint(unsplit(), theirs.state_dict())
    assert len(caught) == 1
    first = next(key for key in theirs.state_dict() if "aux_bn.0.weight" in key)
    kept = ours.state_dict()[first.replace("aux_bn.0.", "aux_bn.")]
    assert torch.equal(kept, theirs.state_dict()[first])


def test_norms_with_one_half_fill_both_and_are_named() -> None:
    """As the layer norms beside timm's split batch norms are."""
    theirs = network(lambda c: MixedItself(c, "aux_bn"), LN)
    with pytest.warns(UserWarning, match="fill both halves: 3$"):
        ours = load_aux_checkpoint(dual(), theirs.state_dict())
    for key in ("3.weight", "3.aux_ln.weight"):
        assert torch.equal(ours.state_dict()[key], theirs[3].weight)
    assert torch.equal(ours[1].aux_bn.weight, theirs[1].aux_bn.weight)


def test_own_keys_and_older_files(tmp_path: Path) -> None:
    one, other = randomized(dual()), dual()
    state = {k: v for k, v in one.state_dict().items() if "num_batches" not in k}
    safetensors.torch.save_file(state, tmp_path / "own.safetensors")
    load_aux_checkpoint(other, tmp_path / "own.safetensors")
    for key, value in state.items():
        assert torch.equal(other.state_dict()[key], value)
    assert not other[1].aux_bn.num_batches_tracked.any()


class Runs:
    """What unpickling would call."""

    def __reduce__(self) -> Any:
        return print, ("run",)


STATE: dict[str, Tensor] = dict(dual().state_dict())
REFUSED: dict[str, tuple[Any, str]] = {
    "unknown": (STATE | {"1.adv_running_mean": torch.zeros(4)}, r"unknown keys: 1\.adv_running"),
    "missing": ({k: v for k, v in STATE.items() if k != "1.aux_bn.bias"}, r"missing: 1\.aux_bn\.b"),
    "no norm": ({k: v for k, v in STATE.items() if k[0] != "3"}, r"missing: 3\.weight"),
    "shape": (STATE | {"5.weight": torch.zeros(2, 2)}, r"another shape or kind: 5\.weight"),
    "counts": (STATE | {"5.bias": torch.zeros(5).long()}, r"another shape or kind: 5\.bias"),
    "meta": (STATE | {"5.bias": torch.zeros(5, device="meta")}, r"another shape or kind: 5\.bias"),
    "sparse": (STATE | {"5.bias": torch.zeros(5).to_sparse()}, r"another shape or kind: 5\.bias"),
    "no tensors": ({"epoch": 3}, "'epoch' is no tensor"),
    "nothing": ({}, "not a state dict"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_named_and_changes_nothing(case: str) -> None:
    state, match = REFUSED[case]
    model = dual()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"checkpoint.*{match}"):
        load_aux_checkpoint(model, state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_files_that_are_none_and_a_plain_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": STATE, "best": Runs()}, tmp_path / "runs.pt")
    with pytest.raises(ValueError, match="no pickled code is run"):
        load_aux_checkpoint(dual(), tmp_path / "runs.pt")
    assert "run" not in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"checkpoint '.*none\.pt'"):
        load_aux_checkpoint(dual(), tmp_path / "none.pt")
    with pytest.raises(ValueError, match="model has no dual norms: call"):
        load_aux_checkpoint(models.create("wrn10_0.5", num_classes=3), STATE)
