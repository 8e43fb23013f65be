"""NoisyMix: features mixed and made noisy at a random place, with three views of a row."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from entprop_fast import draws, models, reference
from entprop_fast.methods.stages import candidates, stages
from tests.methods import support as s
from tests.methods.by_hand import ByHand, Settings, positive_part
from tests.methods.test_exactness import compare

PLACES = ["input", "conv1", "bn1", "conv2"]  # of the small network
ADD, MULT, SPARSITY, JSD = 0.5, 0.4, 0.65, 12.0


class Noisy(ByHand):
    """The step by hand, with features changed where a draw says so."""

    def draw(self, rows: int, views: int, source: torch.Generator, places: list[str]) -> None:
        """In the documented order: lam, permutation, place, levels; the noise where it is met."""
        beta = torch.tensor([1.0, 1.0], dtype=torch.float64)
        self.lam = float(torch._sample_dirichlet(beta, source)[0])
        self.partners = torch.randperm(rows, generator=source)
        self.place = places[int(torch.randint(len(places), (), generator=source))]
        unit = torch.rand(2, views, 6, generator=source, dtype=torch.float64)
        self.levels = [[sorted(six)[1] for six in kind] for kind in unit.tolist()]
        self.source, self.places, self.views = source, places, views
        self.numbers = torch.empty(3, 0, dtype=torch.float64)

    def changed(self, name: str, h: Tensor) -> Tensor:
        if name not in self.places:
            return h
        if self.numbers.shape[1] < h.numel():
            size: dict[str, Any] = {"generator": self.source, "dtype": torch.float64}
            normal = torch.randn(h.numel(), **size)
            self.numbers = torch.stack((normal, *torch.rand(2, h.numel(), **size)))
        if name != self.place:
            return h
        parts = []
        numbers = self.numbers[:, : h.numel()].reshape(3, *h.shape)
        for view, own in enumerate(h.tensor_split(self.views)):
            mixed = self.lam * own + (1 - self.lam) * own[self.partners]
            if name == "input":  # scaled to [-1, 1]
                mixed = 2 * mixed - 1
            normal, first, second = numbers.tensor_split(self.views, dim=1)[view]
            spread = 2 * (second - SPARSITY) / (1 - SPARSITY) - 1
            add = ADD * (view + 1) * self.levels[0][view] * torch.where(first < SPARSITY, 0, normal)
            mult = MULT * self.levels[1][view] * torch.where(second < SPARSITY, 0, spread)
            mixed = (1 + mult) * mixed + add
            parts.append((mixed + 1) / 2 if name == "input" else mixed)
        return torch.cat(parts)

    def log_probabilities(
        self, w: dict[str, Tensor], x: Tensor, *, aux: bool, move: bool, running: bool = False
    ) -> Tensor:
        h = self.changed("input", x)
        h = self.changed("conv1", F.conv2d(h, w["conv1.weight"], padding=1))
        h = positive_part(self.changed("bn1", self.norm("bn1", h, w, aux, move, running)))
        h = self.changed("conv2", F.conv2d(h, w["conv2.weight"], w["conv2.bias"], stride=2))
        h = positive_part(self.norm("bn2", h, w, aux, move, running))
        logits = h.mean(dim=(2, 3)) @ w["head.weight"].T + w["head.bias"]
        self.logits = logits.detach().tolist()
        return logits.log_softmax(dim=1)

    def noisy_step(self, images: Tensor, labels: Tensor, settings: Settings) -> Any:
        x, w = images.clone().requires_grad_(), self.weights()
        target = labels, labels[self.partners], self.lam
        losses, out = self.clean_pass(w, x, target, settings)
        self.descend(self.gradients(losses.mean(), w), settings.max_grad_norm)
        return out


@pytest.mark.parametrize("jsd", [JSD, 0.0])
@pytest.mark.parametrize("layers", [None, "input", "conv2", "bn1, conv1"])
def test_by_hand(layers: str | None, jsd: float) -> None:
    method = s.make(
        "noisymix", generator=s.generator(7), layers=layers, jsd=jsd,
        add_noise=ADD, mult_noise=MULT, label_smoothing=0.1,
    )  # fmt: skip
    hand = Noisy(s.dual_network().state_dict())
    settings, source = Settings(k=None, jsd=jsd, label_smoothing=0.1), s.generator(7)
    names = PLACES if layers is None else [name.strip() for name in layers.split(",")]
    for i in range(5):
        images, labels = s.batch_for(method, seed=i)
        before = images.clone()
        hand.draw(len(labels), method.views, source, names)
        result = method(images, labels)
        compare(method, hand, result, hand.noisy_step(images, labels, settings))
        s.assert_equal(images, before)


def test_every_place_is_drawn_and_levels_are_beta() -> None:
    source = s.generator()
    drawn = Counter(int(torch.randint(4, (), generator=source)) for _ in range(400))
    assert min(drawn.values()) > 60 and len(drawn) == 4
    levels = draws.draw_levels(2, 20_000, torch.empty(0, dtype=torch.float64), source)
    assert levels.shape == (2, 20_000)
    assert abs(levels.mean() - 2 / 7) < 0.005 and abs(levels.var() - 10 / 392) < 0.001


def test_noise_has_the_published_moments() -> None:
    """Zeros by sparsity; normal with 1 and uniform in +-1 with 1/3 as the variance of the rest."""
    unit = torch.rand(200_000, generator=s.generator(1))
    normal = torch.randn(200_000, generator=s.generator(2))
    for noise, variance in (
        (reference.sparse_normal(normal, unit, 0.65), 1.0),
        (reference.sparse_uniform(unit, 0.65), 1 / 3),
    ):
        kept = noise[noise != 0]
        assert abs(len(kept) / len(noise) - 0.35) < 0.005
        assert abs(kept.mean()) < 0.01 and abs(kept.var() - variance) < 0.01
    assert reference.sparse_uniform(unit, 0.0).abs().max() <= 1


def test_normalised_images_get_the_same_noise() -> None:
    plain = s.make("noisymix", generator=s.generator(3), layers="input", jsd=JSD)
    model = nn.Sequential(s.Lambda(s.normalised), s.dual_network())
    other = s.make(
        "noisymix", model=s.dual_network(), generator=s.generator(3), layers="input", jsd=JSD,
        normalization=(s.MEAN, s.STD),
    )  # fmt: skip
    inside = s.make("noisymix", model=model, generator=s.generator(3), layers="input", jsd=JSD)
    images, labels = s.batch_for(plain)
    s.close(list(other(s.normalised(images), labels)), list(inside(images, labels)))


def test_stages_of_networks() -> None:
    def named(model: nn.Module) -> list[str]:
        return [name for name, _ in stages(model)]

    groups = ["layer1", "layer2", "layer3"]
    for arch in ("wrn10_1", "resnet18"):
        assert named(models.create(arch, num_classes=10)) == groups
    wrapped = nn.Sequential(nn.Identity(), models.create("wrn10_1", num_classes=10))
    assert named(wrapped) == [f"1.{name}" for name in groups]
    assert named(s.plain_network()) == PLACES[1:]
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert named(linear) == [] and list(candidates(linear, None)) == ["input"]

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm = nn.Linear(4, 8), nn.LayerNorm(8)
            self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(12))
            self.head = nn.Linear(8, 2)

    assert named(Transformer()) == ["blocks.1", "blocks.4", "blocks.8"]  # embed is a part, too


def test_hooks_are_gone_after_a_step_and_after_a_refusal() -> None:
    model = s.dual_network()
    method = s.make("noisymix", model=model, jsd=JSD)
    method(*s.batch_for(method))
    assert not any(module._forward_hooks for module in model.modules())
    model.append(s.Lambda(lambda x: x[:, :3]))  # fewer classes
    images, labels = s.batch_for(method)
    s.refuse(method, images, labels.fill_(4), "labels hold 4")
    assert not any(module._forward_hooks for module in model.modules())


class Branches(nn.Module):
    """Runs a child twice, or leaves it out, or gives it rows that are none of the batch."""

    def __init__(self, times: int, body: nn.Module) -> None:
        super().__init__()
        self.times, self.body, self.part = times, body, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.part(x)
        if self.times < 0:
            self.part(x[:-1] if self.times == -1 else x.long())
        return self.body(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("times", "words"),
    [(0, "ran 0 times"), (2, "ran 2 times"), (-1, "35 rows for 36"), (-2, "no features")],
)
def test_places_that_are_none(times: int, words: str) -> None:
    model = Branches(times, s.dual_network())
    method = s.make("noisymix", model=model, layers="input,part", jsd=JSD)
    s.refuse(method, *s.batch_for(method), f"^layers: part .*{words}")


class Checkpointed(nn.Module):
    """Computes a child again in the backward pass."""

    def __init__(self, inner: nn.Module, again: bool) -> None:
        super().__init__()
        self.inner, self.again = inner, again

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.inner, x, use_reentrant=False) if self.again else self.inner(x)


@pytest.mark.parametrize("layers", [None, "conv1.inner,conv2.inner"])
def test_a_checkpoint_computes_the_same_again(layers: str | None) -> None:
    made = []
    for again in (False, True):
        model = s.plain_network()
        for name in ("conv1", "conv2"):
            setattr(model, name, Checkpointed(model.get_submodule(name), again))
        made.append(s.make("noisymix", model=model, jsd=JSD, generator=s.generator(2)))
        made[-1].layers = layers  # type: ignore[attr-defined]
    for i in range(4):
        s.assert_equal(*(list(method(*s.batch_for(method, seed=i))) for method in made))
    s.assert_equal(*map(s.left, made))


def test_cost_rows_and_what_is_drawn() -> None:
    method = s.make("noisymix", jsd=JSD)
    assert method.views == 3 and method.cost(12) == 3
    assert s.make("noisymix", jsd=0).views == 1 and s.make("noisymix", jsd=0).cost(12) == 1
    method(*s.batch_for(method))
    assert method.rows == 36 and method.last_batch == (12, 12)
    s.refuse(method, *s.batch_for(method, 1), r"B=1.*mixup=1")
    s.refuse(method, *s.batch(12), r"^labels.*3 views")


def test_without_mixing_and_noise_it_is_plain_training_with_three_views() -> None:
    quiet: dict[str, Any] = {"mixup": 0, "add_noise": 0, "mult_noise": 0, "jsd": JSD}
    one, other = s.make("noisymix", **quiet), s.make("vanilla", jsd=JSD)
    for i in range(2):
        batch = s.batch_for(one, seed=i)
        s.close(list(one(*batch)), list(other(*batch)))
    s.close(s.left(one), s.left(other))
