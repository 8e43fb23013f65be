"""Load a trained network from what a run left, and the test images that go with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from entprop_fast.lab import checkpoint, data
from entprop_fast.lab.training import run_folder
from entprop_fast.lab.training.best_network import deployed_weights, ended
from entprop_fast.lab.training.deploy import ModelNeeded, NetworkSpec, Own, load_deployable
from entprop_fast.lab.training.own_names import DATA
from entprop_fast.methods import needs_dual_norms


def load_network(
    path: Path,
    say: Callable[[str], None] = print,
    *,
    model: Own | None = None,
    deployed: bool = False,
) -> tuple[nn.Module, NetworkSpec, bool]:
    """Load a trained network onto the CPU; return what it was trained on, too.

    Args:
        path: a run folder, its ``checkpoint.pt`` or ``best.pt``, or its ``model.safetensors``.
        say: is told when a corrupt checkpoint makes the previous one be used, and when the training
            was not whole.
        model: takes the weights, in place, where the network is one of the user's own, or makes it
            (`NetworkSpec.build`): no name out of a file is imported.
        deployed: of a folder, take ``model.safetensors`` where there is one.

    Returns:
        The network, what it was trained on, and whether its norms are dual.

    Raises:
        ValueError: corrupt, truncated, or no network of a run.
        FileNotFoundError: nothing is there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such checkpoint or run folder")
    if path.suffix == ".safetensors":
        return (*load_deployable(path, model), False)
    if path.is_dir() or path.name == checkpoint.CURRENT:
        folder = path if path.is_dir() else path.parent
        file = folder / run_folder.MODEL
        if deployed and path.is_dir() and file.exists():
            return (*load_deployable(file, model), False)
        state = checkpoint.read_newest(folder, say)
        if state is None and file.exists():
            return (*load_deployable(file, model), False)
        if state is None:
            raise ValueError(f"{folder} holds neither a checkpoint nor {run_folder.MODEL}")
    else:
        state = checkpoint.read(path)
    return _from_state(path, state, say, model)


def load_test_images(
    spec: NetworkSpec,
    dataset: str | None = None,
    *,
    data_dir: str | None = None,
    test_size: int | None = None,
    say: Callable[[str], None] = print,
) -> data.ImageSet:
    """Read the test images of a network's run, or those of another data set that fits it.

    Args:
        spec: what the network was trained on.
        dataset: another data set's name.
        data_dir: folder of its files.
        test_size: images to keep; None: as many as the run, and all of another data set.
        say: is told what takes long or is left out.

    Raises:
        ValueError: the network does not fit them, and as `entprop_fast.data.load`.
        FileNotFoundError, ImportError: as `entprop_fast.data.load`.
    """
    name = dataset or spec.dataset
    if name.startswith(DATA):
        raise ValueError(
            f"the images of {name!r} are one's own, and no code is run because a file names it: "
            "give --data MODULE:FUNCTION, or another --dataset"
        )
    images = data.load(
        name,
        data_dir=data_dir,
        seed=spec.seed,
        image_size=spec.image_size,
        test_only=True,
        test_size=test_size or (spec.test_size if name == spec.dataset else None),
        say=say,
    )
    channels = images.image_shape[0]
    if (images.num_classes, channels) != (spec.num_classes, spec.in_channels):
        raise ValueError(
            f"dataset {name!r} has {images.num_classes} classes and {channels} channels, the "
            f"network was trained for {spec.num_classes} and {spec.in_channels}"
        )
    return images


def _from_state(
    path: Path, state: dict[str, Any], say: Callable[[str], None], model: Own | None
) -> tuple[nn.Module, NetworkSpec, bool]:
    try:
        done, epochs = state["epoch"], state["config"]["epochs"]
        unfinished = not ended(state)
        spec = NetworkSpec.of(state["network"])
        method, options = state["config"]["method"], state["config"]["options"]
        built = spec.build_for(method, options, model=model)
        built.load_state_dict(deployed_weights(state))
    except (ImportError, ModelNeeded):
        raise
    except Exception as error:  # anybody may have written it
        raise ValueError(f"{path} is another version's checkpoint: {error!r}") from error
    if unfinished:
        say(f"{path} is not trained to its end: {done} of {epochs} epochs are whole")
    return built, spec, needs_dual_norms(method, options)
