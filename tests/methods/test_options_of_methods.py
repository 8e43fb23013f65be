"""Options of the methods: defaults, what is refused, and that one field says everything."""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from entprop_fast import create_method, reference
from entprop_fast.methods import (
    METHODS,
    GPaCo,
    Method,
    method_options,
    needs_dual_norms,
)
from entprop_fast.methods.mixup import MixUp, MixUpOptions
from entprop_fast.options import option
from tests.methods import support as s

PER_SAMPLE = nn.CrossEntropyLoss(reduction="none")
SHARED: dict[str, Any] = dict(
    input_range=(0.0, 1.0), normalization=None, amp=None, generator=None, capture="auto",
    cudnn_benchmark=True, check=None, criterion=None, label_smoothing=0.0, max_grad_norm=None,
    ranks="independent",
)  # fmt: skip
SELECTING: dict[str, Any] = dict(
    k=0.2, eps=None, alpha=1 / 255, mixup=1.0, cutmix=0.0, score="entropy", aux_labels="original",
    aux_weight=1.0,
)  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "vanilla": {"jsd": 0.0},
    "mixup": {"mixup": 1.0},
    "cutmix": {"cutmix": 1.0},
    "mixprop": {"mixup": 1.0},
    "advprop": dict(
        n=5, eps=4 / 255, alpha=1 / 255, random_start=True, attack_mode="train", attack_loss="ce",
        k=None, score="entropy",
    ),
    "fast_advprop": dict(p_adv=0.2, eps=1 / 255, alpha=1 / 255, k=None, score="entropy"),
    "free_at": dict(replays=4, eps=4 / 255, alpha=None),
    "entprop": SELECTING | dict(
        mixup=None, jsd=0.0, n=1, accumulate="last", aux_stats="last", selection="rank",
        equalize=False, attack_loss="ce", norms="dual",
    ),
    "entprop_pipelined": SELECTING,
    "noisymix": dict(
        jsd=12.0, mixup=1.0, add_noise=0.5, mult_noise=0.5, sparsity=0.65, layers=None,
    ),
}  # fmt: skip

