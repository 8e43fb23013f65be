"""Wrap a step's passes into an optimiser step: checks before it, capture around it."""

import abc
import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NoReturn

import torch
from torch import Tensor, nn

from entprop_fast.capture import StepCapture
from entprop_fast.layers.routing import Target
from entprop_fast.layers.synchronised import is_synchronised
from entprop_fast.methods import batch_checks, copies, exact_ranks, model_checks
from entprop_fast.methods.common_options import describe
from entprop_fast.methods.image_units import ImageUnits
from entprop_fast.methods.method_state import MethodState
from entprop_fast.methods.model_checks import AcceptedModules
from entprop_fast.methods.passes import StepResult
from entprop_fast.methods.running import StepRunner
from entprop_fast.methods.snapshot import snapshot
from entprop_fast.options import create
from entprop_fast.parallel.agreement import Agreement
from entprop_fast.parallel.alone import Alone
from entprop_fast.parallel.rows import world_size
from entprop_fast.parallel.wrapping import unwrap


class Method(MethodState, StepRunner):
    """Train one way: calling it with a batch runs one optimiser step.

    A subclass has a `name`, its `Options` and its passes. Each option is an attribute of the
    method, too, resolved where None leaves it to others; setting one checks it. ``copy.deepcopy``
    and ``pickle`` of a method, alone or together with its model and optimizer, give one that goes
    on as the original would and captures anew. Each pass runs on memory of its own, so that a model
    may write into its input.

    Raises:
        TypeError, ValueError: an option, the model or the optimizer is not usable; the message
            names it and what is valid.

    Attributes:
        options: as they were given, or their defaults.
        rows: rows that went through a forward and a backward pass so far, the cost of training.
        selected_index: rows that the last step chose to perturb, int64 [m]; None for all or none.
        perturbed: their images after the last perturbation, [m, C, H, W], or None. A replayed step
            overwrites both: clone what is to be kept.
        captures: how many steps were replays, why none are, and how to drop what was captured.
    """

    needs_dual_norms: bool = False
    # Attributes that a step leaves to the next one, which a refused call puts back; numbers among
    # them that decide which tensors a step reads, so that a captured one belongs to their values.
    _step_state: ClassVar[tuple[str, ...]] = ("rows",)
    _graph_key: ClassVar[tuple[str, ...]] = ()

    criterion: nn.Module | None
    generator: torch.Generator | None
    capture: Literal["auto", "on", "off"]
    cudnn_benchmark: bool

    def __init_subclass__(cls) -> None:
        describe(cls, cls.Options)

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> None:
        model_checks.check_kind("model", model, nn.Module)
        model_checks.check_kind("optimizer", optimizer, torch.optim.Optimizer)
        o = self.options = create(self.Options, options, owner=f"method {self.name!r}")
        self._prepare(model)
        self._agreement, self._dealt = Agreement(), exact_ranks.Dealt()
        mean = not exact_ranks.is_exact(o)
        self.model, self._replicas = unwrap(model, o.criterion, self._agreement, mean=mean)
        self.optimizer = optimizer
        self.units = ImageUnits(o.input_range, o.normalization)
        model_checks.check_training(self.model)
        if self.needs_dual_norms:
            model_checks.check_dual(self.name, self.model)
        model_checks.check_optimizer(optimizer, self.model, o.criterion)
        device = next((parameter.device for parameter in model.parameters()), None)
        batch_checks.check_generator(o.generator, device)
        self.rows, self._new_shape = 0, False
        self.selected_index: Tensor | None = None
        self.perturbed: Tensor | None = None
        self._classes: int | None = None  # known after the first forward
        self._seen: set[torch.Size] = set()  # shapes of the batches accepted so far
        self._accepted_modules = AcceptedModules(self.model, o.criterion, optimizer)
        self.captures = StepCapture(self)
        self.captures.check()
        wrapped = not isinstance(self._replicas, Alone)
        exact_ranks.check_exact(self._agreement, self.model, o, wrapped=wrapped)

    def __call__(self, images: Tensor, labels: Tensor) -> StepResult:
        """Run one optimiser step: discard old gradients, `backward`, clip, step.

        Args:
            images: [B, C, H, W], floating, in the model's dtype, within `input_range` (after
                `normalization`); [views * B, C, H, W] where `views` is not 1. Neither modified nor
                left with a gradient.
            labels: [B], int64, in [0, classes).

        Raises:
            TypeError, ValueError: the batch cannot be used; nothing has changed.
            RuntimeError: ``capture="on"`` and the step cannot be captured, or processes whose
                gradients are of different parameters; it was not taken.
        """
        with self._agreement.call(self._agreements()):
            self._replicas.ready(step=True)
            return self.captures(*self._accepted(images, labels))

    def backward(self, images: Tensor, labels: Tensor, *, weight: float = 1.0) -> StepResult:
        """Do everything but the optimiser's step: add this batch's gradients to `.grad`.

        For gradient accumulation and training loops of others, in the place of their
        ``loss.backward()``; see `StepResult`. Clearing the gradients, clipping and stepping are the
        caller's. Further errors are those of calling the method.

        Args:
            images: see calling the method.
            labels: see calling the method.
            weight: of the batch's gradients, above 0; ``1 / N`` where N batches make one optimiser
                step, for the gradient of their mean loss. The result and the rows that are
                selected and perturbed do not depend on it.

        Raises:
            ValueError, TypeError: `weight` is no number above 0.
        """
        with self._agreement.call(self._agreements()):
            self._replicas.ready(step=False)
            batch_checks.check_weight(weight)
            return self.captures.backward(*self._accepted(images, labels), float(weight))

    @property
    def views(self) -> int:
        """Return how many views of each row a batch has: 3 with the option `jsd`, else 1.

        Images are then [views * B, C, H, W], labels [B]: the B rows as they are, an augmented view
        of each, then another. Methods never augment.
        """
        return 3 if getattr(self.options, "jsd", 0.0) else 1

    def main_rows(self, batch: int) -> int:
        """Return how many rows the main pass has, of which `StepResult.correct` is a part."""
        return batch

    @property
    def last_batch(self) -> tuple[int, int]:
        """Return the rows by which the last batch's losses are divided, and its own main rows.

        With ``ranks="exact"`` the former are those of all processes, and the losses their shares.
        """
        batch = self._dealt.batch
        return batch.total, batch.first(self.main_rows(batch.total)).held

    def rows_of_all(self, rows: Tensor) -> Tensor:
        """Return the rows that `selected_index` numbers, of the last batch's own rows [B, ...].

        With ``ranks="exact"`` those of all processes, which call this together.
        """
        return self._dealt.batch.gather(rows)

    @abc.abstractmethod
    def cost(self, batch: int) -> float:
        """Return rows through the network per row of a batch of that many; plain training is 1."""

    def _prepare(self, model: nn.Module) -> None:
        """Give the model what the options ask for, or refuse it, before anything knows it."""

    def _single_rows(self, batch: int) -> Iterator[tuple[Target, str]]:
        """Yield the routes along which a batch of that size sends one single row, and why."""
        if batch * self.views == 1:
            yield "main", "a batch of B=1"

    def _accepted(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch that was checked; what autograd could not keep, in memory of its own."""
        self._check_call(images, labels)
        exact_ranks.check_unchanged(self.options, exact=not self._replicas.mean)
        waiting: int = getattr(self, "waiting", 0)
        self._dealt.deal(
            self._agreement,
            (images, labels),
            self.options,
            self.name,
            waiting=waiting,
            read_labels=self._checks_values(images),
        )
        images, labels = (t.clone() if t.is_inference() else t for t in (images, labels))
        return images, labels

    def _check_call(self, images: Tensor, labels: Tensor) -> None:
        """Refuse what can be seen without running the model."""
        o = self.options
        batch_checks.check_gradients()
        model_checks.check_training(self.model)
        autocast = o.amp is not None
        batch_checks.check_batch(
            images, labels, self.model, self.units, autocast, self._exact, self.views
        )
        batch_checks.check_generator(o.generator, images.device)
        if self._checks_values(images):
            batch_checks.check_values(images, self.units)
            self._notice_changes()  # another head has other classes
            batch_checks.check_labels(labels, self._classes)

    def _notice_changes(self) -> None:
        """Forget what was learned about the model before, where it has another head.

        Raises:
            ValueError: the model or the optimizer can no longer be trained.
        """
        roots = self.model, self.options.criterion, self.optimizer
        replaced = self._accepted_modules.replaced(*roots)
        if not replaced and not self._accepted_modules.requires_grad_changed():
            return
        if replaced:
            self._replicas.check_unchanged()
            if self.needs_dual_norms:
                model_checks.check_dual(self.name, self.model)
        model_checks.check_optimizer(self.optimizer, self.model, self.options.criterion)
        self._accepted_modules = AcceptedModules(*roots)
        if replaced:
            self._classes = None
            self._seen.clear()

    @contextlib.contextmanager
    def _refusing(self, images: Tensor) -> Iterator[None]:
        """Leave everything as it was where the first batch of a shape is refused."""
        if not self._checks_values(images):  # else its call did
            self._notice_changes()
        dealt = self._dealt.batch
        shape = torch.Size((dealt.total, *images.shape[1:]))
        if shape in self._seen:
            yield
            return
        exact_ranks.check_norms(self.model, self.options)
        # A synchronised norm would wait for processes whose batch is larger, and sees their rows.
        collective = self._replicas.collective or is_synchronised(self.model)
        alone = self._exact or world_size() == 1 or not collective
        restore = snapshot(self, self._step_state, images.device)
        self._new_shape = True
        try:
            for target, reason in self._single_rows(dealt.total) if alone else ():
                row = images[: dealt.first(1).held]
                self._network(images).try_single_row(row, target, reason)
                restore()
            # Only a forward tells the classes, and whether the model takes images of a new shape.
            yield
        except BaseException:
            restore()
            raise
        finally:
            self._new_shape = False
        self._seen.add(shape)

    def __getstate__(self) -> dict[str, Any]:
        return copies.state_for_copy(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        copies.restore_copy(self, state)
        self.captures = StepCapture(self)
        self._accepted_modules = AcceptedModules(self.model, self.criterion, self.optimizer)

    def __copy__(self) -> NoReturn:
        raise TypeError(
            f"copy.copy of a method {type(self).__name__} would share the model and half of its "
            "state: use copy.deepcopy, or create_method for a second method on the same model"
        )
