"""What a step does to the model beside its gradients: forwards, statistics, flags, routing."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from entprop_fast import Method, convert_dual_norm, route
from entprop_fast.methods import METHODS
from tests.layers.oracle import OwnBatchNorm1d
from tests.methods import support as s


def flags(model: nn.Module) -> list[Any]:
    """Everything about the modules and parameters that a step may change only in passing."""
    return [
        [p.requires_grad for p in model.parameters()],
        [
            (m.training, m.__dict__.get("num_main"), getattr(m, "track_running_stats", None))
            for m in model.modules()
        ],
        [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        [len(p._backward_hooks or ()) for p in model.parameters()],
    ]


@pytest.mark.parametrize("name", METHODS)
def test_flags_hooks_and_routing_are_as_before(name: str) -> None:
    model = s.dual_network()
    model.get_parameter("conv1.weight").requires_grad_(False)
    model.get_submodule("bn2").eval()
    before = flags(model)
    s.make(name, model=model)(*s.batch())
    s.assert_equal(flags(model), before)


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])  # main, auxiliary 1 and 2; then of a second step
def test_flags_hooks_and_routing_survive_an_exception(call: int) -> None:
    calls = iter(range(1, 7))

    def fail(logits: Tensor) -> Tensor:
        if next(calls) == call:
            raise KeyError("out of order")
        return logits

    model = s.ending_in(fail)
    method = s.make(model=model, k=0.6, n=2)
    before = flags(model)
    with pytest.raises(KeyError):
        for i in range(2):
            method(*s.batch(seed=i))
    s.assert_equal(flags(model), before)
    counter = "0.bn1.aux_bn.num_batches_tracked"
    unrouted = model.state_dict()[counter].clone()
    model[0](s.batch()[0])
    s.assert_equal(model.state_dict()[counter], unrouted)


@pytest.mark.parametrize(
    ("name", "options", "forwards"),
    [
        *((name, {}, rows) for name, rows in s.ROWS.items()),
        ("entprop", {"k": 0.6, "n": 5}, [12] + [7] * 5),
        ("entprop", {"k": 1.0, "n": 2, "accumulate": "all"}, [12] * 3),
        ("advprop", {"n": 2, "k": 0.6}, [12] + [7] * 3),
        ("fast_advprop", {"p_adv": 0.5}, [6] * 3),
        ("fast_advprop", {"k": 0.6}, [12, 7, 7]),
        ("free_at", {"replays": 3}, [12] * 3),
    ],
)
def test_forwards_and_rows_of_a_step(
    name: str, options: dict[str, Any], forwards: list[int]
) -> None:
    model = s.dual_network()
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method = s.make(name, model=model, **options)
    for step in range(2):
        seen.clear()
        images, labels = s.batch(seed=step)
        run = method.backward if step and name != "free_at" else method
        run(images.to(memory_format=torch.channels_last), labels)
        waiting = 2 * step if name == "entprop_pipelined" else 0
        assert [len(x) for x in seen] == [forwards[0] + waiting, *forwards[1:]]
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
        assert method.rows == (1 + step) * sum(forwards) + waiting
    if not waiting:
        assert method.cost(12) == sum(forwards) / 12


def test_a_single_selected_row_is_tried_once_for_each_image_shape() -> None:
    model = s.dual_network()
    rows: list[int] = []
    model.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    method = s.make(model=model, k=0.1)  # m = 1 of 12; 6x6 images leave the norms enough values
    for shape_is_new, size in ((True, 6), (False, 6), (True, 8)):
        rows.clear()
        method(*s.batch(size=size))
        assert rows == [1] * shape_is_new + [12, 1]
    assert method.rows == 3 * 13  # the trial does not count


class ConvolutionGradients(TorchDispatchMode):
    """Counts the weight gradients of convolutions that are computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.weights += args[10][1]
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(("accumulate", "passes"), [("last", 2), ("all", 5)])
def test_weight_gradients_are_computed_in_kept_passes_only(accumulate: str, passes: int) -> None:
    method = s.make(k=0.6, n=4, accumulate=accumulate)
    with ConvolutionGradients() as seen:
        method(*s.batch())
    assert seen.weights == passes * 2  # two convolutions


def test_norms_in_eval_mode_stay_frozen() -> None:
    model = s.dual_network()
    model.get_submodule("bn1").eval()
    model.get_submodule("bn2.aux_bn").eval()
    before, weights = s.statistics(model), s.parameters(model)
    s.make(model=model, k=0.6, n=2, aux_stats="every")(*s.batch())
    moved = {n for n, b in model.named_buffers() if not torch.equal(b, before[n])}
    assert moved == {f"bn2.{b}" for b in ("running_mean", "running_var", "num_batches_tracked")}
    assert all(not torch.equal(p, weights[n]) for n, p in model.named_parameters())


