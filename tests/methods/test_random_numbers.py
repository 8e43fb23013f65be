"""Where the random numbers of a step come from, and what a resumed run needs (SPEC: Methods)."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast import Method
from tests.methods import support as s

DRAWING: list[tuple[str, dict[str, Any]]] = [
    ("entprop", {}),
    ("entprop", {"score": "random"}),
    ("entprop", {"mixup": 0.0, "cutmix": 1.0}),
    ("mixup", {}),
    ("cutmix", {}),
    ("noisymix", {}),
    ("mixprop", {}),
    ("fast_advprop", {}),
    ("advprop", {}),
    ("advprop", {"k": 0.5, "score": "random", "n": 1}),
    ("fast_advprop", {"k": 0.5, "score": "random"}),
    ("entprop_pipelined", {}),
    ("entprop_pipelined", {"score": "random", "aux_labels": "mixed"}),
    ("entprop_pipelined", {"mixup": 0.0, "cutmix": 1.0, "aux_labels": "mixed"}),
]
SILENT: list[tuple[str, dict[str, Any]]] = [
    ("vanilla", {}),
    ("free_at", {}),
    ("advprop", {"random_start": False}),
    *s.UNMIXED.items(),
]


@pytest.mark.parametrize(("name", "options"), DRAWING)
def test_the_numbers_come_from_the_generator_or_the_default_one(
    name: str, options: dict[str, Any]
) -> None:
    own, default = s.make(name, generator=s.generator(5), **options), s.make(name, **options)
    before = torch.get_rng_state()
    own(*s.batch())
    s.assert_equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    default(*s.batch())
    s.assert_equal(s.left(default), s.left(own))


@pytest.mark.parametrize(("name", "options"), SILENT)
@pytest.mark.parametrize("own", [False, True])
def test_without_mixup_nothing_is_drawn(name: str, options: dict[str, Any], own: bool) -> None:
    source = s.generator(5) if own else None
    method = s.make(name, generator=source, **options)
    before = torch.get_rng_state(), s.generator(5).get_state()
    method(*s.batch())
    s.assert_equal(torch.get_rng_state(), before[0])
    if source is not None:
        s.assert_equal(source.get_state(), before[1])


@pytest.mark.parametrize(
    ("name", "options"),
    [*DRAWING, ("vanilla", {}), ("free_at", {}), ("entprop", {"n": 3, "k": 0.6})],
)
def test_a_resumed_run_goes_on_as_the_uninterrupted_one(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    whole = s.make(name, generator=s.generator(5), **options)
    for rows in (12, 7):
        whole(*s.batch(rows))
    method = whole.state_dict()
    parts = {p: copy.deepcopy(getattr(whole, p).state_dict()) for p in ("model", "optimizer")}
    results = [list(whole(*s.batch(seed=i))) for i in (2, 3)]
    torch.save(parts | {"method": method}, tmp_path / "state.pt")  # later steps do not change it

    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = s.make(name, generator=s.generator(99), model=s.dual_network(seed=3), **options)
    resumed(*s.batch(8, seed=8))  # what it held is overwritten
    resumed.model.load_state_dict(saved["model"])
    resumed.optimizer.load_state_dict(saved["optimizer"])
    resumed.load_state_dict(saved["method"])
    s.assert_equal(resumed.state_dict(), saved["method"])
    s.assert_equal([list(resumed(*s.batch(seed=i))) for i in (2, 3)], results)
    s.assert_equal(s.everything(resumed), s.everything(whole))


@pytest.mark.parametrize("saved", [None, 1])
def test_a_state_with_and_a_method_without_generator_do_not_fit(saved: int | None) -> None:
    def of(seed: int | None) -> Method:
        return s.make(generator=None if seed is None else s.generator(seed))

    other = of(1 if saved is None else None)
    with pytest.raises(ValueError, match="generator"):
        other.load_state_dict(of(saved).state_dict())


@pytest.mark.parametrize(("name", "held"), [("entprop_pipelined", "_images"), ("free_at", "delta")])
def test_a_state_is_loaded_in_place_where_it_fits_and_is_apart(name: str, held: str) -> None:
    one, other, fresh = (s.make(name) for _ in range(3))
    one(*s.batch())
    other(*s.batch(seed=1))
    memory, taken = vars(other)[held], one.state_dict()
    other.load_state_dict(taken)
    assert vars(other)[held] is memory  # a captured step would go on reading it
    one(*s.batch(seed=2))
    s.assert_equal(other.state_dict(), taken)
    fresh.load_state_dict(taken)
    s.assert_equal(fresh.state_dict(), taken)
    fresh.load_state_dict(s.make(name).state_dict())
    s.assert_equal(fresh.state_dict(), s.make(name).state_dict())
    if name == "entprop_pipelined":
        assert fresh(*s.batch()).aux_loss == 0
