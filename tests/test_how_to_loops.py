"""Run the loops of docs/how-to as printed, and look at each optimiser step that they take."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from entprop_fast import Method, create_method
from tests.methods import support as s

PAGES = Path(__file__).parents[1] / "docs" / "how-to"
LONGEST = 40  # lines of one block


def blocks(page: str) -> list[str]:
    text = (PAGES / f"{page}.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


@dataclass
class Steps:
    """The weights of the batches in each optimiser step, and how its gradient fits theirs.

    Attributes:
        weights: of the batches, step by step.
        alignments: cosine between the step's gradient and the sum of what the batches added.
        ratios: of their norms, 1 without clipping.
        norms: of the step's gradient.
    """

    weights: list[list[float]] = field(default_factory=list)
    alignments: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    """Watch what `Method`'s passes add to the gradients, and what optimizers then step along."""
    found, pending, added = Steps(), list[float](), dict[Tensor, Tensor]()
    passes = Method._run_passes

    def watched(method: Method, images: Tensor, labels: Tensor, weight: float = 1.0) -> Any:
        before = {p: p.grad.clone() for p in method.model.parameters() if p.grad is not None}
        result = passes(method, images, labels, weight)
        pending.append(weight)
        for parameter in method.model.parameters():
            if parameter.grad is not None:
                own = parameter.grad - before.get(parameter, torch.zeros(()))
                added[parameter] = added.get(parameter, torch.zeros(())) + own
        return result

    def stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        taken = [p for group in optimizer.param_groups for p in group["params"] if p in added]
        own, sums = (
            torch.cat([t.flatten().double() for t in some])
            for some in ([p.grad for p in taken], [added[p] for p in taken])
        )
        found.weights.append(list(pending))
        found.alignments.append(float(torch.cosine_similarity(own, sums, dim=0)))
        found.ratios.append(float(own.norm() / sums.norm()))
        found.norms.append(float(own.norm()))
        pending.clear()
        added.clear()

    monkeypatch.setattr(Method, "_run_passes", watched)
    hook = register_optimizer_step_post_hook(stepped)
    yield found
    hook.remove()


def run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Run the blocks of a page one after the other; return the names after each."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    after = []
    for code in blocks(page):
        assert len(code.splitlines()) <= LONGEST
        exec(compile(code, f"{page}.md", "exec"), names)
        after.append(dict(names))
    return after


def check(steps: Steps, count: int, batches: int, *, clipped: bool = True) -> None:
    """Check so many steps, each along the mean gradient of so many batches, of norm 1 at most."""
    assert steps.weights == [[1 / batches] * batches] * count
    assert min(steps.alignments) > 1 - 1e-6
    if clipped:
        assert max(steps.norms) < 1 + 1e-4
    assert all(
        abs(r - 1) < 1e-4 or abs(n - 1) < 1e-4
        for r, n in zip(steps.ratios, steps.norms, strict=True)
    )


def saved(file: Path) -> dict[str, Tensor]:
    """The network that a page saved: plain, and finite."""
    state: dict[str, Tensor] = torch.load(file, weights_only=True)
    assert not any("aux" in key for key in state)
    assert all(value.isfinite().all() for value in state.values())
    return state


@pytest.mark.parametrize(
    ("page", "count", "batches"),
    [
        ("plain_pytorch", 4, 2),
        ("accelerate", 4, 2),
        ("timm_script", 4, 2),
        ("torchvision_script", 6, 1),
    ],
)
def test_scripts(
    page: str,
    count: int,
    batches: int,
    steps: Steps,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(page, tmp_path, monkeypatch)
    check(steps, count, batches)
    saved(tmp_path / "network.pt")


def test_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways give the same network; then it trains."""
    split, loaded = run("from_advprop", tmp_path, monkeypatch)
    state = loaded["split"].state_dict()  # converted in place
    theirs = torch.load(tmp_path / "last.pth.tar", weights_only=True)["state_dict"]
    assert {key.replace("aux_bn.0.", "aux_bn.") for key in theirs} == state.keys()
    assert loaded["result"].loss.isfinite()
    assert not torch.equal(loaded["model"].fc.weight, split["model"].fc.weight)


def test_a_gradient_scaler_is_refused() -> None:
    """As accelerate's optimizer has one under float16, also in Hugging Face's Trainer."""
    Accelerator(cpu=True)  # which the optimizer asks
    model = s.dual_network()
    optimizer = AcceleratedOptimizer(s.sgd(model), scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(ValueError, match=r"^optimizer .*scaler.*float16.*bfloat16"):
        create_method("entprop", model, optimizer)


@pytest.mark.filterwarnings("ignore")
def test_lightning(steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after = run("lightning", tmp_path, monkeypatch)
    check(Steps(*(getattr(steps, f)[:4] for f in vars(steps))), 4, 2)
    check(Steps(*(getattr(steps, f)[4:] for f in vars(steps))), 8, 1)
    for names, count in zip(after, (4, 8), strict=True):
        trainer = names["trainer"]
        assert trainer.global_step == count
        assert trainer.callback_metrics["loss"] > 0
    saved(tmp_path / "network.pt")


@pytest.mark.filterwarnings("ignore")
def test_hugging_face(steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (names,) = run("hugging_face", tmp_path, monkeypatch)
    check(steps, 8, 2)
    log = [entry["loss"] for entry in names["trainer"].state.log_history if "loss" in entry]
    assert len(log) == 4 and all(1 < loss < 5 for loss in log)  # about ln 10
    for name, network in names["networks"].items():
        again = type(network).from_pretrained(tmp_path / name / "network")
        assert again.state_dict().keys() == network.state_dict().keys()
