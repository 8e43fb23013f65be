"""Define what is timed: networks, batches, EntProp's k and n, and who runs there."""

from bench.step import contenders as c
from bench.step.contenders import Contender, Setting

K_AND_N = ((0.2, 1), (0.6, 1), (0.2, 5), (0.6, 5))
# arch -> (batch, pixels, classes); the paper's CIFAR-100 and ImageNet sizes.
ON_CUDA = {
    "wrn28_10": (128, 32, 100),
    "resnet18": (128, 32, 100),
    "resnet50": (128, 224, 1000),
    "wrn16_4": (128, 32, 100),
}
# One core: small batches of the large networks.
ON_CPU = {
    "wrn16_2": (128, 32, 100),
    "wrn28_10": (4, 32, 100),
    "resnet18": (16, 32, 100),
    "resnet50": (8, 96, 1000),
}
CPU_TARGET_ARCH = "wrn16_2"
# Rounds there by (k, n), most where a target is set. `make bench` has 15 minutes on a CPU.
CPU_ROUNDS = {(0.2, 1): 9, (0.6, 5): 5}
FEW_ROUNDS = 3
FEWEST_ROUNDS = 2  # of the large networks
CUDA_ROUNDS = 12
# The large networks' rows on a CPU: the ends of the paper's range, and fewer contenders.
CPU_ENDS = ((0.2, 1), (0.6, 5))
CPU_FEW = (c.VANILLA, c.VANILLA_CHANNELS_LAST, c.REFERENCE, c.OURS_VANILLA, c.OURS)

# On CUDA these two have everyone, in pieces of under three minutes each by estimate: no piece has
# run on a GPU yet. What is compared takes its turns in one piece. Max-autotune takes minutes more.
IN_FULL = ("wrn28_10", "resnet18")
LAYOUTS, COMPILED = "layouts", "compiled"
CUDA_FULL = (
    *(*c.EAGER_VANILLA, *c.CAPTURED_VANILLA, c.REFERENCE),
    *(c.REFERENCE_CAPTURED, c.REFERENCE_CAPTURED_CHANNELS_LAST, c.OURS_VANILLA_CAPTURED),
    *(c.OURS, c.CAPTURED, c.PIPELINED, c.PIPELINED_CAPTURED),
)
CUDA_LAYOUTS = (
    *(*c.EAGER_VANILLA, *c.CAPTURED_VANILLA, c.REFERENCE_CHANNELS_LAST, c.OURS_VANILLA),
    *(c.OURS_CONTIGUOUS, c.CAPTURED, c.CAPTURED_CONTIGUOUS, c.PIPELINED_REFERENCE),
    *(c.PIPELINED_CONTIGUOUS, c.PIPELINED_CAPTURED_CONTIGUOUS),
)
COMPILED_ONES = (
    *(c.VANILLA_COMPILED, c.VANILLA_COMPILED_CHANNELS_LAST, c.VANILLA_COMPILED_CAPTURED),
    *(c.COMPILED, c.COMPILED_CAPTURED),
)
BESIDE_COMPILED = (*c.CAPTURED_VANILLA, c.CAPTURED, c.PIPELINED_CAPTURED)
CUDA_FEW = (
    *(*c.EAGER_VANILLA, *c.CAPTURED_VANILLA, c.REFERENCE, c.REFERENCE_CAPTURED),
    *(c.OURS_VANILLA, c.OURS_VANILLA_CAPTURED, c.OURS, c.CAPTURED, c.PIPELINED_CAPTURED),
)
# Each holds some 13 GB of ResNet-50's activations at once. Those that give no time are let go.
CUDA_LARGE = (*c.CAPTURED_VANILLA, c.VANILLA_CHANNELS_LAST, c.CAPTURED, c.PIPELINED_CAPTURED)
ONE_PASS_AUXILIARY = {name for name in c.BY_NAME if "pipelined" in name}


def settings(device: str) -> list[Setting]:
    """Return every setting of the table on a device; those with targets come first."""
    if device != "cuda":
        return [
            _setting(arch, k, n, device)
            for arch in ON_CPU
            for k, n in (K_AND_N if arch == CPU_TARGET_ARCH else CPU_ENDS)
        ]
    k, n = K_AND_N[0]
    return [
        *(_setting(arch, k, n, device) for arch in ON_CUDA),
        *(_setting(arch, k, n, device, piece) for piece in (LAYOUTS, COMPILED) for arch in IN_FULL),
        *(_setting(arch, k, n, device) for k, n in reversed(K_AND_N[1:]) for arch in ON_CUDA),
    ]


def _setting(arch: str, k: float, n: int, device: str, piece: str = "") -> Setting:
    sizes = (ON_CUDA if device == "cuda" else ON_CPU)[arch]
    return Setting(arch, *sizes, k=k, n=n, device=device, piece=piece)


def at_once(setting: Setting) -> bool:
    """Return whether all take their first steps at the same time.

    On CUDA each has the device to itself while cuDNN tries its algorithms; compiling takes too long
    for that, so that Inductor's and cuDNN's choices there are made beside each other.
    """
    return setting.device != "cuda" or setting.piece == COMPILED


def rounds(setting: Setting) -> int:
    """Return how often every contender takes its turn at a setting."""
    if setting.device == "cuda":
        return CUDA_ROUNDS
    if setting.arch != CPU_TARGET_ARCH:
        return FEWEST_ROUNDS
    return CPU_ROUNDS.get((setting.k, setting.n), FEW_ROUNDS)


def contenders(setting: Setting) -> list[Contender]:
    """Return who takes turns there, in the table's order."""
    names = _on_cuda(setting) if setting.device == "cuda" else _on_cpu(setting)
    if setting.n > 1:  # what is pipelined has one auxiliary pass
        names -= ONE_PASS_AUXILIARY
    return [one for one in c.CONTENDERS if one.name in names]


def _on_cuda(setting: Setting) -> set[str]:
    if setting.piece == COMPILED:
        return {*COMPILED_ONES, *BESIDE_COMPILED}
    if setting.piece == LAYOUTS:
        return set(CUDA_LAYOUTS)
    if setting.arch == "resnet50":
        return set(CUDA_LARGE)
    if setting.arch in IN_FULL and (setting.k, setting.n) == K_AND_N[0]:
        return set(CUDA_FULL)
    naive = {c.NAIVE} if (setting.k, setting.n) == K_AND_N[-1] else set()
    return {*CUDA_FEW, *naive}


def _on_cpu(setting: Setting) -> set[str]:
    """Return all that needs no graph; compiling takes a minute, so one setting has it."""
    if setting.arch != CPU_TARGET_ARCH:
        return set(CPU_FEW)
    names = {c.VANILLA, c.VANILLA_CHANNELS_LAST, c.REFERENCE, c.REFERENCE_CHANNELS_LAST, c.NAIVE}
    names |= {c.OURS_VANILLA, c.OURS, c.PIPELINED_REFERENCE, c.PIPELINED}
    return names | {c.COMPILED} if (setting.k, setting.n) == K_AND_N[0] else names
