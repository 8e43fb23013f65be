"""What every method trains with under ``ranks="exact"``: networks, batches, options."""

import warnings
from collections import OrderedDict
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from entprop_fast import Method, convert_dual_norm, create_method, synchronise_norms
from entprop_fast.methods import METHODS, GPaCo, StepResult
from entprop_fast.parallel.replicas import Replicas
from entprop_fast.parallel.rows import world_size
from tests.methods.support import ONE_VIEW, generator, parameters, statistics

CLASSES = 4
BATCHES = (16, 16, 11, 3)  # rows of all processes; of the last one, a fourth process has none
STEPS = 20
SHARP = 0.02  # image units: a perturbation that changes what is learned
Case = tuple[str, dict[str, Any]]
CASES: dict[str, Case] = {
    **{name: (name, {}) for name in METHODS},
    "entprop every option": (
        "entprop",
        {"k": 0.4, "n": 3, "accumulate": "all", "equalize": True, "aux_labels": "mixed"}
        | {"aux_weight": 0.7, "max_grad_norm": 0.5},
    ),
    "entprop cw": ("entprop", {"k": 0.4, "n": 2, "attack_loss": "cw", "score": "random"}),
    "entprop trades": (
        "entprop",
        {"k": 0.4, "n": 2, "attack_loss": "trades", "selection": "global", "score": "margin"},
    ),
    "entprop cutmix": ("entprop", {"mixup": 0.0, "cutmix": 1.0, "label_smoothing": 0.1, "k": 0.5}),
    "entprop shared": ("entprop", {"norms": "shared", "n": 2, "aux_stats": "every"}),
    "entprop gpaco": ("entprop", {"criterion": "gpaco", "k": 0.4, "aux_labels": "mixed"}),
    "entprop jsd": ("entprop", {"jsd": 12.0, "k": 0.4, "n": 2, "score": "random"}),
    "noisymix views": ("noisymix", {"jsd": 12.0, "sparsity": 0.3}),
    "vanilla jsd": ("vanilla", {"jsd": 12.0}),
    "entprop gini": ("entprop", {"score": "gini", "k": 0.4}),
    "advprop k": ("advprop", {"n": 2, "k": 0.4, "attack_loss": "trades", "attack_mode": "eval"}),
    "fast_advprop k": ("fast_advprop", {"k": 0.4, "score": "confidence"}),
    "pipelined mixed": ("entprop_pipelined", {"k": 0.5, "aux_labels": "mixed", "score": "random"}),
    "pipelined gpaco": ("entprop_pipelined", {"criterion": "gpaco", "aux_labels": "mixed"}),
    "mixup gpaco": ("mixup", {"criterion": "gpaco"}),
    (ACCUMULATED := "entprop accumulated"): ("entprop", {"k": 0.4, "max_grad_norm": 0.5}),
}
IN_FOUR = (*METHODS, "pipelined gpaco")  # the others train in two processes, fewer steps
CALLS = {"free_at": 4}  # steps of each


def network(dual: bool) -> nn.Sequential:
    """A convolution, a batch norm and a layer norm: images [B, 1, 6, 6] to 4 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(1, 4, 3),
            bn=nn.BatchNorm2d(4),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            ln=nn.LayerNorm(16),
            head=nn.Linear(16, CLASSES),
        )
        model = nn.Sequential(layers).double()
    return convert_dual_norm(model) if dual else model


def own_batch(step: int, rank: int = 0, world: int = 1, views: int = 1) -> tuple[Tensor, Tensor]:
    """The rows r::world of a step's batch, so many views of each."""
    source = torch.Generator().manual_seed(1000 + step)
    rows = BATCHES[step % len(BATCHES)]
    images = torch.rand(rows, 1, 6, 6, generator=source, dtype=torch.float64)
    labels = torch.randint(CLASSES, (rows,), generator=source)
    images, labels = images[rank::world], labels[rank::world]
    return torch.cat([images / (1 + view) for view in range(views)]), labels


def train_all(world: int) -> dict[str, Any]:
    """What each case leaves that so many processes train."""
    return {key: train(key) for key in (IN_FOUR if world == 4 else CASES)}


def method_of(case: Case, *, seed: int = 5, synchronise: bool = True, **options: Any) -> Method:
    """A method on a fresh network, wrapped where there are several processes."""
    name, given = case[0], {"generator": generator(seed), "ranks": "exact", **case[1], **options}
    given = ONE_VIEW.get(name, {}) | given
    for distance in ("alpha", "eps"):
        if hasattr(METHODS[name].Options, distance) and distance not in given:
            given[distance] = SHARP
    shared = given.get("norms") == "shared"
    model: nn.Module = network(METHODS[name].needs_dual_norms and not shared)
    if synchronise:
        synchronise_norms(model)
    learned = list(model.parameters())
    if given.get("criterion") == "gpaco":
        given["criterion"] = GPaCo(CLASSES).double()
        learned += given["criterion"].parameters()
    optimizer = torch.optim.SGD(learned, lr=0.05, momentum=0.9, weight_decay=5e-4)
    if world_size() > 1:
        model = DistributedDataParallel(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return create_method(name, model, optimizer, **given)


def train(key: str) -> dict[str, Any]:
    """What 20 steps leave and report; two of each batch where a method has trained already."""
    case, steps = CASES[key], STEPS if key in METHODS else 2 * len(BATCHES)
    rank = distributed.get_rank() if world_size() > 1 else 0
    method = method_of(case)

    def accumulate(images: Tensor, labels: Tensor) -> StepResult:
        """A step of three passes; the gradients of the second are kept back."""
        method.optimizer.zero_grad()
        for number in range(3):
            keeping = method._replicas if number == 1 else None
            no_sync = keeping._wrapper.no_sync if isinstance(keeping, Replicas) else nullcontext
            with no_sync():
                result = method.backward(images, labels, weight=0.25)
        method.apply_gradients()
        return result

    results, selected, perturbed = [], [], []
    for step in range(steps // CALLS.get(method.name, 1)):
        take = accumulate if key == ACCUMULATED else method
        result = take(*own_batch(step, rank, world_size(), method.views))
        results.append(torch.stack([value.double() for value in result]))
        chosen = method.selected_index
        selected.append(torch.empty(0) if chosen is None else chosen.clone())
        moved = method.perturbed
        perturbed.append(torch.empty(0) if moved is None else moved.clone())
    modules = {"model": method.model, "criterion": method.criterion}
    found = {name: module for name, module in modules.items() if module is not None}
    return {
        "parameters": {name: parameters(module) for name, module in found.items()},
        "buffers": {name: statistics(module) for name, module in found.items()},
        "results": torch.stack(results),
        "selected": selected,
        "perturbed": perturbed,
        "rows": method.rows,
        "state": method.state_dict(),
    }
