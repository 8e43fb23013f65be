"""Define what is timed: op, layout, dtype and shape, with the target that it has to reach."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from bench.ops.contenders import FORMATS, Place, gather, loss, one_group, perturb, two_groups
from bench.ops.convolution import convolution
from bench.timing import Contender

NORM_SHAPES = (
    (128, 32, 32, 32),
    (128, 160, 32, 32),
    (26, 640, 8, 8),
    (128, 64, 32, 32),
    (64, 256, 14, 14),
    (32, 512, 7, 7),
)
LOSS_SHAPES = ((128, 100), (256, 1000))
SMALL = (128, 3, 32, 32)
# Several times any second-level cache, for the share of the copy bandwidth: a large one, and one of
# ResNet-50's 64 channels, of which fewer programs run.
CUDA_NORM_SHAPES = (*NORM_SHAPES, (256, 256, 56, 56), (128, 64, 112, 112))
# WRN-16-2's, and its auxiliary pass's.
CONVOLUTION_SHAPES = ((128, 32, 32, 32), (128, 64, 16, 16), (128, 128, 8, 8), (26, 64, 16, 16))
# Eager's page faults decide the ratio at 224 px: two batch sizes, not the kinder one.
LARGE = ((64, 3, 224, 224), (256, 3, 224, 224))
# (op, layout) to the ratio over eager aimed at; conv3x3 has none.
CPU_TARGETS = {
    ("norm", "channels_last"): 1.85,
    ("two groups", "channels_last"): 3.0,
    ("norm + add", "channels_last"): 1.7,
    ("norm", "contiguous"): 2.6,
    ("two groups", "contiguous"): 3.7,
    ("norm + add", "contiguous"): 2.1,
    ("loss, ops", "contiguous"): 5.0,
    ("loss, autograd", "contiguous"): 5.0,
    ("perturb_ 32 px", "contiguous"): 7.0,
    ("perturb_ 224 px", "contiguous"): 25.0,
    ("gather_perturb", "contiguous"): 7.0,
}
# On a GPU the loss alone has one; `bench.ops.targets` has the others.
CUDA_TARGETS = {("loss, ops", "contiguous"): 5.0, ("loss, autograd", "contiguous"): 5.0}


@dataclass(frozen=True)
class Case:
    """Hold one line of the table; those of one `op`, `layout` and `dtype` share a target."""

    op: str
    layout: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    target: float | None  # None: none was set
    bytes_moved: int  # the least that ours has to read and write
    contenders: Callable[[], dict[str, Contender]]

    @property
    def name(self) -> str:
        shape, dtype = "x".join(map(str, self.shape)), str(self.dtype).removeprefix("torch.")
        return f"{self.op}-{self.layout}-{dtype}-{shape}"


def devices() -> list[str]:
    """Return the device types of this machine."""
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def cases(device: str) -> Iterator[Case]:
    """List the lines of a device's table: as a step has them, float32, on CUDA bfloat16 norms."""
    targets = CPU_TARGETS if device == "cpu" else CUDA_TARGETS

    def case(
        place: Place,
        op: str,
        layout: str,
        shape: tuple[int, ...],
        passes: float,
        contenders: Callable[..., dict[str, Contender]],
    ) -> Case:
        """Make a case; `passes`: how often the whole tensor has to move."""
        moved = round(passes * torch.Size(shape).numel() * place.dtype.itemsize)
        build = partial(contenders, place=place)
        return Case(op, layout, shape, place.dtype, targets.get((op, layout)), moved, build)

    norms = Place(device, torch.float32 if device == "cpu" else torch.bfloat16)
    places = [(layout, norms) for layout in FORMATS]
    if device == "cuda":  # cuDNN's norm in NHWC and apex's take no bfloat16
        places.append(("channels_last", Place(device, torch.float16)))
    for layout, place in places:
        for shape in NORM_SHAPES if device == "cpu" else CUDA_NORM_SHAPES:
            norm, both = partial(one_group, shape, layout), partial(two_groups, shape, layout)
            yield case(place, "norm", layout, shape, 8, partial(norm, residual=False))
            yield case(place, "two groups", layout, shape, 8, both)
            yield case(place, "norm + add", layout, shape, 10, partial(norm, residual=True))
    others, flat = Place(device, torch.float32), "contiguous"
    for size in LOSS_SHAPES:
        step = partial(loss, size)
        yield case(others, "loss, ops", flat, size, 2, partial(step, autograd=False))
        yield case(others, "loss, autograd", flat, size, 2, partial(step, autograd=True))
    for images in (SMALL, *LARGE):
        yield case(
            others, f"perturb_ {images[2]} px", flat, images, 4 / 5, partial(perturb, images)
        )
    yield case(others, "gather_perturb", flat, SMALL, 3 / 5, partial(gather, SMALL))
    if device == "cpu":  # the kernel is the CPU's alone
        for shape in CONVOLUTION_SHAPES:
            passes = partial(convolution, shape)
            yield case(others, "conv3x3", "channels_last", shape, 6, passes)
