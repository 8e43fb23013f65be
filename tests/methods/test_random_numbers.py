"""Where the random numbers of a step come from, and what a resumed run needs (SPEC: Methods)."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from entprop_fast import Method
from tests.methods.support import (
    UNMIXED,
    assert_equal,
    batch,
    dual_network,
    generator,
    make,
    parameters,
    statistics,
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
]
SILENT: list[tuple[str, dict[str, Any]]] = [
    ("vanilla", {}),
    ("free_at", {}),
    ("advprop", {"random_start": False}),
    *UNMIXED.items(),
]


def trained(model: nn.Module) -> list[Any]:
    return [parameters(model), statistics(model)]


@pytest.mark.parametrize(("name", "options"), DRAWING)
def test_without_a_generator_the_default_one_is_used(name: str, options: dict[str, Any]) -> None:
    own, default = make(name, generator=generator(5), **options), make(name, **options)
    own(*batch())
    torch.manual_seed(5)
    default(*batch())
    assert_equal(trained(default.model), trained(own.model))


@pytest.mark.parametrize(("name", "options"), DRAWING)
def test_with_a_generator_the_default_one_is_left_alone(name: str, options: dict[str, Any]) -> None:
    method = make(name, generator=generator(5), **options)
    before = torch.get_rng_state()
    for _ in range(2):
        method(*batch())
    assert_equal(torch.get_rng_state(), before)


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
    for i in range(2):
        whole(*batch(seed=i))
    parts: dict[str, Any] = {"model": whole.model, "optimizer": whole.optimizer, "method": whole}
    torch.save({k: copy.deepcopy(v.state_dict()) for k, v in parts.items()}, tmp_path / "state.pt")
    whole(*batch(seed=2))

    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = make(name, generator=generator(99), model=dual_network(seed=3), **options)
    resumed.model.load_state_dict(saved["model"])
    resumed.optimizer.load_state_dict(saved["optimizer"])
    resumed.load_state_dict(saved["method"])
    resumed(*batch(seed=2))
    assert_equal(trained(resumed.model), trained(whole.model))
    assert resumed.rows == whole.rows


@pytest.mark.parametrize("saved", [None, 1])
def test_a_state_with_and_a_method_without_generator_do_not_fit(saved: int | None) -> None:
    def of(seed: int | None) -> Method:
        return make(generator=None if seed is None else generator(seed))

    other = of(1 if saved is None else None)
    with pytest.raises(ValueError, match="generator"):
        other.load_state_dict(of(saved).state_dict())


def test_state_dict_does_not_change_with_later_steps() -> None:
    method = make(generator=generator(5))
    method(*batch())
    state = method.state_dict()
    kept = copy.deepcopy(state)
    method(*batch())
    assert_equal(state, kept)


@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [
        ("vanilla", {}, 12),
        ("mixup", {}, 12),
        ("entprop", {"k": 0.2, "n": 1}, 12 + 2),
        ("entprop", {"k": 0.6, "n": 5}, 12 + 5 * 7),
        ("entprop", {"k": 0.1, "n": 2}, 12 + 2 * 1),  # m = 1: the trial forward does not count
        ("entprop", {"k": 1.0, "n": 2, "accumulate": "all"}, 12 * 3),
        ("cutmix", {}, 12),
        ("mixprop", {}, 24),
        ("advprop", {}, 12 * 7),
        ("advprop", {"n": 2, "k": 0.6}, 12 + 3 * 7),
        ("fast_advprop", {}, 10 + 2 * 2),
        ("fast_advprop", {"p_adv": 0.5}, 6 + 2 * 6),
        ("fast_advprop", {"k": 0.6}, 12 + 2 * 7),
        ("free_at", {}, 4 * 12),
        ("free_at", {"replays": 3}, 3 * 12),
    ],
)
def test_rows_count_the_cost(name: str, options: dict[str, Any], rows: int) -> None:
    method = make(name, **options)
    assert method.rows == 0
    method(*batch())
    assert method.rows == rows
    (method if name == "free_at" else method.backward)(*batch(seed=1))
    assert method.rows == 2 * rows
    assert method.cost(12) == rows / 12
