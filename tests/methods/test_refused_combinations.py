"""Options that do not go together, and those of the other methods, refused with what to change."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.methods.support import make

# (method, options, words of the message)
COMBINATIONS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("entprop", {"cutmix": 0.5}, ["cutmix=0.5", "mixup=1", "mixup=0"]),
    ("entprop_pipelined", {"cutmix": 0.5}, ["cutmix=0.5", "mixup=1", "mixup=0"]),
    ("entprop", {"attack_loss": "cw"}, ["'cw'", "n=1", "n=2"]),
    ("entprop", {"attack_loss": "trades"}, ["'trades'", "n=1", "n=2"]),
    (
        "entprop",
        {"attack_loss": "trades", "n": 2, "accumulate": "all"},
        ["'trades'", "accumulate='all'", "accumulate='last'"],
    ),
    (
        "entprop",
        {"attack_loss": "cw", "n": 2, "aux_labels": "mixed"},
        ["'cw'", "aux_labels='mixed'", "aux_labels='original'"],
    ),
    (
        "entprop",
        {"attack_loss": "trades", "n": 2, "criterion": nn.CrossEntropyLoss(reduction="none")},
        ["'trades'", "criterion", "'ce'"],
    ),
    (
        "advprop",
        {"attack_loss": "cw", "criterion": nn.CrossEntropyLoss(reduction="none")},
        ["'cw'", "criterion", "'ce'"],
    ),
    ("entprop", {"norms": "shared"}, ["norms='shared'", "strip_auxiliary", "norms='dual'"]),
    ("advprop", {"attack_loss": "trades", "random_start": False}, ["'trades'", "random_start"]),
    ("advprop", {"score": "margin"}, ["score='margin'", "k=None", "set k"]),
    ("fast_advprop", {"score": "random"}, ["score='random'", "k=None", "set k"]),
    ("fast_advprop", {"k": 0.2, "p_adv": 0.3}, ["p_adv=0.3", "k=0.2", "leave"]),
]


@pytest.mark.parametrize(("name", "options", "words"), COMBINATIONS, ids=str)
def test_a_combination(name: str, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        make(name, **options)
    for word in words:
        assert word in str(caught.value)


# (method, option, value, error, words of the message beside the option's name)
OF_OTHERS: list[tuple[str, str, Any, type[Exception], list[str]]] = [
    ("cutmix", "cutmix", -1.0, ValueError, ["-1.0", "[0, inf)"]),
    ("entprop", "cutmix", math.nan, ValueError, ["nan", "[0, inf)"]),
    ("entprop", "norms", "both", ValueError, ["'both'", "'dual'", "'shared'"]),
    ("entprop", "attack_loss", "kl", ValueError, ["'kl'", "'ce'", "'cw'", "'trades'"]),
    ("mixprop", "mixup", -1.0, ValueError, ["-1.0", "[0, inf)"]),
    ("advprop", "n", 0, ValueError, ["0", "at least 1"]),
    ("advprop", "eps", None, TypeError, ["None", "[0, inf)"]),
    ("advprop", "alpha", -1, ValueError, ["-1", "[0, inf)"]),
    ("advprop", "random_start", 1, TypeError, ["1", "True or False"]),
    ("advprop", "attack_mode", "test", ValueError, ["'test'", "'train'", "'eval'"]),
    ("advprop", "attack_loss", "pgd", ValueError, ["'pgd'", "'trades'"]),
    ("advprop", "k", 0, ValueError, ["0", "(0, 1]"]),
    ("advprop", "score", "entorpy", ValueError, ["'entorpy'", "'gini'"]),
    ("fast_advprop", "p_adv", 0.0, ValueError, ["0.0", "(0, 1)"]),
    ("fast_advprop", "p_adv", 1.0, ValueError, ["1.0", "(0, 1)"]),
    ("fast_advprop", "p_adv", None, TypeError, ["None", "(0, 1)"]),
    ("fast_advprop", "eps", "4/255", TypeError, ["'4/255'"]),
    ("fast_advprop", "alpha", math.inf, ValueError, ["inf"]),
    ("fast_advprop", "k", 1.5, ValueError, ["1.5", "(0, 1]"]),
    ("free_at", "replays", 0, ValueError, ["0", "at least 1"]),
    ("free_at", "replays", 4.0, TypeError, ["4.0", "int"]),
    ("free_at", "eps", -1.0, ValueError, ["-1.0"]),
    ("free_at", "alpha", "1", TypeError, ["'1'"]),
    ("entprop_pipelined", "k", 1.1, ValueError, ["1.1", "(0, 1]"]),
    ("entprop_pipelined", "eps", -1.0, ValueError, ["-1.0", "[0, inf)"]),
    ("entprop_pipelined", "alpha", None, TypeError, ["None"]),
    ("entprop_pipelined", "aux_weight", 0.0, ValueError, ["0.0", "(0, inf)"]),
    ("entprop_pipelined", "aux_labels", "hard", ValueError, ["'hard'", "'mixed'"]),
    ("entprop_pipelined", "score", "entorpy", ValueError, ["'entorpy'", "'gini'"]),
]


@pytest.mark.parametrize(("name", "option", "value", "error", "words"), OF_OTHERS, ids=str)
def test_setting_of_other_methods(
    name: str, option: str, value: Any, error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        make(name, **{option: value})
    for word in [option, *words]:
        assert word in str(caught.value)


def test_free_training_has_no_backward() -> None:
    method = make("free_at")
    with pytest.raises(RuntimeError, match=r"free_at.*backward.*replays.*call the method"):
        method.backward(torch.zeros(2, 3, 6, 6), torch.zeros(2).long())
