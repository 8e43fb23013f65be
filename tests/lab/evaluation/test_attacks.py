"""Check PGD against a few independent lines, and AutoAttack through its interface."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast.counter_random import fold, paired_uniforms, row_keys
from entprop_fast.lab.evaluation import EvaluationOptions, autoattack, evaluate_model, pgd
from entprop_fast.lab.evaluation.attacks import NO_DEFENCE
from tests.lab.evaluation.support import Brightness, tiny_cifar


def small_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    )


def batch(rows: int = 6, side: int = 8) -> tuple[Tensor, Tensor]:
    return torch.rand(rows, 3, side, side, dtype=torch.float64), torch.arange(rows) % 5


def by_hand(
    model: nn.Module, x: Tensor, labels: Tensor, steps: int, eps: float, alpha: float, first: int
) -> Tensor:
    keys = row_keys(fold((0xA77, 3)), first, len(x), x.device)
    start = paired_uniforms(keys, x[0].numel()).view(x.shape).double()
    adversarial = x + eps * (2 * start - 1)
    adversarial = adversarial.clip(0, 1)
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        nn.functional.cross_entropy(model(adversarial), labels).backward()
        assert adversarial.grad is not None
        adversarial = adversarial + alpha * adversarial.grad.sign()
        adversarial = torch.max(torch.min(adversarial, x + eps), x - eps).clip(0, 1)
    return adversarial.detach()


def test_pgd_is_the_few_lines() -> None:
    model, (x, labels) = small_network().eval().double(), batch()
    made = pgd(model, x, labels, steps=7, eps=0.05, alpha=0.02, seed=3, first=11)
    assert all(parameter.grad is None for parameter in model.parameters())
    wanted = by_hand(model, x, labels, 7, 0.05, 0.02, first=11)
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-12)
    assert (made - x).abs().max() <= 0.05 + 1e-12


def test_pgd_of_a_model_that_normalises_its_input_in_place() -> None:
    """FOUND W9, a neighbour: neither refused nor changed by what the model writes."""

    class Normalised(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.in_place, self.linear = in_place, nn.Linear(48, 5).double()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.linear((x.sub_(0.5) if self.in_place else x - 0.5).flatten(1))
            return y

    x, labels = batch(side=4)
    one, other = (pgd(Normalised(way), x, labels, steps=3) for way in (True, False))
    assert torch.equal(one, other)


def test_pgd_does_not_depend_on_the_batch_and_restores_the_model() -> None:
    model, (x, labels) = small_network().double(), batch()
    model[1].eval()
    before = [module.training for module in model.modules()]
    whole = pgd(model, x, labels, steps=3, seed=1)
    parts = [
        pgd(model, x[rows], labels[rows], steps=3, seed=1, first=rows.start)
        for rows in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-12)
    assert [module.training for module in model.modules()] == before
    assert model[1].num_batches_tracked == 0


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"steps": 0}, "steps = 0"), ({"eps": 0.0}, r"eps = 0\.0"), ({"alpha": -1.0}, r"alpha = -1")],
)
def test_pgd_refuses(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        pgd(small_network().double(), *batch(1), **({"steps": 1} | changed))


def test_attack_rows_name_the_norms_and_say_that_there_is_no_defence() -> None:
    data = tiny_cifar()
    options = EvaluationOptions(corruptions="none", pgd=4, eps=48 / 255, alpha=0.05)
    found = evaluate_model(Brightness(4), data, options)
    clean, row = found.rows
    assert row.test == "PGD-4, eps 48/255, alpha 0.05" and "through the main norms" in row.source
    assert row.accuracy < clean.accuracy and row.note == NO_DEFENCE and row.ece is None
    assert f"**{NO_DEFENCE}**" in found.markdown() and "no defence" in NO_DEFENCE
    assert found.ra is None and found.hscore is None


class FakeAutoAttack:
    """Fails as the real one does where it is told to aim at classes that there are not."""

    made: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, model: nn.Module, **settings: Any) -> None:
        self.made.append(settings | {"training": model.training})
        self.model = model
        self.attacks_to_run = ["apgd-ce", "apgd-t", "fab-t", "square"]
        self.apgd_targeted = types.SimpleNamespace(n_target_classes=9)
        self.fab = types.SimpleNamespace(n_target_classes=9)

    def run_standard_evaluation(self, images: Tensor, labels: Tensor, bs: int) -> Tensor:
        assert bs == len(images) == len(labels)
        assert images.is_contiguous()  # its gradients are viewed as rows
        ranked = self.model(images).sort(dim=1)[0]
        for name in self.attacks_to_run:
            needed = {"apgd-dlr": 3, "apgd-t": 4}.get(name, 1)
            ranked[:, -needed]
            if name in ("apgd-t", "fab-t"):
                part = self.apgd_targeted if name == "apgd-t" else self.fab
                ranked[:, -1 - part.n_target_classes]
                assert part.n_target_classes == min(9, ranked.shape[1] - 1)
        self.made[-1]["attacks"] = tuple(self.attacks_to_run)
        return 1 - images


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What AutoAttack was made with, which is a fake one."""
    module = types.ModuleType("autoattack")
    module.AutoAttack = FakeAutoAttack  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "autoattack", module)
    return FakeAutoAttack.made


AUTO = EvaluationOptions(corruptions="none")


def test_autoattack_runs_through_its_own_interface(made: list[dict[str, Any]]) -> None:
    images, labels = torch.rand(3, 3, 8, 8), torch.zeros(3).long()
    model = Brightness(4).train()
    assert torch.equal(autoattack(model, images, labels, eps=0.1, seed=4), 1 - images)
    wanted = {"norm": "Linf", "eps": 0.1, "seed": 4, "version": "standard", "training": False}
    assert wanted.items() <= made[-1].items() and model.training
    row = evaluate_model(model, tiny_cifar(), replace(AUTO, autoattack=True)).rows[1]
    assert row.test == "AutoAttack, eps 8/255" and row.note == NO_DEFENCE


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 9, 10, 12])
def test_autoattack_works_from_two_classes_on(classes: int, made: list[dict[str, Any]]) -> None:
    """FOUND W14: fewer than 10 classes ended in an IndexError after everything else."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, classes))
    data = torch.rand(6, 3, 4, 4), torch.arange(6) % classes
    found = evaluate_model(model, data, replace(AUTO, autoattack=True))
    row = found.rows[1]
    few = {2: ("apgd-ce", "fab-t", "square"), 3: ("apgd-ce", "apgd-dlr", "fab-t", "square")}
    attacks = few.get(classes, ("apgd-ce", "apgd-t", "fab-t", "square"))
    assert made[-1]["attacks"] == attacks
    assert row.note.startswith(NO_DEFENCE) and f"**{NO_DEFENCE}**" in found.markdown()
    said = f"{classes} logits, so not the standard attacks: {', '.join(attacks)}."
    assert [said in text for text in (row.note, found.markdown())] == [classes < 4] * 2
    assert found.markdown().count(NO_DEFENCE) == 1


def test_autoattack_of_one_class_is_refused_before_anything_runs(
    made: list[dict[str, Any]],
) -> None:
    """FOUND W14: there is nothing to attack towards."""
    said: list[str] = []
    data = torch.rand(2, 3, 4, 4), torch.zeros(2).long()
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 1))
    with pytest.raises(ValueError, match="autoattack"):
        evaluate_model(model, data, replace(AUTO, autoattack=True), say=said.append)
    assert not said


def test_a_missing_autoattack_is_said_before_anything_runs() -> None:
    with pytest.raises(ImportError, match="pip install git"):
        EvaluationOptions(autoattack=True)
