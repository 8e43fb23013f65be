"""Train a network whose parameters torch's `fully_shard` keeps in parts, one in each process."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from entprop_fast.parallel.agreement import Agreement
from entprop_fast.parallel.flat import in_one
from entprop_fast.parallel.summed import Summed
from entprop_fast.sharding import is_flat_sharded, is_sharded, is_split


def check_wrappers(name: str, root: nn.Module) -> None:
    """Refuse what splits a network otherwise, or only parts of it.

    Raises:
        ValueError: names it and what to do instead.
    """
    for place, module in root.named_modules():
        where = f"{name}.{place}" if place else name
        if is_flat_sharded(module):
            raise ValueError(
                f"{where} is a FullyShardedDataParallel, whose flat parameters a step cannot tell "
                "apart: call torch.distributed.fsdp.fully_shard on blocks and network instead"
            )
        if name == "criterion" and is_sharded(module):
            raise ValueError(
                f"{where} was given to fully_shard: pass a criterion as it is; its gradients are "
                "averaged after those of the model"
            )
        if is_sharded(module) and not is_sharded(root):
            raise ValueError(
                f"{where} was given to fully_shard and {name} was not: nobody would average the "
                f"other gradients; call fully_shard on the whole {name}, too, last"
            )


class Sharded:
    """Hold one process's part of a network, and its copy of what is not split.

    torch gathers parameters before a pass uses them, and averages what each backward pass gives,
    scattered over the processes: passes add up, and nothing of all parameters is ever held. Buffers
    and parameters that are not split are left to others: here rank 0's buffers go to all before a
    step, as under DDP, and the gradients of such parameters are averaged after it.

    Args:
        model: the root, after `fully_shard`.
        criterion: the loss of a method; it starts from rank 0's.
        agreement: of the method.
        mean: gradients are averaged over the processes; else they are summed, for losses that
            each process has divided by the rows of all.

    Raises:
        ValueError: the network is not split over all processes in a way that a step works with.
    """

    averages = False  # torch's hooks do
    several = collective = True

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module | None,
        agreement: Agreement,
        *,
        mean: bool = True,
    ) -> None:
        self._model, self._agreement = model, agreement
        self.mean, self._divisor = mean, dist.get_world_size() if mean else 1
        self._parts: list[Any] = [m for m in model.modules() if is_sharded(m)]
        self._criterion = criterion
        for part in self._parts if not mean else ():
            part.set_gradient_divide_factor(1.0)
        self._put_back()
        self._check_meshes()
        owned = [] if criterion is None else [*criterion.parameters(), *criterion.buffers()]
        whole = [*(p for p in model.parameters() if not is_split(p)), *owned]
        shapes = [(tuple(tensor.shape), tensor.dtype) for tensor in whole]
        with agreement.call(1):
            agreement.agree("the parameters that are not split", shapes)
        in_one(whole, _broadcast)
        for parameter in model.parameters():
            if is_split(parameter):
                _start_alike(parameter)
        self._named = dict(model.named_parameters())
        self._split = [p for p in self._named.values() if is_split(p) and p.requires_grad]
        self._summed = Summed()  # what is not split; torch sums a pass's own gradients
        self._stepping = self._waiting = False  # a whole step; gradients that nobody has averaged

    def ready(self, *, step: bool) -> None:
        """Leave each process its part of the parameters; a forward leaves those of the root whole.

        Args:
            step: the optimizer is to step, too.

        Raises:
            ValueError: gradients of `Method.backward` wait to be averaged with those of a batch.
        """
        self._put_back()
        self._stepping = step
        if step:
            self._summed.forget()
        if step and self._waiting:
            raise ValueError(
                "model holds gradients that were added up under set_requires_gradient_sync(False), "
                "and a step would discard them: call set_requires_gradient_sync(True) and "
                "method.backward(images, labels) once more, and step the optimizer"
            )

    def last_pass(self) -> contextlib.AbstractContextManager[None]:
        """Surround the last backward pass of a step; torch averages in each."""
        return contextlib.nullcontext()

    def check_unchanged(self) -> None:
        """Refuse a network whose parameters are no longer those that were split.

        Raises:
            ValueError: some were replaced.
        """
        now = dict(self._model.named_parameters())
        new = [n for n in {**now, **self._named} if now.get(n) is not self._named.get(n)]
        if new:
            raise ValueError(
                f"model.{new[0]} was replaced since the method was made: call fully_shard on the "
                "new model and make optimizer and method again"
            )

    @contextlib.contextmanager
    def exchange(self, alike: dict[str, object]) -> Iterator[None]:
        """Surround all passes of a step.

        Args:
            alike: has to be the same in all processes.

        Raises:
            ValueError: another process refused its batch; nothing has changed.
            RuntimeError: no gradient was averaged, for a whole step.
        """
        buffers = list(self._model.buffers())
        if self._criterion is not None:
            buffers += self._criterion.buffers()
        alike = alike | {"values in buffers": sum(map(Tensor.numel, buffers))}
        self._agreement.agree("a step", alike)
        in_one(buffers, _broadcast)
        try:
            with self._summed.once():
                yield
        except BaseException:
            # The others wait for this process in a pass, where they hear nothing.
            self._agreement.leave()
            # From torch 2.13 on; before, a forward that failed half-way leaves the model unusable.
            getattr(self._model, "reset_iter_state", self._put_back)()
            raise
        self._put_back()
        in_one((p.grad for p in self._plain() if p.grad is not None), self._average)
        if not self.mean:
            self._summed.remember(self._plain())
        self._waiting = bool(self._split) and all(p.grad is None for p in self._split)
        if self._waiting and self._stepping:
            raise RuntimeError(
                "model has set_requires_gradient_sync(False) or set_requires_all_reduce(False), "
                "and a step averages: set it to True, or add up with method.backward(images, "
                "labels) and step the optimizer yourself; the step was not taken"
            )

    def _average(self, flat: Tensor) -> None:
        dist.all_reduce(flat.div_(self._divisor))

    def _put_back(self) -> None:
        for part in self._parts:
            part.reshard()

    def _plain(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that each process has whole, those of the criterion last."""
        yield from (p for p in self._model.parameters() if not is_split(p))
        if self._criterion is not None:
            yield from self._criterion.parameters()

    def _check_meshes(self) -> None:
        """Check that processes split every parameter once, and that all hold the same rows' mean.

        Raises:
            ValueError: some other parallelism has a share in it.
        """
        named: Iterable[tuple[str, Any]] = self._model.named_parameters()
        for name, parameter in named:
            if not is_split(parameter):
                continue
            mesh, placements = parameter.device_mesh, parameter.placements
            shards = sum(placement.is_shard() for placement in placements)
            if mesh.size() != dist.get_world_size() or shards != 1:
                raise ValueError(
                    f"model.{name} lies on {mesh} as {placements}: expected a mesh of all "
                    f"{dist.get_world_size()} processes, of one dimension or of two, "
                    "(replicate, shard), and no tensor or pipeline parallelism"
                )


def _start_alike(parameter: Any) -> None:
    """Let the copies of one part of a parameter start from the first copy's, as DDP's do."""
    for place, placement in enumerate(parameter.placements):
        if placement.is_replicate():
            group = parameter.device_mesh.get_group(place)
            dist.broadcast(parameter.to_local().detach(), group=group, group_src=0)


def _broadcast(flat: Tensor) -> None:
    dist.broadcast(flat, src=0)


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> None:
    """Scale the gradients of `parameters` so that the norm of all together is at most `limit`."""
    learned = [p for p in parameters if p.grad is not None]
    kinds = [[p for p in learned if is_split(p) == split] for split in (False, True)]
    if not all(kinds):
        clip_grad_norm_(learned, limit)
        return
    norms: list[Any] = [get_total_norm([p.grad for p in k if p.grad is not None]) for k in kinds]
    total = torch.linalg.vector_norm(torch.stack([norms[0], norms[1].full_tensor()]))
    for kind in kinds:
        clip_grads_with_norm_(kind, limit, total)