def test_a_frozen_norm_uses_its_running_statistics() -> None:
    model = s.frozen_network()
    images, labels = s.batch()
    expected = nn.functional.cross_entropy(model(images), labels)
    s.close(s.make(model=model, mixup=0.0)(images, labels).loss, expected.detach())


def head_with_batch_norm() -> nn.Module:
    body = s.dual_network()[:-1]
    head = nn.Sequential(OwnBatchNorm1d(6), nn.Linear(6, s.CLASSES)).double()
    with pytest.warns(UserWarning, match="OwnBatchNorm1d"):
        return convert_dual_norm(nn.Sequential(body, head))


@pytest.mark.parametrize("aux_stats", ["last", "every"])
def test_a_norm_without_auxiliary_half_moves_in_the_main_pass_alone(aux_stats: str) -> None:
    torch.manual_seed(0)
    model, alone = head_with_batch_norm(), head_with_batch_norm()
    alone.load_state_dict(model.state_dict())
    s.make(model=model, k=0.6, n=3, mixup=0.0, aux_stats=aux_stats)(*s.batch())
    alone(s.batch()[0])  # what the main pass alone does to the statistics
    for name, buffer in alone.named_buffers():
        if "aux_bn" not in name:
            s.assert_equal(model.get_buffer(name), buffer)


def test_step_results_are_of_the_current_weights() -> None:
    """Two methods on one model share nothing but the model."""
    model = s.dual_network()
    methods: list[Method] = [s.make(name, model=model) for name in METHODS]
    for i, method in enumerate(methods):
        method(*s.batch(seed=i))
    replays = len(s.ROWS["free_at"])  # each a step, whose main pass moves them
    assert model.get_buffer("bn1.num_batches_tracked") == len(METHODS) - 1 + replays
    dual = [name for name, cls in METHODS.items() if cls.needs_dual_norms]
    # entprop_pipelined's rows wait for its next step.
    assert model.get_buffer("bn1.aux_bn.num_batches_tracked") == len(dual) - 1
    assert methods[1].selected_index is None and methods[0].selected_index is not None


def watch(model: nn.Module) -> list[dict[str, Any]]:
    """A list that grows by what stands before each forward of `model`."""
    seen: list[dict[str, Any]] = []

    def before(module: nn.Module, _: object) -> None:
        training = [m.training for m in module.modules()]
        left = {"gradients": s.gradients(module), "statistics": s.statistics(module)}
        seen.append(left | {"training": training})

    model.register_forward_pre_hook(before)
    return seen


def gradients_of(model: nn.Module, *losses: tuple[str, Tensor, Tensor, float]) -> dict[str, Tensor]:
    """Of the sum of weighted cross-entropy sums, each of (route, images, labels, weight)."""
    model = copy.deepcopy(model)
    for half, images, labels, weight in losses:
        with route(model, "main" if half == "main" else "aux"):
            (weight * F.cross_entropy(model(images), labels, reduction="sum")).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attack_mode", ["train", "eval"])
@pytest.mark.parametrize("k", [None, 0.5])
def test_advprops_attack_leaves_nothing_behind(attack_mode: str, k: float | None) -> None:
    model = s.dual_network()
    model.get_submodule("bn1").eval()  # stays so, attacked in eval mode or not
    flags = [m.training for m in model.modules()]
    original, seen = copy.deepcopy(model), watch(model)
    method = s.make("advprop", model=model, n=3, k=k, attack_mode=attack_mode)
    images, labels = s.batch()
    method(images, labels)
    assert len(seen) == 1 + 3 + 1
    after_main = seen[1]
    for attack in seen[2:]:  # before a later pass: what an attack pass has left
        s.assert_equal(attack["gradients"], after_main["gradients"])
        s.assert_equal(attack["statistics"], after_main["statistics"])
    assert all(g is None for n, g in after_main["gradients"].items() if "aux_bn" in n)
    assert [any(one["training"]) for one in seen] == [True, *[attack_mode == "train"] * 3, True]
    assert seen[-1]["training"] == flags == [m.training for m in model.modules()]

    assert method.perturbed is not None
    rows = range(12) if k is None else method.selected_index
    expected = gradients_of(
        original,
        ("main", images, labels, 0.5 / 12),
        ("aux", method.perturbed, labels[rows], 0.5 / len(method.perturbed)),
    )
    for name, gradient in expected.items():
        found = model.get_parameter(name).grad
        torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12)
