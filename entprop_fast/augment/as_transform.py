"""Make a torchvision v2 transform of an augmentation; torchvision is an extra."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor, nn

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.optional import import_torchvision

_PURPOSE = "a torchvision transform"


def as_transform(augmentation: Augmentation) -> nn.Module:
    """Return an augmentation as a ``torchvision.transforms.v2.Transform``, for `v2.Compose` say.

    It takes what v2 transforms take: an image, or a sample in which the image is found by the rules
    of v2; all else, labels for example, is passed through::

        v2.Compose([v2.ToImage(), as_transform(AugMix()), v2.ToDtype(torch.float32, scale=True)])

    An image is a tensor or `tv_tensors.Image` [C, H, W] with 1 or 3 channels, uint8 or floating in
    [0, 1], or a PIL image (L or RGB); a batch [B, C, H, W] of such has draws of its own for each
    image. What comes out is of the kind that went in. Draws are taken from torch's default
    generator, which a `DataLoader` seeds in each of its workers.

    Raises:
        ImportError: torchvision is not installed.
        TypeError: `augmentation` is none; later, a sample has boxes, masks, key points or a video,
            which would have to move along.
    """
    if not isinstance(augmentation, Augmentation):
        raise TypeError(
            f"augmentation is a {type(augmentation).__name__}: expected an Augmentation, AugMix() "
            "for example"
        )
    transform: nn.Module = _transform_class()(augmentation)
    return transform


@cache
def _transform_class() -> Any:
    """Define the class once torchvision is asked for: it subclasses one of torchvision."""
    v2 = import_torchvision("transforms.v2", purpose=_PURPOSE)
    tv_tensors = import_torchvision("tv_tensors", purpose=_PURPOSE)
    to_move = (
        tv_tensors.BoundingBoxes,
        tv_tensors.KeyPoints,
        tv_tensors.Mask,
        tv_tensors.Video,
    )

    class AugmentationTransform(v2.Transform):  # type: ignore[misc, name-defined]
        def __init__(self, augmentation: Augmentation) -> None:
            super().__init__()
            self.augmentation = augmentation

        def check_inputs(self, flat_inputs: list[Any]) -> None:
            for one in flat_inputs:
                if isinstance(one, to_move):
                    raise TypeError(
                        f"{type(one).__name__} in a sample: {type(self.augmentation).__name__} "
                        "changes images alone, not what has to move along"
                    )

        def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
            if isinstance(inpt, tv_tensors.Image):
                changed = self._augmented(inpt.as_subclass(Tensor))
                return tv_tensors.wrap(changed, like=inpt)
            if isinstance(inpt, Tensor):
                return self._augmented(inpt)
            if inpt.mode not in ("L", "RGB"):  # numbers of a palette, say, are no levels
                raise ValueError(f"an image of mode {inpt.mode!r}: convert it to 'RGB', or 'L'")
            tensor = v2.functional.pil_to_tensor(inpt)
            return v2.functional.to_pil_image(self._augmented(tensor))

        def _augmented(self, images: Tensor) -> Tensor:
            if images.ndim == 3:
                return self.augmentation(images[None])[0]
            return self.augmentation(images)

        def extra_repr(self) -> str:
            return repr(self.augmentation)

        def __reduce__(self) -> Any:  # a process that is spawned makes the class anew
            return as_transform, (self.augmentation,)

    return AugmentationTransform
