"""Estimate the running statistics of both halves anew."""

import contextlib
from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.routing import route
from entprop_fast.torch_internals import BatchNormBase


def update_bn(
    loader: Iterable[Tensor | list[Tensor] | tuple[Tensor, ...]],
    model: nn.Module,
    device: int | str | torch.device | None = None,
) -> None:
    """Estimate the running statistics of every batch norm of `model` anew, those of both halves.

    For averaged weights, as `torch.optim.swa_utils.update_bn`: one pass over `loader`, each batch
    once along the main norms and once along the auxiliary ones, without gradients, every module in
    training mode; the statistics become the mean over the batches. Batch norms without an auxiliary
    half are estimated along the main norms; a plain model is estimated as it is. Afterwards
    training flags and momenta are what they were; after an error the statistics are, too.

    The auxiliary norms were trained on perturbed images: where `loader` gives none, torch's
    ``update_bn(perturbed, model)`` inside ``with route(model, "aux")`` estimates them alone.

    Args:
        loader: batches of images, or tuples or lists that begin with them.
        model: what they are given to, dual or plain.
        device: where to; None for that of the model.

    Raises:
        TypeError: a batch is none of the above.
        ValueError: `loader` is empty.
    """
    norms = [m for m in model.modules() if isinstance(m, BatchNormBase)]
    if not norms:
        return
    if device is None:
        device = next((t.device for t in chain(model.parameters(), model.buffers())), None)
    images = _images(loader, device)
    first = next(images, None)
    if first is None:
        raise ValueError("loader is empty: expected at least one batch to estimate from")
    targets = ("main", "aux") if any(isinstance(m, DualNorm) for m in model.modules()) else ()
    with _estimating(model, norms), torch.no_grad():
        for batch in chain([first], images):
            for target in targets:
                with route(model, target):  # type: ignore[arg-type]
                    model(batch.clone())  # it may write into its input
            if not targets:
                model(batch.clone())


def _images(loader: Iterable[object], device: int | str | torch.device | None) -> Iterator[Tensor]:
    for batch in loader:
        images = batch[0] if isinstance(batch, list | tuple) and batch else batch
        if not isinstance(images, Tensor):
            raise TypeError(
                f"loader gave a {type(batch).__name__}: expected a tensor of images, or a tuple or "
                "list that begins with one"
            )
        yield images if device is None else images.to(device)


@contextlib.contextmanager
def _estimating(model: nn.Module, norms: list[BatchNormBase]) -> Iterator[None]:
    """Reset the statistics and let training-mode forwards average them; on an error, undo."""
    momenta = [norm.momentum for norm in norms]
    training = [(module, module.training) for module in model.modules()]
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        model.train()
        yield
        for norm in norms:  # nothing is left reset
            norm.__dict__.pop("unestimated", None)
    except BaseException:
        for buffer, value in before:
            buffer.copy_(value)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in training:
            module.training = mode
