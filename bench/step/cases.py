"""Define what is timed: networks, batches and EntProp's k and n."""

from bench.step import contenders as c
from bench.step.contenders import Contender, Setting

K_AND_N = ((0.2, 1), (0.6, 1), (0.2, 5), (0.6, 5))
# arch -> (batch, pixels, classes); the paper's CIFAR-100 and ImageNet sizes.
ON_CUDA = {
    "wrn16_4": (128, 32, 100),
    "wrn28_10": (128, 32, 100),
    "resnet18": (128, 32, 100),
    "resnet50": (64, 224, 1000),
}
# One core: small batches of the large networks.
ON_CPU = {
    "wrn16_2": (128, 32, 100),
    "wrn28_10": (4, 32, 100),
    "resnet18": (16, 32, 100),
    "resnet50": (8, 96, 1000),
}
CPU_TARGET_ARCH = "wrn16_2"
COMPILES = {"cpu": CPU_TARGET_ARCH, "cuda": "wrn28_10"}
# Rounds there by (k, n), most where a target is set. `make bench` has 15 minutes on a CPU.
CPU_ROUNDS = {(0.2, 1): 9, (0.6, 5): 5}
FEW_ROUNDS = 3
FEWEST_ROUNDS = 2  # of the large networks
CUDA_ROUNDS = 12
# The large networks' rows on a CPU: the ends of the paper's range, and fewer contenders.
CPU_ENDS = ((0.2, 1), (0.6, 5))
CPU_FEW = (c.VANILLA, c.VANILLA_CHANNELS_LAST, c.REFERENCE, c.OURS_VANILLA, c.OURS)


def settings(device: str) -> list[Setting]:
    """Return every setting of the table on a device; the target network's come first."""
    if device == "cuda":
        return [_setting(arch, k, n, device) for arch in ON_CUDA for k, n in K_AND_N]
    return [
        _setting(arch, k, n, device)
        for arch in ON_CPU
        for k, n in (K_AND_N if arch == CPU_TARGET_ARCH else CPU_ENDS)
    ]


def _setting(arch: str, k: float, n: int, device: str) -> Setting:
    return Setting(arch, *(ON_CUDA if device == "cuda" else ON_CPU)[arch], k=k, n=n, device=device)


def rounds(setting: Setting) -> int:
    """Return how often every contender takes its turn at a setting."""
    if setting.device == "cuda":
        return CUDA_ROUNDS
    if setting.arch != CPU_TARGET_ARCH:
        return FEWEST_ROUNDS
    return CPU_ROUNDS.get((setting.k, setting.n), FEW_ROUNDS)


def contenders(setting: Setting) -> list[Contender]:
    """Return who runs there; the first of them is the one that costs are counted in.

    Capture needs CUDA, and compiling takes a minute, so one setting has it. What is pipelined has
    one auxiliary pass.
    """
    device = setting.device
    left_out = set() if device == "cuda" else {c.CAPTURED}
    if setting.n > 1:
        left_out |= {c.PIPELINED, c.PIPELINED_REFERENCE}
    if (setting.arch, setting.k, setting.n) != (COMPILES[device], *K_AND_N[0]):
        left_out.add(c.COMPILED)
    return [
        contender
        for contender in c.CONTENDERS
        if contender.name not in left_out
        and (device == "cuda" or setting.arch == CPU_TARGET_ARCH or contender.name in CPU_FEW)
    ]
