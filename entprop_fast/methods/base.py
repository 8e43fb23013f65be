"""What every training method shares: its settings, its checks, one pass and one step."""

import abc
import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from entprop_fast.capture import StepCapture
from entprop_fast.layers.routing import Target
from entprop_fast.methods import checks, losses
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.contract import StepResult
from entprop_fast.methods.copies import Copied
from entprop_fast.methods.image_units import Channels, ImageUnits
from entprop_fast.methods.options import check_choice, check_instance, check_number
from entprop_fast.methods.passes import Passes
from entprop_fast.methods.transaction import snapshot
from entprop_fast.methods.watch import Watch
from entprop_fast.parallel.agreement import Agreement
from entprop_fast.parallel.replicas import unwrap
from entprop_fast.parallel.rows import world_size

__all__ = ["CommonOptions", "Method", "StepResult"]


class Method(Passes, Copied, abc.ABC):
    """One way to train: calling it with a batch runs one optimiser step.

    ``copy.deepcopy`` and ``pickle`` of a method, alone or together with its model and optimizer,
    give one that goes on as the original would and captures anew. Each pass runs on memory of its
    own, so that a model may write into its input.

    Args:
        model: the network, in training mode, or a `DistributedDataParallel` of it, over whose
            processes each step averages the gradients once (docs/distributed.md).
        optimizer: holds every trainable parameter of `model` (and of `criterion`).
        input_range: lowest and highest value of an image before normalisation.
        normalization: (mean, std), each a float or one per channel, when the images arrive as
            ``(x - mean) / std``; eps and alpha stay in image units.
        amp: "bf16" runs forward passes under bfloat16 autocast; None leaves autocast alone.
        generator: source of every random draw of a step, on the images' device; None for that
            device's default one.
        capture: replay the step as a CUDA graph (docs/capture.md): "auto" on CUDA where it can be
            captured, with one warning where it cannot; "on" or an error; "off" never.
        check: check labels and image values on every call: None on the CPU only, since on a GPU it
            synchronises. Shapes and dtypes are always checked.
        criterion: a module ``(logits, labels) -> per-sample loss [B]`` in place of cross-entropy.
        label_smoothing: of the cross-entropy, in [0, 1].
        max_grad_norm: clip the norm of all gradients before the optimiser's step.

    Raises:
        TypeError, ValueError: a setting, the model or the optimizer is not usable; the message
            names it and what is valid.

    Attributes:
        rows: rows that went through a forward and a backward pass so far, the cost of training.
        selected_index: rows that the last step chose to perturb, int64 [m]; None for all or none.
        perturbed: their images after the last perturbation, [m, C, H, W], or None. A replayed step
            overwrites both: clone what is to be kept.
        captures: how many steps were replays, why none are, and how to drop what was captured.
    """

    name: ClassVar[str]
    Options: ClassVar[type[CommonOptions]] = CommonOptions
    # Attributes that a step leaves to the next one, which a refused call puts back; numbers among
    # them that decide which tensors a step reads, so that a captured one belongs to their values.
    _carried: ClassVar[tuple[str, ...]] = ("rows",)
    _captured_by: ClassVar[tuple[str, ...]] = ()
    _agreed: ClassVar[tuple[str, ...]] = ()  # options that several processes must share

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        input_range: tuple[float, float] = (0.0, 1.0),
        normalization: tuple[Channels, Channels] | None = None,
        amp: Literal["bf16"] | None = None,
        generator: torch.Generator | None = None,
        capture: Literal["auto", "on", "off"] = "auto",
        check: bool | None = None,
        criterion: nn.Module | None = None,
        label_smoothing: float = 0.0,
        max_grad_norm: float | None = None,
    ) -> None:
        check_instance("model", model, nn.Module)
        check_instance("optimizer", optimizer, torch.optim.Optimizer)
        if criterion is not None:
            check_instance("criterion", criterion, nn.Module)
        if generator is not None:
            check_instance("generator", generator, torch.Generator)
        self.label_smoothing = losses.check_loss(criterion, label_smoothing)
        self._agreement = Agreement()
        self.model, self._replicas = unwrap(model, criterion, self._agreement)
        self.optimizer = optimizer
        self.units = ImageUnits(input_range, normalization)
        self.input_range, self.normalization = self.units.input_range, normalization
        checks.check_amp(amp)
        self.amp = amp
        self.generator, self.check, self.criterion = generator, check, criterion
        self.capture: Literal["auto", "on", "off"] = capture
        self.max_grad_norm = max_grad_norm
        check_choice("check", check, (None, True, False))
        check_choice("capture", capture, ("auto", "on", "off"))
        if max_grad_norm is not None:
            check_number("max_grad_norm", max_grad_norm, low=0, open_low=True)
        checks.check_training(self.model)
        if self.needs_dual_norms:
            checks.check_dual(self.name, self.model)
        checks.check_optimizer(optimizer, self.model, criterion)
        device = next((parameter.device for parameter in model.parameters()), None)
        checks.check_generator(generator, device)
        self.rows, self._new_shape = 0, False
        self.selected_index: Tensor | None = None
        self.perturbed: Tensor | None = None
        self._classes: int | None = None  # known after the first forward
        self._seen: set[torch.Size] = set()  # shapes of the batches accepted so far
        self._watch = Watch(self.model, criterion, optimizer)
        self.captures = StepCapture(self)
        self.captures.check()

    def __call__(self, images: Tensor, labels: Tensor) -> StepResult:
        """Run one optimiser step: discard old gradients, `backward`, clip, step.

        Args:
            images: [B, C, H, W], floating, in the model's dtype, within `input_range` (after
                `normalization`). Neither modified nor left with a gradient.
            labels: [B], int64, in [0, classes).

        Raises:
            TypeError, ValueError: the batch cannot be used; nothing has changed.
            RuntimeError: ``capture="on"`` and the step cannot be captured, or processes whose
                gradients are of different parameters; it was not taken.
        """
        with self._agreement.call(self._agreements()):
            return self.captures(*self._accepted(images, labels))

    def _eager_step(self, images: Tensor, labels: Tensor) -> StepResult:
        with self._refusing(images):
            return self._step(images, labels)

    def _step(self, images: Tensor, labels: Tensor) -> StepResult:
        """One whole step, as a graph captures it; see `entprop_fast.capture.step.Steps`."""
        with self._exchange():
            self.optimizer.zero_grad(set_to_none=True)
            result = self._passes(images, labels)
        if self.max_grad_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        with checks.closures_refused(self.optimizer):
            self.optimizer.step()
        return result

    def backward(self, images: Tensor, labels: Tensor) -> StepResult:
        """Everything but the optimiser's step: add this batch's gradients to `.grad`.

        For gradient accumulation and training loops of others; clearing the gradients, clipping
        and stepping are the caller's. Each batch adds the gradient of its mean loss: divide the sum
        over several by their number. Arguments and errors are those of calling the method.
        """
        with self._agreement.call(self._agreements()):
            images, labels = self._accepted(images, labels)
            with self._refusing(images), self._exchange():
                return self._passes(images, labels)

    def state_dict(self) -> dict[str, Any]:
        """All state beside model and optimizer that a resumed run needs."""
        generator = None if self.generator is None else self.generator.get_state()
        learned = {} if self.criterion is None else self.criterion.state_dict()
        criterion = {name: value.clone() for name, value in learned.items()}
        return {"rows": self.rows, "generator": generator, "criterion": criterion}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: the state has a generator and this method has none, or the reverse.
        """
        if (state["generator"] is None) != (self.generator is None):
            raise ValueError("generator: the state and this method must both have one, or neither")
        self.rows = state["rows"]
        if self.criterion is not None:
            self.criterion.load_state_dict(state["criterion"])
        if self.generator is not None:
            self.generator.set_state(state["generator"])

    def main_rows(self, batch: int) -> int:
        """Rows of the main pass, of which `StepResult.correct` is a part."""
        return batch

    @abc.abstractmethod
    def cost(self, batch: int) -> float:
        """Rows through the network per row of a batch of that many; plain training is 1."""

    @abc.abstractmethod
    def _passes(self, images: Tensor, labels: Tensor) -> StepResult:
        """All forward and backward passes of a step on an accepted batch."""

    def _single_rows(self, batch: int) -> Iterator[tuple[Target, str]]:
        """The routes along which a batch of that size sends one single row, and why."""
        if batch == 1:
            yield "main", "a batch of B=1"

    @property
    def _exchanges_rows(self) -> bool:
        """Whether a step's passes exchange rows with other processes, once."""
        return False

    def _agreements(self) -> int:
        """How often all processes agree in a call: at its start, on rows, on gradients."""
        rows, gradients = self._exchanges_rows, self._replicas.averages
        return 1 + rows + gradients if rows or gradients else 0

    def _exchange(self) -> contextlib.AbstractContextManager[None]:
        return self._replicas.exchange({name: getattr(self, name) for name in self._agreed})

    def _accepted(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch that was checked; what autograd could not keep, in memory of its own."""
        self._check_call(images, labels)
        images, labels = (t.clone() if t.is_inference() else t for t in (images, labels))
        return images, labels

    def _notice_changes(self) -> None:
        """After another head, say: what was learned about the model before no longer counts.

        Raises:
            ValueError: the model or the optimizer can no longer be trained.
        """
        roots = self.model, self.criterion, self.optimizer
        replaced = self._watch.replaced(*roots)
        if not replaced and not self._watch.asks_otherwise():
            return
        if replaced:
            self._replicas.check_unchanged()
            if self.needs_dual_norms:
                checks.check_dual(self.name, self.model)
        checks.check_optimizer(self.optimizer, self.model, self.criterion)
        self._watch = Watch(*roots)
        if replaced:
            self._classes = None
            self._seen.clear()

    def _check_call(self, images: Tensor, labels: Tensor) -> None:
        """Refuse what can be seen without running the model."""
        checks.check_gradients()
        checks.check_training(self.model)
        checks.check_batch(images, labels, self.model, self.units, autocast=self.amp is not None)
        checks.check_generator(self.generator, images.device)
        if self._checks_values(images):
            checks.check_values(images, self.units)
            self._notice_changes()  # another head has other classes
            checks.check_labels(labels, self._classes)

    @contextlib.contextmanager
    def _refusing(self, images: Tensor) -> Iterator[None]:
        """Whatever is refused at the first batch of a shape, nothing has changed."""
        if not self._checks_values(images):  # else its call did
            self._notice_changes()
        if images.shape in self._seen:
            yield
            return
        modules = [m for m in (self.model, self.criterion) if m is not None]
        # A synchronised norm would wait for processes whose batch is larger, and sees their rows.
        alone = world_size() == 1 or not any(map(_is_synchronised, self.model.modules()))
        undo = snapshot(modules, self.optimizer, self.generator, images.device, self, self._carried)
        self._new_shape = True
        try:
            for target, reason in self._single_rows(len(images)) if alone else ():
                self._try_single_row(images[:1], target, reason)
                undo()
            # Only a forward tells the classes, and whether the model takes images of a new shape.
            yield
        except BaseException:
            undo()
            raise
        finally:
            self._new_shape = False
        self._seen.add(images.shape)


def _is_synchronised(module: nn.Module) -> bool:
    return isinstance(module, nn.SyncBatchNorm)
