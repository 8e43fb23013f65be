"""Train with NoisyMix (Erichson et al., *NoisyMix: Boosting Model Robustness*, AISTATS 2024)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast.methods import common_options as fields
from entprop_fast.methods.base import Method
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.network import Network
from entprop_fast.methods.noisy_features import Noise, NoisyFeatures
from entprop_fast.methods.passes import StepResult, only_pass
from entprop_fast.methods.stages import candidates
from entprop_fast.methods.targets import Targets, draw_mixing
from entprop_fast.options import option


@dataclass(frozen=True, kw_only=True)
class NoisyMixOptions(CommonOptions):
    """Hold the options of `NoisyMix`; the defaults are those of the authors' README."""

    jsd: float = fields.jsd(12.0)
    mixup: float = fields.mixup(
        1.0,
        help="lam ~ Beta(mixup, mixup), one for each batch, mixes the features of one place (18); "
        "0 mixes nothing, and leaves the noise.",
    )
    add_noise: float = option(
        0.5,
        "Strength of the additive noise there (19), of which a view gets a Beta(2, 5) share.",
        low=0,
    )
    mult_noise: float = option(
        0.5,
        "Strength of the multiplicative noise there (19), of which a view gets a Beta(2, 5) share.",
        low=0,
    )
    sparsity: float = option(
        0.65, "Share of the features that get no noise (19).", low=0, high=1, open_high=True
    )
    layers: str | None = option(
        None,
        "Modules whose outputs can be the place, joined by commas, where input stands for the "
        "images. Left out, it is the input and up to three stages of the network.",
    )


class NoisyMix(Method):
    """Train with NoisyMix: features mixed and made noisy at a random place, three views of a row.

    The views are held together as in AugMix (17), on top of the two-label loss of the first (2).
    `jsd=0` takes one view, which is Noisy Feature Mixup. The places are the images and, by default,
    the `stages` of the network, ``layer1`` to ``layer3`` of a ResNet; hooks that are there during a
    step alone do the mixing (cost 3; with ``jsd=0`` 1).
    """

    name = "noisymix"
    Options = NoisyMixOptions
    options: NoisyMixOptions

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> None:
        super().__init__(model, optimizer, **options)
        candidates(self.model, self.options.layers)

    def cost(self, batch: int) -> float:
        """Return 3, or 1 where `jsd` is 0: one pass, whatever the batch."""
        return float(self.views)

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        o, x = self.options, images.detach()
        of_all = net.dealt.gather(labels)
        if o.mixup:
            lam, partners = draw_mixing("mixup", o.mixup, x, of_all, o.generator, net.dealt)
        else:
            lam = x.new_ones(())
            partners = net.dealt.share(torch.arange(len(of_all), device=x.device))
        targets = Targets(labels, of_all[partners], lam, net.dealt)
        features = NoisyFeatures(
            candidates(net.model, o.layers),
            partners,
            targets,
            self.views,
            Noise(o.add_noise, o.mult_noise, o.sparsity),
            x,
            o.generator,
        )
        # (18) and (19) of the images, or of features on their way; then (2) and (17).
        x = features.images(x, self.units)
        with features.hooked(net.model):
            return only_pass(net, x, targets, jsd=o.jsd)
