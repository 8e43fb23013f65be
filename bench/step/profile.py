"""Say where the GPU's time of a training step goes: `python -m bench.step.profile [ARCH ...]`.

EntProp as ours replays it beside captured plain training in channels_last, at k = 0.2, n = 1.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch

from bench.command import parser_of
from bench.step.cases import ON_CUDA
from bench.step.contenders import BY_NAME, CAPTURED, VANILLA_CAPTURED_CHANNELS_LAST, Setting
from bench.timing import require_cuda

STEPS = 10
SHOWN = 18
# The first that is found in a kernel's name says what it is for.
KINDS = {
    "our norms": r"^(statistics|_normalize|_reduce|_apply)",
    "our loss, selection, attack": r"_loss_and_entropy|_select_topk|perturb_rows",
    "cuDNN and native norms": r"batch_norm|bn_fw|bn_bw|batchnorm",
    "convolutions and products": r"conv|gemm|xmma|cutlass|cudnn|nvjet|wgrad|dgrad|implicit",
    "optimiser": r"multi_tensor|FusedSgd|fused_sgd|optimizer",
    "copies": r"Memcpy|copy|Memset|to_copy",
}


def kind_of(kernel: str) -> str:
    """Say what a kernel is for, by its name."""
    for kind, pattern in KINDS.items():
        if re.search(pattern, kernel):
            return kind
    return "other elementwise"


def profile(arch: str, name: str) -> None:
    """Print the kernels of one contender's step."""
    run = BY_NAME[name].build(Setting(arch, *ON_CUDA[arch], k=0.2, n=1, device="cuda"))
    for _ in range(6):
        run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(STEPS):
            run()
        end.record()
        torch.cuda.synchronize()
    microseconds: dict[str, float] = defaultdict(float)
    launches: Counter[str] = Counter()
    for event in profiler.events() or []:
        if event.device_type.name == "CUDA":
            microseconds[event.name] += event.device_time / STEPS
            launches[event.name] += 1
    of_kind: dict[str, float] = defaultdict(float)
    for kernel, time in microseconds.items():
        of_kind[kind_of(kernel)] += time
    busy, wall = sum(microseconds.values()), start.elapsed_time(end) * 1e3 / STEPS
    print(f"\n{arch}, {name}: {wall:.0f} us a step, {busy:.0f} us of kernels (profiler on)")
    for kind, time in sorted(of_kind.items(), key=lambda pair: -pair[1]):
        print(f"  {time:9.1f} us  {time / busy:4.0%}  {kind}")
    for kernel, time in sorted(microseconds.items(), key=lambda pair: -pair[1])[:SHOWN]:
        print(f"    {time:8.1f} us {launches[kernel] / STEPS:6.1f} x  {kernel[:100]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Profile the networks named on the command line."""
    usual = ("wrn28_10", "resnet18")
    parser = parser_of("bench.step.profile", __doc__, "ARCH", ON_CUDA, usual)
    architectures = parser.parse_args(arguments).names
    require_cuda()
    # Ours first: the other patches the ops away, for good.
    for name in (CAPTURED, VANILLA_CAPTURED_CHANNELS_LAST):
        for arch in architectures:
            profile(arch, name)


if __name__ == "__main__":
    main()
