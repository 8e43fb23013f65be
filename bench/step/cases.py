"""What is timed: networks, batches and EntProp's k and n."""

from bench.step.contenders import CAPTURED, COMPILED, CONTENDERS, Contender, Setting

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
    "wrn28_10": (8, 32, 100),
    "resnet18": (16, 32, 100),
    "resnet50": (8, 96, 1000),
}


def settings(device: str) -> list[Setting]:
    """Every setting of the table on a device; the target network's comes first."""
    sizes = ON_CUDA if device == "cuda" else ON_CPU
    return [
        Setting(arch, *size, k=k, n=n, device=device)
        for arch, size in sizes.items()
        for k, n in K_AND_N
    ]


def contenders(setting: Setting) -> list[Contender]:
    """Who runs there: capture needs CUDA; compiling on the CPU takes a minute, so once a network.

    The first of them is the one that ratios are taken of.
    """
    compiles = setting.arch in ("wrn16_2", "wrn28_10") and (setting.k, setting.n) == K_AND_N[0]
    compiles = compiles and (setting.device == "cuda") == (setting.arch == "wrn28_10")
    return [
        contender
        for contender in CONTENDERS
        if not (contender.name == CAPTURED and setting.device != "cuda")
        and not (contender.name == COMPILED and not compiles)
    ]
