"""What a method refuses: models and optimizers it cannot train, batches it cannot use."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from entprop_fast.layers.routing import dual_layers
from entprop_fast.logits import logits_of
from entprop_fast.methods.image_units import ImageUnits

_FLOAT16 = (
    "float16 needs loss scaling, which synchronises every step, and an input gradient that "
    "underflows to 0 has sign 0 and perturbs nothing"
)
RANGE_TOLERANCE = 1e-5  # image units: rounding of a normalisation, not a wrong range


def check_amp(amp: object) -> None:
    """`amp` is None or "bf16".

    Raises:
        ValueError: anything else; for float16 the message says why.
    """
    if amp in ("fp16", "float16", "half", torch.float16):
        raise ValueError(f"amp={amp!r}: {_FLOAT16}; use amp='bf16' or None")
    if amp is not None and amp != "bf16":
        raise ValueError(f"amp={amp!r}: expected 'bf16' or None")


def check_training(model: nn.Module) -> None:
    """`model` is in training mode.

    Raises:
        ValueError: it is in eval mode.
    """
    if not model.training:
        raise ValueError("model is in eval mode: call model.train() first")


def check_dual(name: str, model: nn.Module) -> None:
    """`model` has the dual norms that the method `name` needs.

    Raises:
        ValueError: it has none; the message says what to call.
    """
    try:
        dual_layers(model)
    except ValueError as error:
        raise ValueError(f"method {name!r} needs dual norms: {error}") from None


def check_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, criterion: nn.Module | None
) -> None:
    """`optimizer` holds every trainable parameter of `model` and `criterion`.

    Raises:
        ValueError: it lacks some, as when it was made before the conversion; or it evaluates the
            loss by itself.
    """
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    demanded = closure is not None and closure.default is inspect.Parameter.empty
    if demanded or hasattr(optimizer, "second_step"):  # SAM and its kin, which take two
        raise _needs_closure(optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    modules = {"model": model} | ({} if criterion is None else {"criterion": criterion})
    missing = [
        f"{owner}.{name}"
        for owner, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in held
    ]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ValueError(
            f"optimizer lacks {len(missing)} trainable parameters ({shown}): make it after "
            "convert_dual_norm(model), from model.parameters(), or freeze what is not to learn "
            "(requires_grad_(False))"
        )


@contextlib.contextmanager
def closures_refused(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Say what to do about an optimizer whose step, called inside, misses its closure.

    Raises:
        ValueError: it does.
    """
    try:
        yield
    except (AssertionError, TypeError) as error:
        known = "closure", "'NoneType' object is not callable"
        if str(error) and not any(words in str(error) for words in known):
            raise  # an assertion may have no words
        raise _needs_closure(optimizer) from error


def _needs_closure(optimizer: torch.optim.Optimizer) -> ValueError:
    return ValueError(
        f"optimizer is a {type(optimizer).__name__}, whose step needs a closure or is two steps: "
        "make the method with SGD, AdamW or the like (of SAM: its base_optimizer), and take that "
        "optimizer's steps yourself around method.backward(images, labels), which takes none"
    )


def image_gradient(gradient: Tensor | None) -> Tensor:
    """Give the gradient of the images, which an attack moves them along.

    Raises:
        ValueError: there is none.
    """
    if gradient is None:
        raise ValueError(
            "model: the loss gives the images no gradient (a no_grad or a detach within?), so that "
            "nothing can be perturbed: let it through, or use vanilla, mixup or mixprop"
        )
    return gradient


def check_gradients() -> None:
    """Gradients are recorded.

    Raises:
        ValueError: `torch.no_grad` or `torch.inference_mode` holds.
    """
    if not torch.is_grad_enabled():
        raise ValueError(
            "called under torch.no_grad() or torch.inference_mode(), where nothing can be learned: "
            "call the method outside of it"
        )


def check_generator(generator: torch.Generator | None, device: torch.device | None) -> None:
    """`generator` belongs to the device of the images.

    Raises:
        ValueError: it belongs to another.
    """
    if generator is not None and device is not None and generator.device.type != device.type:
        raise ValueError(
            f"generator is on {generator.device}, the images are on {device}: make it with "
            f"torch.Generator(device={device.type!r})"
        )


