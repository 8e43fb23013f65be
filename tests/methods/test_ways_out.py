"""FOUND C13: what people bring along works, or one line says the way out and nothing changes."""

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from entprop_fast import create_method
from entprop_fast.methods import METHODS
from tests.methods import support as s


class ModelOutput(OrderedDict[str, Any]):
    """As Hugging Face's: a mapping whose values are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


@dataclass
class Answer:
    logits: Tensor
    hidden: Tensor | None = None
    aux_loss: Tensor | None = None


Inception = namedtuple("Inception", ["logits", "aux_logits"])
OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "mapping with attributes": lambda z: ModelOutput(loss=None, logits=z, hidden_states=(z,)),
    "dict": lambda z: {"features": z, "logits": z},
    "dataclass": lambda z: Answer(z, hidden=z),
    "named tuple": lambda z: Inception(z, None),
}
WITHOUT: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "auxiliary logits": (lambda z: Inception(z, z), r"Inception with aux_logits"),
    "auxiliary loss": (lambda z: Answer(z, aux_loss=z.mean()), r"Answer with aux_loss"),
    "tuple": (lambda z: (z, z), r"returned a tuple: .*\.logits"),
    "dict": (lambda z: {"out": z}, r"returned a dict: .*\.logits"),
    "no tensor": (lambda z: {"logits": None}, r"returned a dict: .*\.logits"),
    "hidden states": (lambda z: Answer(z[:, None]), r"shape \(\d+, 1, 5\)"),
    "no classes": (lambda z: z[:, 0], r"shape \(\d+,\)"),
    "no rows": (lambda z: z[:0], r"shape \(0, 5\)"),
    "four dimensions": (lambda z: z[:, :, None, None], r"shape \(\d+, 5, 1, 1\)"),
    "detached": (lambda z: z.detach(), r"logits that no gradient leads to"),
    "classes": (lambda z: z.argmax(1, keepdim=True), r"returned torch.int64: expected floating"),
}


@pytest.mark.parametrize("what", OUTPUTS)
@pytest.mark.parametrize("name", METHODS)
def test_logits_inside_of_an_output(name: str, what: str) -> None:
    """FOUND C13: the step is that of the same network which returns the tensor."""
    s.assert_same_steps(*s.pair(name, s.ending_in(OUTPUTS[what]), s.ending_in(lambda z: z)))


@pytest.mark.parametrize("what", WITHOUT)
@pytest.mark.parametrize(("name", "rows"), [*((name, 12) for name in METHODS), ("vanilla", 1)])
def test_outputs_without_usable_logits(name: str, rows: int, what: str) -> None:
    """FOUND C13: auxiliary classifiers are not left out in silence."""
    answer, match = WITHOUT[what]
    s.refuse(
        s.make(name, model=s.ending_in(answer), generator=s.generator(5)),
        *s.batch(rows),
        match=match,
    )


class TwoSteps(Optimizer):
    """As SAM: two steps with a gradient each, or one with a closure."""

    def __init__(self, parameters: Any, base: type[Optimizer] = SGD, **options: Any) -> None:
        super().__init__(parameters, options)
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["old"] = p.clone()
                    p.add_(p.grad, alpha=0.05)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if "old" in self.state[p]:
                    p.copy_(self.state[p].pop("old"))
        self.base_optimizer.step()
        self.zero_grad()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is not None, "Sharpness Aware Minimization requires closure"


class Insists(SGD):
    def step(self, closure: Any = None) -> Any:
        assert closure is not None, "this optimizer requires a closure"


class Calls(SGD):
    def step(self, closure: Any = None) -> Any:
        return closure()


WAY_OUT = r"step needs a closure or is two steps.*base_optimizer.*method\.backward"


@pytest.mark.parametrize("made", [TwoSteps, torch.optim.LBFGS])
@pytest.mark.parametrize("name", METHODS)
def test_an_optimizer_of_two_steps(name: str, made: type[Optimizer]) -> None:
    """FOUND C13: refused where the method is made, with the way out."""
    model = s.dual_network()
    with pytest.raises(ValueError, match=WAY_OUT):
        create_method(name, model, made(model.parameters(), lr=0.1))  # type: ignore[call-arg]


@pytest.mark.parametrize("made", [Insists, Calls])
@pytest.mark.parametrize("name", METHODS)
def test_an_optimizer_that_turns_out_to_need_a_closure(name: str, made: type[SGD]) -> None:
    model = s.dual_network()
    optimizer, options = made(model.parameters(), lr=0.1), s.ONE_VIEW.get(name, {})
    method = create_method(name, model, optimizer, generator=s.generator(5), **options)
    before = s.everything(method)
    with pytest.raises(ValueError, match=WAY_OUT):
        method(*s.batch())
    s.assert_equal(s.everything(method), before)


@pytest.mark.parametrize("name", s.WITH_BACKWARD)
def test_the_way_out_of_two_steps(name: str) -> None:
    """As the message has it: the base optimizer for the method, two calls of backward."""
    model = s.dual_network()
    optimizer = TwoSteps(model.parameters(), lr=0.1)
    options = s.ONE_VIEW.get(name, {}) | {"generator": s.generator(5)}
    method = create_method(name, model, optimizer.base_optimizer, **options)
    before = s.parameters(model)
    for i in range(2):
        method.backward(*s.batch(seed=i))
        optimizer.first_step()
        assert method.backward(*s.batch(seed=i)).loss.isfinite()
        optimizer.second_step()
    moved = [n for n, p in s.parameters(model).items() if not torch.equal(p, before[n])]
    assert "conv1.weight" in moved


@pytest.mark.parametrize("name", METHODS)
def test_noise_that_is_erased_in_after_the_normalisation(name: str) -> None:
    """FOUND C13: as pixel RandomErasing does; without the check, or clamped, it trains."""
    images, labels = s.batch()
    images = s.normalised(images)
    images[:, :, 2:5, 2:5] = torch.randn(12, 3, 3, 3, dtype=torch.float64) * 3
    method = s.make(name, normalization=(s.MEAN, s.STD), generator=s.generator(5))
    match = r"input_range=\(0, 1\); normalization is given.*RandomErasing.*clamp.*check=False"
    s.refuse(method, images, labels, match=match)
    unchecked = s.make(name, normalization=(s.MEAN, s.STD), check=False)
    assert unchecked(images, labels).loss.isfinite()
    low, high = (s.normalised(torch.full((1, 3, 1, 1), v, dtype=torch.float64)) for v in (0, 1))
    assert method(images.clamp(low, high), labels).loss.isfinite()


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", METHODS)
def test_a_call_where_no_gradients_are_recorded(name: str, off: Any) -> None:
    """FOUND C13, a neighbour: said before the first pass."""
    method = s.make(name, generator=s.generator(5))
    with off():
        s.refuse(method, *s.batch(), match=r"under torch\.no_grad\(\).*outside")
    assert method(*s.batch()).loss.isfinite()


@pytest.mark.parametrize("name", ["vanilla", "mixup", "cutmix"])
def test_a_network_that_is_frozen_as_a_whole(name: str) -> None:
    method = s.make(name, model=s.dual_network().requires_grad_(False))
    s.refuse(method, *s.batch(), match=r"no gradient leads to.*trainable parameter")


Layout = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def of_inference(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        return images.clone(), labels.clone()


LAYOUTS: dict[str, Layout] = {
    "inference tensors": of_inference,
    "expanded": lambda x, y: (x[:, :1, :, :1].expand(x.shape), y),
    "every other": lambda x, y: (x.repeat_interleave(2, 0)[::2], y.repeat_interleave(2)[::2]),
    "transposed": lambda x, y: (x.transpose(2, 3).contiguous().transpose(2, 3), y),
    "asks for a gradient": lambda x, y: (x.requires_grad_(), y),
    "of a graph": lambda x, y: (x.requires_grad_() * 1, y),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("mixed", [True, False])
def test_any_layout_of_the_same_values(name: str, layout: str, mixed: bool) -> None:
    """FOUND C13, a neighbour: every tensor that holds a batch is one."""
    options: dict[str, Any] = {} if mixed or name not in s.UNMIXED else s.UNMIXED[name]
    one, other = s.pair(name, **options)
    for i in range(2):
        given = LAYOUTS[layout](*s.batch(seed=i))
        plain = tuple(t.detach().clone(memory_format=torch.contiguous_format) for t in given)
        s.close(list(one(*given)), list(other(*plain)))
        assert given[0].grad is None if given[0].is_leaf else True
    s.close(s.left(one), s.left(other))


@pytest.mark.parametrize(
    "name", ["entprop", "entprop_pipelined", "advprop", "fast_advprop", "free_at"]
)
def test_a_network_that_gives_images_no_gradient_cannot_be_attacked(name: str) -> None:
    """FOUND C13, a neighbour: a frozen backbone under `no_grad` was an assertion without words."""

    head = nn.Linear(s.CLASSES, s.CLASSES, dtype=torch.float64)
    model = s.dual_network()
    model.forward = torch.no_grad()(model.forward)  # type: ignore[method-assign]
    model = nn.Sequential(model, head)
    method = s.make(name, model=model)
    before = s.everything(method)
    with pytest.raises(ValueError, match="gives the images no gradient"):
        method(*s.batch())
    s.assert_equal(s.everything(method), before)
