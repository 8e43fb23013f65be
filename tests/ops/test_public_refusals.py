"""Check that the public functions refuse what the raw ops do (test_refusals.py), unchanged."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from entprop_fast.ops import (
    Half,
    conv3x3,
    dual_batch_norm,
    gather_perturb,
    loss_and_entropy,
    perturb_,
    select_topk,
)

Arguments: TypeAlias = dict[str, Any]
Function: TypeAlias = Callable[..., Any]


def tables() -> tuple[dict[Function, Arguments], list[tuple[Function, Arguments, str]]]:
    """Return arguments that fit, and for refusals the function, a change, how the error begins."""
    x, labels, channels = torch.zeros(4, 6, 3, 3), torch.zeros(4).long(), torch.zeros(6)
    step = {"x": x, "grad": x, "index": torch.zeros(2).long()}
    step |= dict.fromkeys(("alpha", "eps", "lo", "hi"), channels)
    fitting: dict[Function, Arguments] = {
        dual_batch_norm: {"x": x, "num_main": 2},
        gather_perturb: step,
        perturb_: step | {"x_adv": x[:2].clone(), "grad": x[:2]},
        loss_and_entropy: {"logits": x[:, :3, 0, 0], "labels": labels},
        select_topk: {"score": channels, "k": 1},
        conv3x3: {"x": torch.zeros(2, 16, 3, 4), "weight": torch.zeros(16, 16, 3, 3)},
    }
    refused: list[tuple[Function, Arguments, str]] = [
        (dual_batch_norm, {"num_main": 9}, "num_main=9"),
        (dual_batch_norm, {"aux": Half(torch.zeros(5))}, "aux_weight"),
        (dual_batch_norm, {"main": Half(training=False)}, "running_mean, running_var"),
        (dual_batch_norm, {"main": Half(None, None, channels, channels)}, "running_mean"),  # W8
        (dual_batch_norm, {"aux": Half(eps=-1e-3)}, "aux_eps=-0.001"),  # FOUND C15
        (dual_batch_norm, {"x": x[..., :1, :1], "num_main": 1}, "Expected more than 1 value"),
        (gather_perturb, {"index": torch.zeros(2).int()}, "index"),
        (gather_perturb, {"out": x[:2]}, "out"),  # FOUND W8: in the memory of x
        (perturb_, {"x_adv": x[:2]}, "x_adv"),  # likewise
        (loss_and_entropy, {"labels_b": labels[:3]}, "labels_b"),
        (loss_and_entropy, {"score": "surprise"}, "score='surprise'"),
        (select_topk, {"k": -1}, "k=-1"),
        (conv3x3, {"weight": torch.zeros(16, 8, 3, 3)}, "weight"),
    ]
    return fitting, refused


FITTING, REFUSED = tables()


@pytest.mark.parametrize("function", FITTING)
def test_what_fits_is_taken(function: Function, backend: str) -> None:
    """Without this the refusals below could have another reason."""
    function(**tables()[0][function])


NAMES = [f"{function.__name__} {named}" for function, _, named in REFUSED]


@pytest.mark.parametrize("case", range(len(REFUSED)), ids=NAMES)
def test_what_does_not_fit_is_refused(case: int, backend: str) -> None:
    fitting, refused = tables()  # on the backend's device
    function, change, named = refused[case]
    given = fitting[function] | change
    tensors = [value for value in given.values() if isinstance(value, Tensor)]
    before = [value.clone() for value in tensors]
    with pytest.raises(ValueError, match=rf"^{named}(?![a-z_])"):
        function(**given)
    assert all(map(torch.equal, tensors, before))


def test_one_set_of_statistics_serves_pure_passes(backend: str) -> None:
    """Only a batch of both groups would move it twice."""
    x, mean, var = torch.randn(4, 3, 2, 5), torch.zeros(3), torch.ones(3)
    half = Half(running_mean=mean, running_var=var)
    for num_main in (4, 0):
        dual_batch_norm(x, half, half, num_main)
    with pytest.raises(ValueError, match=r"^running_mean: "):
        dual_batch_norm(x, half, half, 2)