V, T = ValueError, TypeError
# (methods, option, error, values)
REFUSED: list[tuple[str, str, type[Exception], list[Any]]] = [
    ("entprop entprop_pipelined", "k", V, [0.0, -0.2, 1.1, math.nan]),
    ("entprop entprop_pipelined", "k", T, ["0.2", None, True]),
    ("advprop fast_advprop", "k", V, [0, 1.5]),
    ("entprop advprop", "n", V, [0, -1]),
    ("entprop advprop", "n", T, [1.0, True]),
    ("free_at", "replays", V, [0]),
    ("free_at", "replays", T, [4.0]),
    # 1 is the whole range: the paper's "alpha = 1" is 1/255.
    ("entprop entprop_pipelined advprop fast_advprop free_at", "eps", V, [-1 / 255, math.inf, 1]),
    ("entprop entprop_pipelined advprop fast_advprop free_at", "eps", T, ["4/255"]),
    ("advprop fast_advprop free_at", "eps", T, [None]),
    ("entprop entprop_pipelined advprop fast_advprop free_at", "alpha", V, [-1e-9, math.nan, 1]),
    ("entprop entprop_pipelined advprop fast_advprop", "alpha", T, [None]),
    ("free_at", "alpha", T, ["1"]),
    ("entprop entprop_pipelined mixup mixprop", "mixup", V, [-1.0, math.nan]),
    ("entprop entprop_pipelined mixup mixprop", "mixup", T, [True]),
    ("entprop entprop_pipelined cutmix", "cutmix", V, [-1.0, math.nan]),
    ("fast_advprop", "p_adv", V, [0.0, 1.0]),
    ("fast_advprop", "p_adv", T, [None]),
    ("entprop entprop_pipelined", "aux_weight", V, [0.0, -1.0, math.inf]),
    ("entprop entprop_pipelined advprop fast_advprop", "score", V, ["entorpy", None]),
    ("entprop entprop_pipelined", "aux_labels", V, ["hard"]),
    ("entprop", "accumulate", V, ["sum"]),
    ("entprop", "aux_stats", V, ["all"]),
    ("entprop", "selection", V, ["local"]),
    ("entprop", "equalize", T, ["yes", 1]),
    ("entprop", "norms", V, ["both", "shared"]),  # the model has dual ones
    ("entprop advprop", "attack_loss", V, ["kl", "pgd"]),
    ("advprop", "attack_mode", V, ["test"]),
    ("advprop", "random_start", T, [1]),
    ("vanilla entprop noisymix", "jsd", V, [-1.0, math.inf]),
    ("vanilla entprop noisymix", "jsd", T, [None, "12"]),
    ("noisymix", "mixup", V, [-1.0]),
    ("noisymix", "add_noise", V, [-0.1]),
    ("noisymix", "mult_noise", V, [-0.1]),
    ("noisymix", "sparsity", V, [-0.1, 1.0]),
    ("noisymix", "layers", V, ["", "input,conv9", "conv1;conv2"]),
    ("noisymix", "layers", T, [1]),
    ("vanilla", "label_smoothing", V, [-0.1, 1.5]),
    ("vanilla", "max_grad_norm", V, [0.0, -1.0]),
    ("vanilla", "max_grad_norm", T, ["1"]),
    ("vanilla", "ranks", V, ["all", ""]),
    ("vanilla", "check", V, ["never"]),
    ("vanilla", "capture", V, ["maybe"]),
    ("vanilla", "amp", V, ["fp16", torch.float16, "fp8", True]),
    ("vanilla", "generator", T, [42]),
    ("vanilla", "criterion", T, ["ce", len]),
    ("vanilla", "input_range", V, [(1.0, 0.0), (0.5, 0.5), (0.0, 0.5, 1.0), 1.0]),
    ("vanilla", "input_range", V, [(0.0, math.inf), ("low", "high")]),
    ("vanilla", "normalization", V, [0.5, (s.MEAN,), (s.MEAN, (0.2, 0.2)), (s.MEAN, ())]),
    ("vanilla", "normalization", V, [(s.MEAN, (0.2, 0.0, 0.2)), ((math.nan,), (1.0,))]),
]
ONE_BY_ONE = [
    (name, option, error, value)
    for names, option, error, values in REFUSED
    for name in names.split()
    for value in values
]
# (methods, options that do not go together)
TOGETHER: list[tuple[str, dict[str, Any]]] = [
    ("entprop entprop_pipelined", {"cutmix": 0.5, "mixup": 1.0}),
    ("entprop", {"mixup": 0.2, "jsd": 12.0}),
    ("entprop", {"cutmix": 1.0, "jsd": 12.0}),
    ("entprop", {"attack_loss": "cw", "n": 1}),
    ("entprop", {"attack_loss": "trades", "n": 1}),
    ("entprop", {"attack_loss": "trades", "accumulate": "all", "n": 2}),
    ("entprop", {"attack_loss": "cw", "aux_labels": "mixed", "n": 2}),
    ("entprop", {"attack_loss": "trades", "criterion": PER_SAMPLE, "n": 2}),
    ("advprop", {"attack_loss": "cw", "criterion": PER_SAMPLE}),
    ("advprop", {"attack_loss": "trades", "random_start": False}),
    ("advprop", {"score": "margin", "k": None}),
    ("fast_advprop", {"score": "random", "k": None}),
    ("fast_advprop", {"p_adv": 0.3, "k": 0.2}),
    ("vanilla", {"label_smoothing": 0.1, "criterion": PER_SAMPLE}),
]


@pytest.mark.parametrize(("name", "option", "error", "value"), ONE_BY_ONE, ids=str)
def test_refused(name: str, option: str, error: type[Exception], value: Any) -> None:
    with pytest.raises(error, match=rf"\b{option}\b"):
        s.make(name, **{option: value})


def test_an_option_that_is_set_later_is_checked_too() -> None:
    method: Any = s.make()
    with pytest.raises(ValueError, match=r"\bn\b"):
        method.n = 0
    method.n = 2
    assert method.n == 2 and method.eps == 3 * method.alpha


@pytest.mark.parametrize(("names", "options"), TOGETHER, ids=str)
def test_refused_together(names: str, options: dict[str, Any]) -> None:
    first, second, *_ = options
    for name in names.split():
        with pytest.raises(ValueError, match=rf"(?=.*\b{first}\b).*\b{second}\b"):
            s.make(name, **options)


@pytest.mark.parametrize("name", OWN)
def test_options_and_their_defaults(name: str) -> None:
    expected = SHARED | OWN[name]
    assert method_options(name) == expected
    method = create_method(name, model := s.dual_network(), s.sgd(model))
    for key, default in expected.items():
        if default is not None or key == "k":  # None: from another option
            assert getattr(method, key) == default
    cls = METHODS[name]
    assert cls.name == name
    signature = inspect.signature(cls)
    assert list(signature.parameters)[:2] == ["model", "optimizer"]
    assert {n: p.default for n, p in list(signature.parameters.items())[2:]} == expected
    for key in expected:
        assert f"\n    {key}: " in (cls.__doc__ or "")


def test_an_option_is_one_field() -> None:
    """Of it come the check, the signature, the documentation and the attribute."""

    @dataclass(frozen=True, kw_only=True)
    class WarmOptions(MixUpOptions):
        warmth: float = option(1.0, "Temperature of the logits.", low=0, open_low=True)

    class Warm(MixUp):
        """MixUp training."""

        name = "warm"
        Options = WarmOptions
        options: WarmOptions

    model = s.dual_network()
    warm: Any = Warm(model, s.sgd(model), warmth=2)
    assert warm.warmth == 2.0 and inspect.signature(Warm).parameters["warmth"].default == 1.0
    assert "warmth: Temperature of the logits." in (Warm.__doc__ or "")
    with pytest.raises(ValueError, match=r"\bwarmth\b"):
        Warm(model, s.sgd(model), warmth=0)


