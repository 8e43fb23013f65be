"""Train plainly: one pass, one norm."""

from dataclasses import dataclass

from torch import Tensor

from entprop_fast.methods import common_options as fields
from entprop_fast.methods.base import Method
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.network import Network
from entprop_fast.methods.passes import StepResult, only_pass
from entprop_fast.methods.targets import Targets


@dataclass(frozen=True, kw_only=True)
class VanillaOptions(CommonOptions):
    """Hold the options of `Vanilla`."""

    jsd: float = fields.jsd(0.0)


class Vanilla(Method):
    """Train plainly: the loss of the images as they are (cost 1; with `jsd` 3).

    On a model with dual norms the auxiliary halves take no part.
    """

    name = "vanilla"
    Options = VanillaOptions
    options: VanillaOptions

    def cost(self, batch: int) -> float:
        """Return 1, or the 3 of `jsd`: one pass, whatever the batch."""
        return float(self.views)

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        targets = Targets.unmixed(labels, net.dealt)
        return only_pass(net, images.detach(), targets, jsd=self.options.jsd)
