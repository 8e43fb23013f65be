"""Where the random numbers of a step come from, and what a resumed run needs (SPEC: Methods)."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast import Method
from tests.methods.support import (
    UNMIXED,
    assert_equal,
    batch,
    dual_network,
    everything,
    generator,
    left,
    make,
)

DRAWING: list[tuple[str, dict[str, Any]]] = [
    ("entprop", {}),
    ("entprop", {"score": "random"}),
    ("entprop", {"mixup": 0.0, "cutmix": 1.0}),
    ("mixup", {}),
    ("cutmix", {}),
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
    *UNMIXED.items(),
]


@pytest.mark.parametrize(("name", "options"), DRAWING)
def test_the_numbers_come_from_the_generator_or_the_default_one(
    name: str, options: dict[str, Any]
) -> None:
    own, default = make(name, generator=generator(5), **options), make(name, **options)
    before = torch.get_rng_state()
    own(*batch())
    assert_equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    default(*batch())
    assert_equal(left(default), left(own))


@pytest.mark.parametrize(("name", "options"), SILENT)
@pytest.mark.parametrize("own", [False, True])
def test_without_mixup_nothing_is_drawn(name: str, options: dict[str, Any], own: bool) -> None:
    source = generator(5) if own else None
    method = make(name, generator=source, **options)
    before = torch.get_rng_state(), generator(5).get_state()
    method(*batch())
    assert_equal(torch.get_rng_state(), before[0])
    if source is not None:
        assert_equal(source.get_state(), before[1])


@pytest.mark.parametrize(
    ("name", "options"),
    [*DRAWING, ("vanilla", {}), ("free_at", {}), ("entprop", {"n": 3, "k": 0.6})],
)
def test_a_resumed_run_goes_on_as_the_uninterrupted_one(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    whole = make(name, generator=generator(5), **options)
    for rows in (12, 7):
        whole(*batch(rows))
    method = whole.state_dict()
    parts = {p: copy.deepcopy(getattr(whole, p).state_dict()) for p in ("model", "optimizer")}
    results = [list(whole(*batch(seed=i))) for i in (2, 3)]
    torch.save(parts | {"method": method}, tmp_path / "state.pt")  # later steps do not change it

    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = make(name, generator=generator(99), model=dual_network(seed=3), **options)
    resumed(*batch(8, seed=8))  # what it held is overwritten
    resumed.model.load_state_dict(saved["model"])
    resumed.optimizer.load_state_dict(saved["optimizer"])
    resumed.load_state_dict(saved["method"])
    assert_equal(resumed.state_dict(), saved["method"])
    assert_equal([list(resumed(*batch(seed=i))) for i in (2, 3)], results)
    assert_equal(everything(resumed), everything(whole))


@pytest.mark.parametrize("saved", [None, 1])
def test_a_state_with_and_a_method_without_generator_do_not_fit(saved: int | None) -> None:
    def of(seed: int | None) -> Method:
        return make(generator=None if seed is None else generator(seed))

    other = of(1 if saved is None else None)
    with pytest.raises(ValueError, match="generator"):
        other.load_state_dict(of(saved).state_dict())


@pytest.mark.parametrize(("name", "held"), [("entprop_pipelined", "_images"), ("free_at", "delta")])
def test_a_state_is_loaded_in_place_where_it_fits_and_is_apart(name: str, held: str) -> None:
    one, other, fresh = (make(name) for _ in range(3))
    one(*batch())
    other(*batch(seed=1))
    memory, taken = vars(other)[held], one.state_dict()
    other.load_state_dict(taken)
    assert vars(other)[held] is memory  # a captured step would go on reading it
    one(*batch(seed=2))
    assert_equal(other.state_dict(), taken)
    fresh.load_state_dict(taken)
    assert_equal(fresh.state_dict(), taken)
    fresh.load_state_dict(make(name).state_dict())
    assert_equal(fresh.state_dict(), make(name).state_dict())
    if name == "entprop_pipelined":
        assert fresh(*batch()).aux_loss == 0
