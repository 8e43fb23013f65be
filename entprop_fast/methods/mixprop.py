"""Train with MixProp (BMVC 2022): AdvProp with MixUp in place of the attack."""

from dataclasses import dataclass

from torch import Tensor

from entprop_fast.methods import common_options as fields
from entprop_fast.methods.base import Method
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.network import Network
from entprop_fast.methods.passes import StepResult, learn, main_pass
from entprop_fast.methods.selection import unselected
from entprop_fast.methods.targets import Targets, mixup


@dataclass(frozen=True, kw_only=True)
class MixPropOptions(CommonOptions):
    """Hold the options of `MixProp`."""

    mixup: float = fields.mixup(1.0)


class MixProp(Method):
    """Train on clean rows through the main norms, on mixed ones through the auxiliary.

    The objective is the mean of both losses. The model has dual norms (`convert_dual_norm`).
    """

    name = "mixprop"
    needs_dual_norms = True
    Options = MixPropOptions
    options: MixPropOptions

    def cost(self, batch: int) -> float:
        """Return 2: two passes, whatever the batch."""
        return 2.0

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        o = self.options
        clean = Targets.unmixed(labels, net.dealt)
        mixed, targets = mixup(images, labels, o.mixup, o.generator, net.dealt)
        # 1. The clean batch through the main norms.
        main = main_pass(net, images, clean, weight=0.5)
        # 2. The same batch, mixed by (1), through the auxiliary norms.
        with net.along("aux"):
            aux_loss = learn(net, mixed, targets, 0.5, own=targets.lam is not None, last=True)
        return StepResult(main.loss, aux_loss, main.correct, *unselected(main, clean))