def check_batch(
    images: Tensor, labels: Tensor, model: nn.Module, units: ImageUnits, *, autocast: bool
) -> None:
    """Shapes, dtypes and devices of a batch; nothing here reads a value.

    Raises:
        TypeError: not tensors.
        ValueError: one of them does not fit.
    """
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images of shape {tuple(images.shape)}: expected [B, C, H, W], not empty")
    if not images.is_floating_point():
        raise ValueError(f"images of dtype {images.dtype}: expected floating-point images")
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is not None:
        if images.device != parameter.device:
            raise ValueError(f"images are on {images.device}, the model is on {parameter.device}")
        kind = images.device.type
        if not autocast and torch.is_autocast_enabled(kind):
            if torch.get_autocast_dtype(kind) == torch.float16:
                raise ValueError(f"autocast to float16 around the call: {_FLOAT16}; use bfloat16")
            autocast = True
        if images.dtype != parameter.dtype and not autocast:
            raise ValueError(
                f"images of dtype {images.dtype}: expected the model's, {parameter.dtype}"
            )
    if units.channels not in (1, images.shape[1]):
        raise ValueError(
            f"normalization has {units.channels} channels, the images have {images.shape[1]}"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        way_out = ""
        if labels.ndim == 2 and labels.shape[1] > 1:  # as timm's Mixup and torchvision's give
            way_out = (
                "; not soft ones: let the method mix (its mixup= or cutmix=, label_smoothing=) in "
                "place of the loader, and give one-hot labels as labels.argmax(1)"
            )
        raise ValueError(
            f"labels of dtype {labels.dtype} and shape {tuple(labels.shape)}: expected int64, "
            f"({images.shape[0]},){way_out}"
        )
    if labels.device != images.device:
        raise ValueError(f"labels are on {labels.device}, the images on {images.device}")


def check_values(images: Tensor, units: ImageUnits) -> None:
    """Every image value is within the input range. Reads the images: synchronises a GPU.

    Raises:
        ValueError: some are outside, or NaN.
    """
    low, high = units.input_range
    smallest = units.to_image_units(images.detach().amin(dim=(0, 2, 3))).min().item()
    largest = units.to_image_units(images.detach().amax(dim=(0, 2, 3))).max().item()
    if not (low - RANGE_TOLERANCE <= smallest and largest <= high + RANGE_TOLERANCE):
        way_out = "pass normalization=(mean, std) if normalised"
        if units.normalization is not None:
            way_out = (
                "normalization is given; what is drawn or erased after it, as by pixel "
                "RandomErasing, leaves the range: erase before normalising (mode 'const'), clamp "
                "the images, or pass check=False"
            )
        raise ValueError(
            f"images hold values in [{smallest:g}, {largest:g}], in image units: expected them in "
            f"input_range=({low:g}, {high:g}); {way_out}"
        )


def check_labels(labels: Tensor, classes: int | None) -> None:
    """Every label is in [0, classes). Reads the labels: synchronises a GPU.

    Raises:
        ValueError: some are outside.
    """
    smallest, largest = (int(bound) for bound in labels.aminmax())
    if smallest < 0 or (classes is not None and largest >= classes):
        wrong = smallest if smallest < 0 else largest
        valid = "of 0 or more" if classes is None else f"in [0, {classes}), the model's classes"
        raise ValueError(f"labels hold {wrong}: expected labels {valid}")


def check_logits(output: object, batch: int) -> Tensor:
    """The logits [batch, classes] that a model returned, as they are or as `.logits`.

    Raises:
        ValueError: the model returned something else, or auxiliary classifiers beside them.
    """
    if not isinstance(output, Tensor):
        for name, value in _fields(output):
            if name.startswith("aux") and value is not None:
                raise ValueError(
                    f"model returned a {type(output).__name__} with {name}, which no method learns "
                    "from: switch the auxiliary classifiers off (torchvision: model.aux_logits = "
                    "False), or wrap the model in a module that returns the logits"
                )
    logits = logits_of(output, batch)
    if not logits.requires_grad:
        raise ValueError(
            "model returned logits that no gradient leads to: expected a trainable parameter, and "
            "no torch.no_grad() or .detach() between it and them"
        )
    return logits


def _fields(output: object) -> list[tuple[str, object]]:
    """The named values of a model's output: a mapping's, a named tuple's, or attributes."""
    if isinstance(output, Mapping):
        return [(str(name), value) for name, value in output.items()]
    if isinstance(output, tuple):
        return list(zip(getattr(output, "_fields", ()), output, strict=False))
    return list(getattr(output, "__dict__", {}).items())
