"""Let several processes compute what one would on the whole batch: ``ranks="exact"``."""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from entprop_fast.layers.recognition import is_frozen_class
from entprop_fast.layers.synchronised import is_synchronised_norm
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.parallel.agreement import Agreement
from entprop_fast.parallel.dealt_rows import DealtRows
from entprop_fast.parallel.rows import world_size
from entprop_fast.torch_internals import BatchNormBase, buffers_of

# Options that may differ.
OF_EACH_PROCESS = ("generator", "criterion", "check", "capture", "cudnn_benchmark")
_WAY_OUT = (
    "give each process a torch.Generator(device) seeded alike, as generator.manual_seed(0), which "
    "nothing else draws from"
)


_NONE = DealtRows(0)


@dataclass
class Dealt:
    """Hold how the rows of a step are dealt out over the processes.

    One for a method, renewed at each call: capture compares a method's attributes by identity.

    Attributes:
        batch: its rows.
        waiting: rows that a step left to this one.
        labels: one that stands for those of all processes, the largest; None where each checks its
            own.
    """

    batch: DealtRows = _NONE
    waiting: DealtRows = _NONE
    labels: Tensor | None = None

    def deal(
        self,
        agreement: Agreement,
        batch: tuple[Tensor, Tensor],
        options: CommonOptions,
        name: str,
        *,
        waiting: int,
        read_labels: bool,
    ) -> None:
        """Deal the rows of a step; with other processes, agree on that.

        No host waits for a device.

        Args:
            agreement: of the method.
            batch: images and labels of this process.
            options: of the method.
            name: of the method.
            waiting: rows that a step left to this one, in this process.
            read_labels: labels may be read, which synchronises a GPU.

        Raises:
            ValueError: rows are not dealt out one at a time, there are none, or the processes have
                generators, options or images that differ.
        """
        images, labels = batch
        self.batch, self.waiting, self.labels = DealtRows(len(labels)), DealtRows(waiting), None
        if not is_exact(options):
            return
        largest = int(labels.max()) if read_labels and len(labels) else 0
        alike = {k: v for k, v in vars(options).items() if k not in OF_EACH_PROCESS}
        assert options.generator is not None
        told = agreement.agree(
            f"a step of {name} with ranks='exact'",
            (alike, images.dtype, tuple(images.shape[1:])),
            (len(labels), waiting, _digest(options.generator), largest),
        )
        held, left, digests, found = (list(numbers) for numbers in zip(*told, strict=True))
        _check_alike(digests)
        self.batch, self.waiting = _dealt("images", held), _dealt("rows that wait", left)
        self.labels = torch.tensor([max(found)]) if read_labels else None


def is_exact(options: CommonOptions) -> bool:
    """Return whether several processes compute as one."""
    return options.ranks == "exact" and world_size() > 1


def check_exact(
    agreement: Agreement, model: nn.Module, options: CommonOptions, *, wrapped: bool
) -> None:
    """Refuse what several processes could not compute as one does, in all of them.

    Args:
        agreement: of the method.
        model: without its wrapper.
        options: of the method.
        wrapped: `model` came in a `DistributedDataParallel`, or after `fully_shard`.

    Raises:
        ValueError: no wrapper, no generator or not all in the same state, or norms whose statistics
            are those of one process's rows.
    """
    if not is_exact(options):
        return
    with agreement.call(1):
        _check_settings(model, options, wrapped)
        assert options.generator is not None
        told = agreement.agree("a method of ranks='exact'", (), (_digest(options.generator),))
        _check_alike([digest for (digest,) in told])


def check_unchanged(options: CommonOptions, *, exact: bool) -> None:
    """Refuse another value of `ranks` than the method was made with.

    Raises:
        ValueError: says so.
    """
    if is_exact(options) != exact:
        raise ValueError(
            f"ranks={options.ranks!r} was set after the method was made: make another with it"
        )


def _check_settings(model: nn.Module, options: CommonOptions, wrapped: bool) -> None:
    if not wrapped:
        raise ValueError(
            "ranks='exact' adds up the gradients of all processes: pass the model in a "
            "DistributedDataParallel or after fully_shard(model), or use ranks='independent'"
        )
    if options.generator is None:
        raise ValueError(f"generator=None with ranks='exact', which draws once for all: {_WAY_OUT}")
    check_norms(model, options)


def check_norms(model: nn.Module, options: CommonOptions) -> None:
    """Refuse norms whose statistics would be those of one process's rows, where all count.

    Raises:
        ValueError: names one, and what to call.
    """
    if not is_exact(options):
        return
    for name, module in model.named_modules():
        if _keeps_to_itself(module):
            raise ValueError(
                f"ranks='exact' with model.{name}, a {type(module).__name__} whose statistics are "
                "of one process's rows: call entprop_fast.synchronise_norms(model) before "
                "DistributedDataParallel(model), freeze it (eval()), or use ranks='independent'"
            )


def _keeps_to_itself(module: nn.Module) -> bool:
    if is_synchronised_norm(module) or is_frozen_class(module):
        return False
    moves = buffers_of(module).get("running_mean") is not None
    return module.training and (isinstance(module, BatchNormBase) or moves)


def is_alike(error: Exception) -> bool:
    """Return whether the passes of all processes end in this error, at the same place.

    What methods refuse amid their passes is said of the batch of all; not so what a model does.
    """
    return isinstance(error, ValueError) and error.__cause__ is None


def _dealt(what: str, held: list[int]) -> DealtRows:
    total, world = sum(held), len(held)
    dealt = DealtRows(total, world, distributed.get_rank())
    if what == "images" and total == 0:
        raise ValueError("images: no process has any, expected [B, C, H, W], not empty")
    expected = [len(range(rank, total, world)) for rank in range(world)]
    if held != expected:
        raise ValueError(
            f"{what}: the processes hold {held}, which ranks='exact' cannot take: rows are dealt "
            f"r::world, process r has rows r, r + {world}, ... of the batch of all, {expected}"
        )
    return dealt


def _check_alike(digests: list[int]) -> None:
    if len(set(digests)) > 1:
        other = next(rank for rank, digest in enumerate(digests) if digest != digests[0])
        raise ValueError(
            f"generator: the one of process {other} is in another state than that of process 0, "
            f"and ranks='exact' draws once for all: {_WAY_OUT}"
        )


def _digest(generator: torch.Generator) -> int:
    return zlib.crc32(generator.get_state().numpy().tobytes())
