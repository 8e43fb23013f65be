"""Settings that `create_method` refuses, with the option, its value and what is valid."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import create_method
from entprop_fast.methods import METHODS, method_options, needs_dual_norms
from tests.methods.support import ONE_NORM, dual_network, generator, make, plain_network, sgd

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
SHARED = {
    "input_range": (0.0, 1.0),
    "normalization": None,
    "amp": None,
    "generator": None,
    "capture": "auto",
    "check": None,
    "criterion": None,
    "label_smoothing": 0.0,
    "max_grad_norm": None,
}
OWN: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "mixup": {"mixup": 1.0},
    "cutmix": {"cutmix": 1.0},
    "mixprop": {"mixup": 1.0},
    "advprop": {
        "n": 5,
        "eps": 4 / 255,
        "alpha": 1 / 255,
        "random_start": True,
        "attack_mode": "train",
        "attack_loss": "ce",
        "k": None,
        "score": "entropy",
    },
    "fast_advprop": {
        "p_adv": 0.2,
        "eps": 1 / 255,
        "alpha": 1 / 255,
        "k": None,
        "score": "entropy",
    },
    "free_at": {"replays": 4, "eps": 4 / 255, "alpha": None},
    "entprop": {
        "k": 0.2,
        "n": 1,
        "eps": None,
        "alpha": 1 / 255,
        "mixup": 1.0,
        "cutmix": 0.0,
        "score": "entropy",
        "aux_labels": "original",
        "accumulate": "last",
        "aux_weight": 1.0,
        "aux_stats": "last",
        "selection": "rank",
        "equalize": False,
        "attack_loss": "ce",
        "norms": "dual",
    },
    "entprop_pipelined": {
        "k": 0.2,
        "eps": None,
        "alpha": 1 / 255,
        "mixup": 1.0,
        "cutmix": 0.0,
        "score": "entropy",
        "aux_labels": "original",
        "aux_weight": 1.0,
    },
}

# (option, value, error, words of the message beside the option's name)
NUMBERS: list[tuple[str, Any, type[Exception], list[str]]] = [
    ("k", 0.0, ValueError, ["0.0", "(0, 1]"]),
    ("k", -0.2, ValueError, ["-0.2", "(0, 1]"]),
    ("k", 1.1, ValueError, ["1.1", "(0, 1]"]),
    ("k", math.nan, ValueError, ["nan", "(0, 1]"]),
    ("k", "0.2", TypeError, ["'0.2'", "(0, 1]"]),
    ("k", None, TypeError, ["None"]),
    ("k", True, TypeError, ["True"]),
    ("n", 0, ValueError, ["0", "at least 1"]),
    ("n", -1, ValueError, ["-1", "at least 1"]),
    ("n", 1.0, TypeError, ["1.0", "int"]),
    ("n", True, TypeError, ["True", "int"]),
    ("eps", -1 / 255, ValueError, ["-0.0039", "[0, inf)"]),
    ("eps", math.inf, ValueError, ["inf"]),
    ("eps", 8, ValueError, ["8", "below 1", "0.00392"]),
    ("eps", "4/255", TypeError, ["'4/255'"]),
    ("alpha", -1e-9, ValueError, ["-1e-09", "[0, inf)"]),
    ("alpha", math.nan, ValueError, ["nan"]),
    ("alpha", None, TypeError, ["None"]),
    ("alpha", 1, ValueError, ["1", "below 1", "0.00392"]),
    ("mixup", -1.0, ValueError, ["-1.0", "[0, inf)"]),
    ("mixup", math.nan, ValueError, ["nan"]),
    ("mixup", True, TypeError, ["True"]),
    ("aux_weight", -1.0, ValueError, ["-1.0"]),
    ("aux_weight", math.inf, ValueError, ["inf"]),
    ("label_smoothing", -0.1, ValueError, ["-0.1", "[0, 1]"]),
    ("label_smoothing", 1.5, ValueError, ["1.5", "[0, 1]"]),
    ("max_grad_norm", 0.0, ValueError, ["0.0"]),
    ("max_grad_norm", -1.0, ValueError, ["-1.0"]),
    ("max_grad_norm", "1", TypeError, ["'1'"]),
]
CHOICES: list[tuple[str, Any, type[Exception], list[str]]] = [
    ("score", "entorpy", ValueError, ["'entorpy'", "'entropy'", "'margin'", "'random'"]),
    ("aux_labels", "hard", ValueError, ["'hard'", "'original'", "'mixed'"]),
    ("accumulate", "sum", ValueError, ["'sum'", "'last'", "'all'"]),
    ("aux_stats", "all", ValueError, ["'all'", "'last'", "'every'"]),
    ("selection", "local", ValueError, ["'local'", "'rank'", "'global'"]),
    ("equalize", "yes", TypeError, ["'yes'", "True or False"]),
    ("check", "never", ValueError, ["'never'", "None, True, False"]),
    ("capture", "maybe", ValueError, ["'maybe'", "'auto'", "'off'"]),
    ("amp", "fp16", ValueError, ["'fp16'", "'bf16'", "loss scaling", "sign 0"]),
    ("amp", torch.float16, ValueError, ["float16", "'bf16'", "loss scaling"]),
    ("amp", "fp8", ValueError, ["'fp8'", "'bf16'"]),
    ("amp", True, ValueError, ["True", "'bf16'"]),
    ("generator", 42, TypeError, ["int", "Generator"]),
    ("criterion", "ce", TypeError, ["str", "Module"]),
    ("criterion", len, TypeError, ["builtin_function", "Module"]),
]
UNITS: list[tuple[str, Any, type[Exception], list[str]]] = [
    ("input_range", (1.0, 0.0), ValueError, ["(1.0, 0.0)", "low < high"]),
    ("input_range", (0.5, 0.5), ValueError, ["(0.5, 0.5)", "low < high"]),
    ("input_range", (0.0, 0.5, 1.0), ValueError, ["(0.0, 0.5, 1.0)", "(low, high)"]),
    ("input_range", 1.0, ValueError, ["1.0", "(low, high)"]),
    ("input_range", (0.0, math.inf), ValueError, ["inf", "finite"]),
    ("input_range", ("low", "high"), ValueError, ["'low'", "numbers"]),
    ("normalization", 0.5, ValueError, ["0.5", "(mean, std)"]),
    ("normalization", (MEAN,), ValueError, ["(mean, std)"]),
    ("normalization", (MEAN, (0.2, 0.2)), ValueError, ["3 means", "2 stds"]),
    ("normalization", (MEAN, (0.2, 0.0, 0.2)), ValueError, ["std", "positive"]),
    ("normalization", (MEAN, (0.2, -0.1, 0.2)), ValueError, ["std", "positive"]),
    ("normalization", (MEAN, ()), ValueError, ["()"]),
    ("normalization", ((math.nan,), (1.0,)), ValueError, ["nan", "finite"]),
]


@pytest.mark.parametrize(("option", "value", "error", "words"), NUMBERS + CHOICES + UNITS, ids=str)
def test_setting(option: str, value: Any, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        make(**{option: value})
    for word in [option, *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", OWN)
def test_options_and_their_defaults(name: str) -> None:
    assert method_options(name) == SHARED | OWN[name]
    method = make(name)
    for option, default in (SHARED | OWN[name]).items():
        if default is not None or option == "k":  # None: from another option
            assert getattr(method, option) == default
    assert METHODS[name].name == name


def test_which_methods_need_dual_norms() -> None:
    assert {name for name, cls in METHODS.items() if not cls.needs_dual_norms} == set(ONE_NORM)
    assert {name for name in METHODS if not needs_dual_norms(name, {})} == set(ONE_NORM)
    assert not needs_dual_norms("entprop", {"norms": "shared"})
    with pytest.raises(ValueError, match="'entrop'; nearest: entprop"):
        needs_dual_norms("entrop", {})


@pytest.mark.parametrize(
    ("options", "eps"),
    [
        ({}, 1 / 255),
        ({"n": 5}, 6 / 255),
        ({"n": 2, "alpha": 0.01}, 3 * 0.01),
        ({"n": 5, "eps": 0.5}, 0.5),
        ({"eps": 0}, 0.0),
    ],
)
def test_radius(options: dict[str, Any], eps: float) -> None:
    assert vars(make(**options))["eps"] == eps


@pytest.mark.parametrize(
    ("name", "option"),
    [
        (name, option)
        for name, own in OWN.items()
        for option in sorted({"nonsense"}.union(*OWN.values()) - own.keys())
    ],
)
def test_an_option_that_the_method_does_not_have(name: str, option: str) -> None:
    unknown: dict[str, Any] = {option: 1.0}
    with pytest.raises(TypeError, match=f"'{name}'.*'{option}'"):
        make(name, **unknown)
    with pytest.raises(TypeError, match=option):
        METHODS[name](model := dual_network(), sgd(model), **unknown)


def test_a_misspelt_option_brings_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"nearest: .*aux_labels"):
        make(aux_label="mixed")


@pytest.mark.parametrize("call", [make, method_options])
def test_an_unknown_method_brings_the_nearest(call: Any) -> None:
    with pytest.raises(ValueError, match=r"'entrop'.*nearest: entprop"):
        call("entrop")


@pytest.mark.parametrize("name", [name for name in OWN if name not in ONE_NORM])
def test_a_plain_model_says_what_to_call(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}'.*convert_dual_norm"):
        make(name, model=plain_network())


@pytest.mark.parametrize("name", OWN)
def test_a_model_in_eval_mode_says_what_to_call(name: str) -> None:
    with pytest.raises(ValueError, match=r"model.*eval.*train\(\)"):
        make(name, model=dual_network().eval())


def test_an_optimizer_made_before_the_conversion_says_so() -> None:
    model = dual_network()
    early = torch.optim.SGD([p for n, p in model.named_parameters() if "aux" not in n], lr=0.1)
    with pytest.raises(ValueError, match=r"optimizer.* 4 .*bn1\.aux_bn\.weight.*convert_dual_norm"):
        create_method("entprop", model, early)


def test_an_optimizer_that_evaluates_the_loss_by_itself() -> None:
    model = dual_network()
    with pytest.raises(ValueError, match=r"optimizer is a LBFGS.*closure"):
        create_method("entprop", model, torch.optim.LBFGS(model.parameters()))


def test_grey_levels_are_image_units_where_images_are_bytes() -> None:
    method = make("entprop", alpha=1, eps=8, input_range=(0, 255))
    assert vars(method)["alpha"] == 1 and vars(method)["eps"] == 8


def test_frozen_parameters_need_no_optimizer() -> None:
    model = dual_network()
    model.get_parameter("conv1.weight").requires_grad_(False)
    rest = [p for p in model.parameters() if p.requires_grad]
    create_method("entprop", model, torch.optim.SGD(rest, lr=0.1))


class Learned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.ones(3))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError


def test_the_optimizer_holds_the_parameters_of_the_criterion() -> None:
    with pytest.raises(ValueError, match=r"optimizer.*criterion\.prototypes"):
        make(criterion=Learned())


def test_label_smoothing_is_no_option_of_a_criterion() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing=0\.1.*criterion"):
        make(criterion=nn.CrossEntropyLoss(reduction="none"), label_smoothing=0.1)


class OnGpu(torch.Generator):
    """A generator that says it belongs to another device."""

    device = torch.device("cuda")


def test_a_generator_of_another_device() -> None:
    with pytest.raises(ValueError, match=r"generator is on cuda.*cpu"):
        make(generator=OnGpu())


def test_model_and_optimizer_in_the_wrong_order() -> None:
    model = dual_network()
    optimizer: Any = sgd(model)
    with pytest.raises(TypeError, match=r"model is a SGD.*Module"):
        create_method("entprop", optimizer, optimizer)
    with pytest.raises(TypeError, match=r"optimizer is a Sequential.*Optimizer"):
        create_method("entprop", model, model)  # type: ignore[arg-type]


def test_a_refused_setting_draws_nothing() -> None:
    source = generator(3)
    with pytest.raises(ValueError):
        make(generator=source, k=2.0)
    assert torch.equal(source.get_state(), generator(3).get_state())
