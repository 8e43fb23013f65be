"""Run the passes of a step between what its processes exchange, and take the optimiser's step."""

import abc
import contextlib
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from entprop_fast.layers.synchronised import is_synchronised_norm
from entprop_fast.methods import exact_ranks, model_checks
from entprop_fast.methods.network import Network, casts_kept
from entprop_fast.methods.option_attributes import OptionAttributes
from entprop_fast.methods.passes import StepResult
from entprop_fast.parallel.agreement import Agreement
from entprop_fast.parallel.alone import Alone
from entprop_fast.parallel.replicas import Replicas
from entprop_fast.parallel.rows import world_size
from entprop_fast.parallel.sharded import Sharded, clip_gradients


class StepRunner(OptionAttributes, abc.ABC):
    """Run the passes that a method consists of, on batches that were accepted.

    `apply_gradients` is public; all else serves `Method` and the capture of steps.
    """

    name: ClassVar[str]
    needs_dual_norms: bool
    _same_everywhere: ClassVar[tuple[str, ...]] = ()  # options that several processes must share

    model: nn.Module
    optimizer: torch.optim.Optimizer
    rows: int
    _agreement: Agreement
    _graph_key: ClassVar[tuple[str, ...]]
    _replicas: Alone | Replicas | Sharded
    _classes: int | None  # known after the first forward
    _new_shape: bool
    _dealt: exact_ranks.Dealt  # how the rows of this step are

    @abc.abstractmethod
    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        """Take all forward and backward passes of a step on an accepted batch."""

    def _eager_step(self, images: Tensor, labels: Tensor) -> StepResult:
        """Take one optimiser step; `entprop_fast.capture.recorded` has its other form."""
        with self._refusing(images):
            with self._exchange(images):
                self.optimizer.zero_grad(set_to_none=True)
                result = self._run_passes(images, labels)
            self.apply_gradients()
            return result

    def _eager_backward(self, images: Tensor, labels: Tensor, weight: float) -> StepResult:
        with self._refusing(images), self._exchange(images):
            return self._run_passes(images, labels, weight)

    @abc.abstractmethod
    def _refusing(self, images: Tensor) -> contextlib.AbstractContextManager[None]:
        """Leave everything as it was where the first batch of a shape is refused."""

    def apply_gradients(self) -> None:
        """Clip the gradients where `max_grad_norm` says so, and take the optimiser's step."""
        if self.options.max_grad_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            clip_gradients(parameters, self.options.max_grad_norm)
        with model_checks.closures_refused(self.optimizer):
            self.optimizer.step()

    def _run_passes(
        self,
        images: Tensor,
        labels: Tensor,
        weight: float = 1.0,
        *,
        before_backward: Callable[[Tensor], None] | None = None,
    ) -> StepResult:
        net = self._network(images)
        net.weight, net.before_backward = weight, before_backward
        casts: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        # What `fully_shard` gathers of the weights for a pass must not stay until the last one.
        device = images.device.type
        if not self._replicas.collective and (net.bf16 or torch.is_autocast_enabled(device)):
            casts = casts_kept(device)
            net.cast = [p for group in self.optimizer.param_groups for p in group["params"]]
        try:
            with casts:
                result = self._passes(net, images, labels)
        except Exception as error:
            if self._exact and not exact_ranks.is_alike(error):
                self._agreement.leave(error)
            raise
        self.rows += net.rows
        self._classes = net.classes
        return result

    def _network(self, images: Tensor) -> Network:
        o = self.options
        return Network(
            self.model,
            o.criterion,
            o.label_smoothing,
            bf16=o.amp is not None,
            dual=self.needs_dual_norms,
            dealt=self._dealt.batch,
            labels_of_all=self._dealt.labels,
            check_values=self._checks_values(images),
            new_shape=self._new_shape,
            classes=self._classes,
            overlapped=self._replicas.last_pass,
        )

    def _checks_values(self, images: Tensor) -> bool:
        check = self.options.check
        return images.device.type == "cpu" if check is None else check

    @property
    def _exact(self) -> bool:
        """Return whether several processes compute what one would on the batch of all."""
        return exact_ranks.is_exact(self.options)

    def _exchanges_rows(self) -> bool:
        """Return whether a step's passes exchange rows with other processes, once."""
        return False

    def why_not_captured(self) -> str | None:
        """Return what other processes take part in within or between the passes, or None."""
        if self._exact:
            return "ranks='exact' exchanges rows with other processes inside of the passes"
        if self._replicas.collective:
            return "fully_shard gathers the parameters in every pass: collectives are not captured"
        if world_size() == 1:
            return None
        if self._exchanges_rows():
            return "the processes exchange rows between the passes: collectives are not captured"
        for name, module in self.model.named_modules(prefix="model"):
            if is_synchronised_norm(module):
                kind = type(module).__name__
                return f"{name} is a {kind}: collectives within a pass are not captured"
        return None

    def _averages(self) -> bool:
        """Return whether gradients are exchanged between the passes and the optimiser's step."""
        return self._replicas.several

    def _agreements(self) -> int:
        """Return how often processes agree in a call: at its start, on rows, on gradients."""
        exact, rows, gradients = self._exact, self._exchanges_rows(), self._replicas.averages
        agrees = exact or rows or gradients or self._replicas.collective
        return exact + 1 + rows + gradients if agrees else 0

    def _equalizes(self) -> bool:
        """Return whether gradients are divided by the number of rows that reached them."""
        return False

    def _exchange(self, images: Tensor) -> contextlib.AbstractContextManager[None]:
        alike = {name: getattr(self, name) for name in self._same_everywhere}
        collective, speak = self._replicas.collective, self._norms_that_speak()
        if collective or speak:  # for a pass that one process alone takes it would wait
            alike |= {
                k: v for k, v in vars(self.options).items() if k not in exact_ranks.OF_EACH_PROCESS
            }
            alike["method"] = self.name
            if not self._exact:  # where some may have none of the rows that wait
                alike |= {f"{name} > 0": getattr(self, name) > 0 for name in self._graph_key}
        if speak:  # forward where they train, backward where their input learns
            alike["norms in eval mode"] = [n for n, module in speak if not module.training]
            named = self.model.named_parameters()
            alike["frozen parameters"] = [n for n, p in named if not p.requires_grad]
        if collective and self._equalizes() and not self._exact:
            # By one number, as torch has averaged already.
            alike["rows of the batch"] = len(images)
        return self._replicas.exchange(alike)

    def _norms_that_speak(self) -> list[tuple[str, nn.Module]]:
        """Return the synchronised norms, where there are several processes."""
        if not self._replicas.several:
            return []
        return [(n, one) for n, one in self.model.named_modules() if is_synchronised_norm(one)]
