"""FOUND W10: what is put into a model after `create_method` counts at the next call."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from entprop_fast import Method, create_method
from entprop_fast.methods import METHODS, GPaCo
from entprop_fast.methods.model_checks import AcceptedModules
from tests.methods import support as s


def put_head(method: Method, classes: int) -> None:
    """A new classifier, which the optimizer holds, too."""
    head = nn.Linear(6, classes).double()
    method.model.head = head
    method.optimizer.add_param_group({"params": head.parameters()})


def batch_of_three() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = s.batch(seed=3)
    return images, labels % 3


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", METHODS)
def test_labels_beyond_a_smaller_head(name: str, steps: int) -> None:
    """FOUND W10: refused, and nothing has changed; what the head has goes on."""
    method = s.make(name, generator=s.generator(5))
    for i in range(steps):
        method(*s.batch(seed=i))
    put_head(method, 3)
    s.refuse(method, *s.batch(seed=3), match=r"labels hold 4: .*\[0, 3\)")
    if getattr(method, "waiting", 0):  # they have labels of the old head
        with pytest.raises(ValueError, match=r"labels hold \d.*2 rows that wait.*waiting = 0"):
            method(*batch_of_three())
        vars(method)["waiting"] = 0
    assert method(*batch_of_three()).loss.isfinite()
    assert all(p.isfinite().all() for p in method.model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_labels_of_a_larger_head(name: str) -> None:
    """FOUND W10, the other way: classes that are new are no longer refused."""
    method = s.make(name)
    method(*s.batch())
    put_head(method, s.CLASSES + 3)
    images, labels = s.batch(seed=1)
    assert method(images, labels + 3).loss.isfinite()
    with pytest.raises(ValueError, match=r"\[0, 8\)"):
        method(images, labels + 4)


@pytest.mark.parametrize("name", METHODS)
def test_fewer_logits_of_the_same_modules(name: str) -> None:
    """FOUND W10, a neighbour: seen only after a forward, and still no NaN."""
    classes = [s.CLASSES]
    model = s.ending_in(lambda logits: logits[:, : classes[-1]])
    method = s.make(name, model=model)
    method(*s.batch())
    classes.append(3)
    with pytest.raises(ValueError, match=r"\[0, 3\)"):
        method(*s.batch(seed=1))
    if name == "entprop_pipelined":
        vars(method)["waiting"] = 0
    assert method(*batch_of_three()).loss.isfinite()
    assert all(p.isfinite().all() for p in model.parameters())


def new_weight(model: nn.Module) -> None:
    weight = nn.Parameter(torch.zeros(s.CLASSES, 6, dtype=torch.float64))
    model.get_submodule("head").weight = weight


CHANGES: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "a module": (
        lambda model: model.register_module("head", nn.Linear(6, s.CLASSES).double()),
        r"2 trainable parameters \(model\.head\.weight, model\.head\.bias\)",
    ),
    "a parameter": (new_weight, r"1 trainable parameters \(model\.head\.weight\)"),
    "a child more": (
        lambda model: model.add_module("more", nn.Linear(s.CLASSES, s.CLASSES).double()),
        r"\(model\.more\.weight, model\.more\.bias\)",
    ),
    "requires_grad": (
        lambda model: model.get_parameter("head.bias").requires_grad_(),
        r"1 trainable parameters \(model\.head\.bias\)",
    ),
}


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["entprop", "vanilla", "free_at"])
def test_what_the_optimizer_does_not_hold(name: str, change: str, steps: int) -> None:
    """FOUND W10, a neighbour: trained by nobody, in silence; now as at `create_method`."""
    model = s.dual_network()
    model.get_parameter("head.bias").requires_grad_(False)
    learned = [p for p in model.parameters() if p.requires_grad]
    method = create_method(name, model, torch.optim.SGD(learned, lr=0.1))
    for i in range(steps):
        method(*s.batch(seed=i))
    act, match = CHANGES[change]
    act(model)
    if change in ("a module", "a child more"):
        model.get_submodule("head").requires_grad_(change == "a module")
    s.refuse(method, *s.batch(seed=3), match=match)
    missing = [p for p in model.parameters() if all(p is not one for one in learned)]
    method.optimizer.add_param_group({"params": missing})
    method(*s.batch(seed=3))
    assert all(p.grad is not None for p in missing if p.requires_grad)


def test_another_model_criterion_or_optimizer() -> None:
    method = s.make()
    method(*s.batch())
    method.model = s.plain_network()
    s.refuse(method, *s.batch(), match="needs dual norms")
    method.model = s.dual_network()
    s.refuse(method, *s.batch(), match="optimizer lacks")
    method.optimizer = s.sgd(method.model)
    method(*s.batch())
    method.criterion = GPaCo(s.CLASSES).double()
    s.refuse(method, *s.batch(), match=r"optimizer lacks 1 .*criterion\.centres")


def test_a_parameter_that_the_optimizer_lost() -> None:
    method = s.make()
    method(*s.batch())
    group = method.optimizer.param_groups[0]
    group["params"] = [
        p for p in group["params"] if p is not method.model.get_parameter("head.bias")
    ]
    s.refuse(method, *s.batch(), match=r"model\.head\.bias")


def test_buffers_may_be_replaced_at_every_step() -> None:
    """Only what an optimizer would hold is looked at."""
    model = s.dual_network()
    held = AcceptedModules(model, None, s.sgd(model))
    model.get_submodule("bn1").running_mean = torch.zeros(4, dtype=torch.float64)
    assert not held.replaced(model, None, held._roots[2]) and not held.requires_grad_changed()