def test_a_score_is_one_entry() -> None:
    """Where a method selects, what selects is any of the table's."""
    for name, cls in METHODS.items():
        parameter = inspect.signature(cls).parameters.get("score")
        if parameter is not None:
            for score in reference.SCORES:
                assert vars(s.make(name, score=score, k=0.5).options)["score"] == score


def test_which_methods_need_dual_norms() -> None:
    assert {name for name, cls in METHODS.items() if not cls.needs_dual_norms} == set(s.ONE_NORM)
    assert {name for name in METHODS if not needs_dual_norms(name, {})} == set(s.ONE_NORM)
    assert not needs_dual_norms("entprop", {"norms": "shared"})


@pytest.mark.parametrize(
    ("options", "eps"),
    [
        ({}, 1 / 255),
        ({"n": 5}, 6 / 255),
        ({"n": 2, "alpha": 0.01}, 3 * 0.01),
        ({"n": 5, "eps": 0.5}, 0.5),
        ({"eps": 0}, 0.0),
        ({"alpha": 1, "eps": 8, "input_range": (0, 255)}, 8.0),
    ],
)
def test_radius(options: dict[str, Any], eps: float) -> None:
    method: Any = s.make(**options)
    assert method.eps == eps


@pytest.mark.parametrize("name", OWN)
def test_options_of_other_methods(name: str) -> None:
    model = s.dual_network()
    for unknown in sorted({"nonsense"}.union(*OWN.values()) - OWN[name].keys()):
        given: dict[str, Any] = {unknown: 1.0}
        for call in (create_method, lambda _, *a, **k: METHODS[name](*a, **k)):
            with pytest.raises(TypeError, match=rf"'{name}'.*'{unknown}'"):
                call(name, model, s.sgd(model), **given)


def test_what_is_misspelt_brings_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"nearest: .*aux_labels"):
        s.make(aux_label="mixed")
    for call in (s.make, method_options, lambda name: needs_dual_norms(name, {})):
        with pytest.raises(ValueError, match=r"'entrop'.*nearest: entprop"):
            call("entrop")


class OnGpu(torch.Generator):
    """A generator that says it belongs to another device."""

    device = torch.device("cuda")


@pytest.mark.parametrize("name", OWN)
def test_models_that_cannot_be_trained(name: str) -> None:
    with pytest.raises(ValueError, match=r"model.*train\(\)"):
        s.make(name, model=s.dual_network().eval())
    if name not in s.ONE_NORM:
        with pytest.raises(ValueError, match=rf"'{name}'.*convert_dual_norm"):
            s.make(name, model=s.plain_network())
    with pytest.raises(ValueError, match=r"optimizer.*criterion\.centres"):
        s.make(name, criterion=GPaCo(s.CLASSES))
    with pytest.raises(ValueError, match=r"generator.*cuda.*cpu"):
        s.make(name, generator=OnGpu())


def test_an_optimizer_made_before_the_conversion_says_so() -> None:
    model = s.dual_network()
    early = torch.optim.SGD([p for n, p in model.named_parameters() if "aux" not in n], lr=0.1)
    with pytest.raises(ValueError, match=r"optimizer.* 4 .*bn1\.aux_bn\.weight.*convert_dual_norm"):
        create_method("entprop", model, early)
    model.get_parameter("conv1.weight").requires_grad_(False)  # which needs no optimizer
    rest = [p for p in model.parameters() if p.requires_grad]
    create_method("entprop", model, torch.optim.SGD(rest, lr=0.1))


def test_model_and_optimizer_in_the_wrong_order() -> None:
    model = s.dual_network()
    optimizer: Any = s.sgd(model)
    with pytest.raises(TypeError, match=r"\bmodel\b.*SGD"):
        create_method("entprop", optimizer, optimizer)
    with pytest.raises(TypeError, match=r"\boptimizer\b.*Sequential"):
        create_method("entprop", model, model)  # type: ignore[arg-type]


def test_a_refused_setting_draws_nothing() -> None:
    source = s.generator(3)
    with pytest.raises(ValueError):
        s.make(generator=source, k=2.0)
    assert torch.equal(source.get_state(), s.generator(3).get_state())


def test_free_training_has_no_backward() -> None:
    method: Method = s.make("free_at")
    with pytest.raises(RuntimeError, match=r"free_at.*backward"):
        method.backward(torch.zeros(2, 3, 6, 6), torch.zeros(2).long())
