"""Mix the features of a batch at one of several places in a network, and add noise there."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.draws import draw_levels
from entprop_fast.methods.image_units import ImageUnits
from entprop_fast.methods.targets import Targets
from entprop_fast.parallel.dealt_rows import DealtRows
from entprop_fast.torch_internals import running_backward


class Noise(NamedTuple):
    """Say how strong the noise is (19).

    Attributes:
        add: of the additive one.
        mult: of the multiplicative one.
        sparsity: share of the features that get none.
    """

    add: float
    mult: float
    sparsity: float


class NoisyFeatures:
    """Do (18) and (19) to the features of one step, at the place that the device draws.

    The same operations run at every place, and change nothing at any but the chosen one: no shape
    and no kernel depends on the draw, so that a step can be captured. All places read the same
    random numbers, as only one of them counts.

    Args:
        places: the modules whose outputs can be mixed, by name; None stands for the images.
        partners: of this process's rows, as numbers in the batch of all.
        targets: of the rows, with lam.
        views: of each row.
        noise: how strong it is.
        images: of which device and dtype the draws are.
        generator: draws the place, the levels, then the noise.
    """

    def __init__(
        self,
        places: Mapping[str, nn.Module | None],
        partners: Tensor,
        targets: Targets,
        views: int,
        noise: Noise,
        images: Tensor,
        generator: torch.Generator | None,
    ) -> None:
        dealt = DealtRows(len(partners)) if targets.dealt is None else targets.dealt
        self._places, self._noise, self._views = places, noise, views
        self._dealt, self._generator, self._lam = dealt, generator, targets.lam
        device = images.device
        self._chosen = torch.randint(len(places), (), generator=generator, device=device)
        add, mult = draw_levels(2, views, images, generator)
        # Additive noise is once, twice and three times as strong in the first to third view.
        add = noise.add * add * torch.arange(1, views + 1, device=device)
        levels = torch.stack((add, noise.mult * mult)).repeat_interleave(dealt.held, dim=1)
        self._add, self._mult = levels.unbind()
        first = dealt.total * torch.arange(views, device=device)  # row of each view
        self._partners = (first[:, None] + partners).flatten()
        self._drawn: tuple[Tensor, Tensor] | None = None
        self._of_place: dict[int, tuple[Tensor, Tensor]] = {}
        self._ran: list[int] = [0] * len(places)

    def images(self, x: Tensor, units: ImageUnits) -> Tensor:
        """Return the images [views * B, C, H, W], with (18) and (19) where they are the place.

        Their noise is that of images scaled to [-1, 1], in which the networks of NoisyMix see them.
        """
        place = next((i for i, module in enumerate(self._places.values()) if module is None), None)
        if place is None:
            return x
        low, high = (bound.view(-1, 1, 1) for bound in units.bounds(x))
        return self._at(place, x, (low + high) / 2, (high - low) / 2)

    @contextlib.contextmanager
    def hooked(self, model: nn.Module) -> Iterator[None]:
        """Do the same to the outputs of the places in `model`, through hooks that end here.

        Raises:
            ValueError: at a forward: one of them does not run, or not once, or gives something
                else than the features of each row.
        """
        handles = [
            module.register_forward_hook(partial(self._hook, place, name))
            for place, (name, module) in enumerate(self._places.items())
            if module is not None
        ]
        handles.append(model.register_forward_hook(self._check_each_ran))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, place: int, name: str, module: nn.Module, _: Any, output: Any) -> Tensor:
        rows = self._views * self._dealt.held
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim < 2:
            raise ValueError(
                f"layers: {name} ({type(module).__name__}) returned no features of a row each: "
                "name others, as layers='input,layer1'"
            )
        if len(output) != rows:
            raise ValueError(
                f"layers: {name} ({type(module).__name__}) returned {len(output)} rows for "
                f"{rows} images: name others, as layers='input,layer1'"
            )
        return self._at(place, output)

    def _check_each_ran(self, *_: Any) -> None:
        if running_backward() is not None:  # a checkpoint computes again
            return
        for (name, module), ran in zip(self._places.items(), self._ran, strict=True):
            if module is not None and ran != 1:
                raise ValueError(
                    f"layers: {name} ({type(module).__name__}) ran {ran} times in a forward, "
                    "expected once (a compiled model runs no hooks): name others, as "
                    "layers='input,layer1'"
                )
        self._ran = [0] * len(self._ran)

    def _at(
        self, place: int, x: Tensor, centre: Tensor | float = 0.0, half: Tensor | float = 1.0
    ) -> Tensor:
        """Return features [views * B, ...], changed if `place` is the chosen one.

        Args:
            place: its number.
            x: the features.
            centre: which the multiplicative noise leaves alone.
            half: unit of the additive noise.
        """
        if running_backward() is None:
            self._ran[place] += 1
        assert self._lam is not None
        here = self._chosen == place
        # (18)
        lam = torch.where(here, self._lam, 1).to(x.dtype)
        among = x if self._dealt.alone else self._of_all(x)
        x = torch.lerp(_rows(among, self._partners), x, lam)
        # (19)
        if not (self._noise.add or self._noise.mult):
            return x
        normal, spread = self._noise_for(place, x)
        shape = (-1, *[1] * (x.ndim - 1))
        add, mult = ((here * level).view(shape) for level in (self._add, self._mult))
        # 1 and 0 where this is not the place, which leave the features as they are.
        deviation = mult * spread
        shift = half * add * normal - centre * deviation
        return torch.addcmul(shift.to(x.dtype), (1 + deviation).to(x.dtype), x)

    def _of_all(self, x: Tensor) -> Tensor:
        """Return the features of all processes' rows, view by view."""
        rows = x.view(self._views, self._dealt.held, *x.shape[1:]).transpose(0, 1).contiguous()
        return self._dealt.gather_with_gradient(rows).transpose(0, 1).flatten(0, 1)

    def _noise_for(self, place: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of a place: normal, and uniform in +-1; the same if asked again."""
        if place not in self._of_place:
            size = self._views * self._dealt.total * x.shape[1:].numel()
            normal, spread = (self._own(flat[:size], x) for flat in self._drawn_for(size, x))
            self._of_place[place] = normal, spread
        return self._of_place[place]

    def _drawn_for(self, size: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return at least `size` numbers of both kinds of noise, those that were drawn before."""
        if self._drawn is None or len(self._drawn[0]) < size:
            sparsity = self._noise.sparsity
            dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
            kind: dict[str, Any] = {"device": x.device, "dtype": dtype}
            normal = torch.randn(size, generator=self._generator, **kind)
            first, second = torch.rand((2, size), generator=self._generator, **kind)
            normal = reference.sparse_normal(normal, first, sparsity)
            self._drawn = normal, reference.sparse_uniform(second, sparsity)
        return self._drawn

    def _own(self, flat: Tensor, x: Tensor) -> Tensor:
        """Return this process's part of the noise, in the shape and layout of its features."""
        shape = list(x.shape[1:])
        if last := _channels_last(x):
            shape = [*shape[1:], shape[0]]
        noise = flat.view(self._views, self._dealt.total, *shape).transpose(0, 1)
        noise = self._dealt.share(noise).transpose(0, 1).flatten(0, 1)
        return noise.permute(0, 3, 1, 2) if last else noise


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Return rows in the layout of `x`; the gradient of an index on its own would be slow."""
    if _channels_last(x):
        return x.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
    return x.index_select(0, index)


def _channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
