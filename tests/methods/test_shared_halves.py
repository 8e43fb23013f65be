"""EntProp whose norms have two sets of affine parameters, or of running statistics, not of both."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from entprop_fast import convert_dual_norm, norm_report, strip_auxiliary
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.halves import shared_parts
from tests.methods import support as s
from tests.methods.by_hand import ByHand, Settings
from tests.methods.test_exactness import compare, draw
from tests.processes import group_of_one

BOTH = ("affine", "statistics")
SHARED = {"affine": "statistics", "statistics": "affine"}  # the other part is one
OPTIONS: list[dict[str, Any]] = [
    {},
    {"k": 0.6, "n": 3, "accumulate": "all", "equalize": True, "aux_weight": 0.5},
    {"k": 0.6, "n": 2, "aux_stats": "every", "max_grad_norm": 0.05},
]


def shared(model: nn.Module) -> list[set[Any]]:
    return [shared_parts(one) for one in model.modules() if isinstance(one, DualNorm)]


@pytest.mark.parametrize("norms", BOTH)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_by_hand(norms: str, options: dict[str, Any]) -> None:
    hand = ByHand(s.dual_network().state_dict())
    method = s.make(generator=s.generator(7), norms=norms, **options)
    source, settings = s.generator(7), Settings(norms=norms, **options)
    for i in range(3):
        images, labels = s.batch(seed=i)
        draws = draw(source, len(images), 1.0, "entropy")
        compare(method, hand, method(images, labels), hand.step(images, labels, settings, draws))


@pytest.mark.parametrize("norms", BOTH)
def test_the_halves_share_one_part_and_the_optimizer_holds_it_once(norms: str) -> None:
    model = s.dual_network()
    keys = list(model.state_dict())
    method = s.make(norms=norms, model=model)
    assert shared(model) == [{SHARED[norms]}] * 2
    assert list(model.state_dict()) == keys
    names = [name for name, _ in model.named_parameters()]
    assert any("aux_bn" in name for name in names) == (norms == "affine")
    fresh = s.sgd(model)
    assert len(fresh.param_groups[0]["params"]) == len(names)
    method(*s.batch())
    before = s.parameters(model)
    stale = [p for p in method.optimizer.param_groups[0]["params"] if p.grad is None]
    assert len(stale) == (4 if norms == "statistics" else 0)  # what was replaced rests
    assert all(not method.optimizer.state[p] for p in stale)
    assert before.keys() == set(names)


@pytest.mark.parametrize("norms", BOTH)
def test_a_plain_network_is_left(norms: str) -> None:
    method = s.make(norms=norms)
    method(*s.batch())
    main = {k: v.clone() for k, v in method.model.state_dict().items() if "aux_bn" not in k}
    s.assert_equal(dict(strip_auxiliary(method.model).state_dict()), main)


@pytest.mark.parametrize("norms", BOTH)
def test_a_resumed_run_goes_on(norms: str, tmp_path: Path) -> None:
    whole = s.make(norms=norms, generator=s.generator(5))
    whole(*s.batch())
    parts = {p: getattr(whole, p).state_dict() for p in ("model", "optimizer")}
    torch.save(parts | {"method": whole.state_dict()}, tmp_path / "state.pt")
    results = [list(whole(*s.batch(seed=i))) for i in (1, 2)]
    for before in (True, False):  # loaded into the model before or after the method was made
        saved = torch.load(tmp_path / "state.pt", weights_only=True)
        model = s.dual_network(seed=3)
        if before:
            model.load_state_dict(saved["model"])
        resumed = s.make(norms=norms, model=model, generator=s.generator(9))
        if not before:
            resumed.model.load_state_dict(saved["model"])
        resumed.optimizer.load_state_dict(saved["optimizer"])
        resumed.load_state_dict(saved["method"])
        s.assert_equal([list(resumed(*s.batch(seed=i))) for i in (1, 2)], results)
        s.assert_equal(s.everything(resumed), s.everything(whole))


@pytest.mark.parametrize("norms", BOTH)
@pytest.mark.parametrize("assign", [False, True])
def test_what_is_shared_is_the_main_halfs_after_loading(norms: str, assign: bool) -> None:
    other = s.dual_network(seed=4).state_dict()  # whose halves differ
    method = s.make(norms=norms)
    method.model.load_state_dict(other, assign=assign)
    found = method.model.state_dict()
    for name, value in found.items():
        statistics = "running" in name or "num_" in name
        one = "aux_bn" in name and statistics == (norms == "affine")
        s.assert_equal(value, other[name.replace("aux_bn.", "") if one else name])
    if not assign:
        assert shared(method.model) == [{SHARED[norms]}] * 2


@pytest.mark.parametrize("norms", BOTH)
def test_copies_moves_and_processes_share_too(norms: str) -> None:
    method = s.make(norms=norms, mixup=0.0)
    model, _, twin = copy.deepcopy((method.model, method.optimizer, method))
    assert shared(model) == [{SHARED[norms]}] * 2
    s.assert_equal(list(twin(*s.batch())), list(method(*s.batch())))
    model.float().double()  # which gives each buffer memory of its own
    twin(*s.batch(seed=1))
    assert shared(model) == [{SHARED[norms]}] * 2
    alone = s.make(norms=norms, mixup=0.0)
    with group_of_one():
        model = s.dual_network()
        wrapped = nn.parallel.DistributedDataParallel(model)
        several = s.make(norms=norms, model=wrapped, mixup=0.0)
        for i in range(2):
            s.assert_equal(list(several(*s.batch(seed=i))), list(alone(*s.batch(seed=i))))
    s.assert_equal(s.left(several), s.left(alone))


def test_reported(capsys: pytest.CaptureFixture[str]) -> None:
    for norms, words in (("affine", "one set of statistics"), ("statistics", "one affine")):
        notes = {entry.note for entry in norm_report(s.make(norms=norms).model)}
        assert notes == {f"aux_bn, {words} for both"} and words in capsys.readouterr().out


def test_refused() -> None:
    for norms in BOTH:
        with pytest.raises(ValueError, match=r"needs dual norms.*convert_dual_norm"):
            s.make(norms=norms, model=s.plain_network())
        with pytest.raises(ValueError, match=rf"norms='{norms}'.*no dual norm.*running statistics"):
            layers = nn.Sequential(nn.Flatten(), nn.LayerNorm(108), nn.Linear(108, 5)).double()
            s.make(norms=norms, model=convert_dual_norm(layers))
        model = s.make(norms=norms).model
        for other in {"dual", *BOTH} - {norms}:
            with pytest.raises(ValueError, match=rf"norms='{other}'.*{SHARED[norms]}.*convert"):
                s.make(norms=other, model=model)
        s.make(norms=norms, model=model)
        with pytest.raises(ValueError, match=r"norms='shared'.*strip_auxiliary"):
            s.make(norms="shared", model=model)
    model = s.plain_network()
    parametrizations.weight_norm(model.get_submodule("bn1"))
    with pytest.raises(ValueError, match=r"computed anew"):
        s.make(norms="statistics", model=convert_dual_norm(model))


@pytest.mark.parametrize("norms", ["dual", "affine"])
def test_what_halves_share_is_decided_when_the_method_is_made(norms: str) -> None:
    method = s.make(norms=norms)
    before = shared(method.model)
    method.norms = "statistics"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="norms='statistics'"):
        method(*s.batch_for(method))
    assert shared(method.model) == before
    method.norms = norms  # type: ignore[attr-defined]
    method(*s.batch_for(method))
