"""Which steps run eagerly, which are captured, which are replayed; and that all are the same."""

import copy
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import Method, StepResult
from entprop_fast.capture import shapes as capture_shapes
from entprop_fast.methods import METHODS
from tests.capture.recording import RecordingGraphs
from tests.capture.support import Twins, make
from tests.methods.support import assert_equal, batch, dual_network, everything, generator

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    ("entprop", {"k": 0.6, "n": 3, "accumulate": "all", "equalize": True}),
    ("entprop", {"n": 2, "aux_labels": "mixed", "aux_stats": "every"}),
    ("entprop", {"score": "random", "label_smoothing": 0.1, "max_grad_norm": 0.5}),
    ("entprop", {"generator": None}),
    ("entprop", {"amp": "bf16", "n": 2}),
    ("vanilla", {"jsd": 12.0}),
    ("noisymix", {"jsd": 12.0}),
    ("entprop", {"norms": "affine", "n": 2}),
    ("entprop", {"norms": "statistics"}),
    ("entprop", {"jsd": 12.0, "k": 0.6, "n": 2}),
    ("entprop_pipelined", {"k": 0.6, "aux_labels": "mixed"}),
    ("entprop_pipelined", {"mixup": 0.0, "cutmix": 1.0, "aux_labels": "mixed", "score": "random"}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_replays_are_the_eager_steps(
    recorder: RecordingGraphs, name: str, options: dict[str, Any]
) -> None:
    twins = Twins(recorder, name, **options)
    twins.step(8)
    steps = 8 * getattr(twins.captured, "replays", 1)  # free_at's, of each batch
    eager = 4 if name == "entprop_pipelined" else 3  # its first step takes no rows along
    assert twins.said() == "e" * eager + "cr" + "r" * (steps - eager - 1)
    captures = twins.captured.captures
    assert captures.replays == steps - eager and captures.why_eager is None


def test_a_shape_has_a_graph_of_its_own(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    twins.step(5)
    twins.step(4, rows=10)
    twins.step(2)
    twins.step(2, rows=10)
    assert twins.said() == "eeecrr" + "eeecr" + "rr" + "rr"


def test_a_layout_has_a_graph_of_its_own(recorder: RecordingGraphs) -> None:
    method = make()
    recorder.method = method
    images, labels = batch(dtype=torch.float32)
    for layout in (torch.contiguous_format, torch.channels_last):
        recorder.log.clear()
        for _ in range(4):
            method(images.contiguous(memory_format=layout), labels)
        assert recorder.log == ["eager"] * 3 + ["capture", "replay"]


class Strides(nn.Module):
    """Notes the strides of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add(x.stride())
        return x


def test_a_batch_with_gaps_between_its_rows(recorder: RecordingGraphs) -> None:
    """It warms up as the graph will read it: cuDNN chooses by strides, too."""
    notes = Strides()
    model = nn.Sequential(notes, dual_network(dtype=torch.float32))
    method, eager = make(model=model, mixup=0.0), make(capture="off", mixup=0.0)
    recorder.method = method
    for seed in range(5):
        images, labels = batch(24, seed=seed, dtype=torch.float32)
        result = method(images[::2], labels[::2])
        torch.testing.assert_close(result.loss, eager(images[::2].clone(), labels[::2]).loss)
    assert recorder.log == ["eager"] * 3 + ["capture", "replay", "replay"]
    assert notes.seen == {images[:12].stride()}


FULL = 66  # batches of an epoch before its last, smaller one
R = "r" * FULL
EPOCHS = {
    "vanilla": ["eeec" + R[3:] + "e", R + "e", R + "e", R + "cr", R + "r"],
    # Its very first step takes no rows along, the first of the other epochs those of a small batch.
    "entprop_pipelined": [
        "eeeec" + R[4:] + "e",
        *["e" + R[1:] + "e"] * 2,
        "e" + R[1:] + "cr",
        "cr" + R[1:] + "r",
    ],
}


@pytest.mark.parametrize("name", EPOCHS)
def test_an_epochs_last_smaller_batch(recorder: RecordingGraphs, name: str) -> None:
    """Its eager steps need activations of their own: three of a run, however long its epochs."""
    options: dict[str, Any] = {} if name == "vanilla" else {"k": 0.5}
    method = make(name, **options)
    recorder.method = method
    batches = [batch(6, seed=seed, dtype=torch.float32) for seed in range(FULL)]
    batches.append(batch(3, dtype=torch.float32))
    ran = []
    for _ in range(5):
        recorder.log.clear()
        for images, labels in batches:
            method(images, labels)
        ran.append("".join(word[0] for word in recorder.log))
    assert ran == EPOCHS[name]
    assert method.captures.replays == sum(epoch.count("r") for epoch in ran)


def test_a_run_of_many_shapes(recorder: RecordingGraphs) -> None:
    """Those that come back first are captured; the others are told of once, and run eagerly."""
    method = make("vanilla")
    recorder.method = method
    with pytest.warns(RuntimeWarning, match="batches of 4 shapes are captured") as told:
        for _ in range(6):
            for size in (6, 7, 8, 9, 10, 11):
                method(*batch(size=size, dtype=torch.float32))
    assert recorder.log.count("capture") == capture_shapes.MAX_GRAPHS
    assert recorder.log.count("replay") == 3 * capture_shapes.MAX_GRAPHS and len(told) == 1


def test_the_number_of_graphs_is_limited(recorder: RecordingGraphs) -> None:
    method = make()
    recorder.method = method
    sizes = [6, 7, 8, 9]
    for size in sizes:
        for _ in range(4):
            method(*batch(size=size, dtype=torch.float32))
    assert recorder.log.count("capture") == capture_shapes.MAX_GRAPHS == len(sizes)
    with pytest.warns(RuntimeWarning, match="batches of 4 shapes are captured"):
        for _ in range(5):
            method(*batch(size=10, dtype=torch.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method(*batch(size=11, dtype=torch.float32))
    assert recorder.log[-6:] == ["eager"] * 6
    method(*batch(size=6, dtype=torch.float32))
    assert recorder.log[-1] == "replay"


def _weighed(method: Method, number: int) -> None:
    method.backward(*batch(6, dtype=torch.float32), weight=1 / (1 + number))


def _of_rows(method: Method, number: int) -> None:
    method(*batch(6 + number, dtype=torch.float32))


@pytest.mark.parametrize("call", [_weighed, _of_rows])
def test_keys_that_never_return_are_forgotten(
    recorder: RecordingGraphs, monkeypatch: pytest.MonkeyPatch, call: Callable[[Method, int], None]
) -> None:
    """What is captured, or comes back, outlives a stream of new weights or shapes."""
    assert capture_shapes.MAX_SHAPES > capture_shapes.MAX_GRAPHS
    monkeypatch.setattr(capture_shapes, "MAX_SHAPES", 6)
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    class Known(capture_shapes._Shape[Any]):
        def __init__(self, images: Tensor) -> None:
            super().__init__(images)
            alive.add(self)

    monkeypatch.setattr(capture_shapes, "_Shape", Known)
    method = make("vanilla")
    recorder.method = method
    for _ in range(4):
        call(method, 0)
    recorder.log.clear()
    for new in range(2, 22):
        call(method, new)
        if new % 4 == 2:  # with no more in between than are remembered beside the captured one
            call(method, 1)
        assert 1 < len(alive) <= 6
    said = "".join(word[0] for word in recorder.log)
    assert said == 3 * ("ee" + "eee") + ("e" + "cr" + "eee") + ("e" + "r" + "eee")
    call(method, 0)
    assert recorder.log[-1] == "replay"


def test_results_are_never_overwritten(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    results = [twins.step() for _ in range(4)]
    copies = copy.deepcopy(results)
    later = twins.step(3)
    assert_equal([list(one) for one in results], [list(one) for one in copies])
    assert isinstance(later, StepResult) and not torch.equal(later.loss, results[-1][0])


def test_a_gradient_is_the_steps_own_whatever_became_of_the_last_one(
    recorder: RecordingGraphs,
) -> None:
    twins = Twins(recorder)
    twins.step(5)
    parameters = list(twins.captured.model.parameters())
    buffers = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    twins.step()
    assert all(p.grad is grad for p, grad in zip(parameters, buffers, strict=True))
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 7.0)
    twins.step()
    assert twins.said() == "eeecr" + "r" * 3


def test_a_parameter_that_no_loss_reached_has_none(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder, "vanilla")
    twins.step(5)
    aux = [p for name, p in twins.captured.model.named_parameters() if "aux" in name]
    aux[0].grad = torch.ones_like(aux[0])
    twins.step()
    assert aux and all(parameter.grad is None for parameter in aux)


@pytest.mark.parametrize("labels", [torch.full((12,), 99), torch.zeros(11, dtype=torch.int64)])
def test_a_refused_batch_changes_nothing(recorder: RecordingGraphs, labels: torch.Tensor) -> None:
    twins = Twins(recorder)
    twins.step(5)
    twins.said()
    before = everything(twins.captured)
    with pytest.raises(ValueError, match="labels"):
        twins.captured(batch(dtype=torch.float32)[0], labels)
    assert_equal(everything(twins.captured), before)
    assert twins.said() == "" and twins.captured.captures.replays == 2
    twins.step()
    assert twins.said() == "r"


def test_images_with_a_gradient_and_their_own_values(recorder: RecordingGraphs) -> None:
    method = make()
    recorder.method = method
    images, labels = batch(dtype=torch.float32)
    images.requires_grad_()
    before = images.detach().clone()
    for _ in range(6):
        method(images, labels)
    assert images.grad is None and torch.equal(images.detach(), before)


def test_off_and_on_again_and_forget(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    twins.step(4)
    twins.captured.capture = "off"
    twins.step(2)
    assert twins.said() == "eeecr"
    twins.captured.capture = "auto"
    for _ in range(2):
        twins.step(4)
        assert twins.said() == "eeecr"
        twins.captured.captures.forget()


def test_without_graphs_steps_are_eager() -> None:
    method = make()
    method(*batch(dtype=torch.float32))
    assert method.captures.replays == 0 and method.captures.why_eager is None
    assert method.optimizer.param_groups[0]["lr"] == 0.1  # left as it was
    assert method.optimizer.param_groups[0]["fused"] is None


def test_on_needs_a_device_with_graphs() -> None:
    with pytest.raises(ValueError, match="capture='on': the model is on cpu"):
        make(capture="on")


def test_a_method_is_freed_without_the_garbage_collector(recorder: RecordingGraphs) -> None:
    import gc
    import weakref

    method = make(generator=generator())
    recorder.method = method
    for _ in range(3):
        method(*batch(dtype=torch.float32))
    gone = weakref.ref(method)
    recorder.method = None
    gc.disable()
    try:
        del method
        assert gone() is None
    finally:
        gc.enable()
