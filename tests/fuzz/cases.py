"""The places where an input comes in, and a case of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open

from entprop_fast.lab import checkpoint, data
from entprop_fast.lab.cli import command_line, compare, corrupt, evaluate, report, study, train
from entprop_fast.lab.cli import data as data_command
from entprop_fast.lab.cli import dispatch as commands
from entprop_fast.lab.cli.flags import POSITIONAL, Flag, own_flags
from entprop_fast.lab.experiments.comparison.plan import finished_summary
from entprop_fast.lab.experiments.one_run import Run
from entprop_fast.lab.training import recipe, run_folder
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.engine import rehearse
from entprop_fast.lab.training.errors import bad_input
from entprop_fast.lab.training.load_network import load_network
from entprop_fast.methods import METHODS
from entprop_fast.models.weights import load_weights

from . import wild
from .harness import Case, Sandbox

# A valid value of each flag, small enough to be trained; what lasts long is no fault of a command.
_USUAL = {
    "--arch": ("wrn10_0.5", "wrn10_0.01"),
    "--dataset": ("digits",),
    "--method": tuple(METHODS),
    "--methods": tuple(METHODS),
    "--recipe": ("digits",),
    "--score": ("entropy", "margin"),
    "--device": ("cpu",),
    "--corruptions": ("none", "digits"),
    "--seeds": ("0", "1"),
    "--train-size": ("40",),
    "--batch-size": ("20",),
}
_LONG = ("--epochs", "--n", "--replays", "--pgd", "--seeds", "--train-size", "--jobs", "--workers")
_SMALL = ("--epochs", "1", "--train-size", "40", "--batch-size", "20", "--threads", "1")
_FILES = ("checkpoint.pt", "checkpoint.pt", "model.safetensors", "config.toml", "summary.json")
_COMMANDS: dict[str, Any] = {
    **{"train": train, "compare": compare, "evaluate": evaluate, "corrupt": corrupt},
    **{"study": study, "report": report, "data": data_command, "all": commands},
}


def words_of_command(draw: Random, sandbox: Sandbox) -> Case:
    """Words after a command, one or several of which are wild."""
    name = draw.choice(tuple(_COMMANDS))
    command, out = _COMMANDS[name], ["--out", str(sandbox.out), "--device", "cpu"]
    words = {
        "train": [*_SMALL, *out],
        "compare": [*out, *_SMALL, "--methods", "vanilla"],
        "study": [*out, draw.choice(("score", "ratio", "steps", wild.text(draw)))],
        "corrupt": [*out, "--dataset", wild.text(draw, "digits"), "--kinds", wild.text(draw)],
        "data": ["check", wild.text(draw, str(sandbox.images))],
        "report": ["--out", str(sandbox.out / "page.html"), wild.text(draw, str(sandbox.finished))],
        "evaluate": [wild.text(draw, str(sandbox.finished))],
        "all": [],
    }[name]
    if name == "report":
        sandbox.out.mkdir()
    optional = [] if name == "all" else [one.typed for one in _flags(command)]
    for _ in range(draw.randrange(1, 4)):
        flag = draw.choice((*optional, wild.text(draw)) if optional else (wild.text(draw),))
        if flag in ("--out", "--cache"):  # where the user wants it to write
            continue
        words.append(flag)
        if draw.random() < 0.9:
            words.append(_word(flag, draw))
    if draw.random() < 0.1:
        draw.shuffle(words)
        if "--out" in words:
            at = words.index("--out")
            words[at : at + 2] = ["--out", str(sandbox.out)]
    return lambda: command.main(words)


def _flags(command: Any) -> list[Flag]:
    known = [*own_flags(command._Flags), *command._more_flags()]
    return [one for one in known if one.about.group != POSITIONAL]


def _word(flag: str, draw: Random) -> str:
    if flag in _LONG:
        return draw.choice(("1", "0", "-1", "x", "", "1.5", str(2**40), str(10**30)))
    if flag in _USUAL and draw.random() < 0.6:
        return draw.choice(_USUAL[flag])
    return str(wild.number(draw)) if draw.random() < 0.5 else wild.text(draw)


def a_recipe(draw: Random, sandbox: Sandbox) -> Case:
    """A TOML file that is not quite a recipe."""
    recipes = sorted((Path(recipe.__file__).parent / "recipes").glob("*.toml"))
    source = draw.choice([*recipes, sandbox.finished / run_folder.CONFIG])
    path = _edited(source.read_text().splitlines(), Path("mine.toml"), draw, damaged=0.3)
    step = draw.random() < 0.1

    def resolve() -> None:
        with bad_input():
            found = recipe.resolve(path, device="cpu", out=str(sandbox.out))
        if _is_small(found):
            rehearse(found, step=step)

    return lambda: command_line.run_command(resolve)


def _edited(lines: Sequence[str], path: Path, draw: Random, *, damaged: float = 0) -> Path:
    """Write lines that somebody edited, in that share of cases with damaged bytes."""
    text = "\n".join(wild.edited(lines, draw)).encode(errors="surrogatepass")
    path.write_bytes(wild.damaged(text, draw) if draw.random() < damaged else text)
    return path


def _checked(work: Callable[[], object]) -> Case:
    """Return a command that answers for what its input makes fail, as all do."""

    def checked() -> None:
        with bad_input():
            work()

    return lambda: command_line.run_command(checked)


def _is_small(config: Config) -> bool:
    passes = max(int(config.options.get(name, 1)) for name in ("n", "replays"))
    small = config.arch in ("wrn10_0.5", "wrn10_0.01") and config.batch_size <= 100
    return config.dataset == "digits" and small and passes <= 4


def list_files(draw: Random, sandbox: Sandbox) -> Case:
    """Lists of images and labels that somebody wrote by hand."""
    folder = Path("set")
    shutil.copytree(sandbox.images, folder)
    lines = ["a/0.png 0", "a/1.png 0", "b/0.png 1", "b/1.png 1", "b/2 .png 1"]
    for name in ("train.txt", "test.txt"):
        _edited(lines, folder / name, draw, damaged=0.2)
    if draw.random() < 0.3:
        _edited(["first", "second"], folder / "classes.txt", draw, damaged=0.2)
    if draw.random() < 0.2:
        return lambda: data_command.main(["check", str(folder)])
    return _checked(lambda: data.load("folder:set", image_size=8, say=lambda text: None))


def weights(draw: Random, sandbox: Sandbox) -> Case:
    """A file of weights with some bits flipped, cut off, or of another kind."""
    state = sandbox.network.state_dict()
    if draw.random() < 0.2:
        key = draw.choice(sorted(state))
        kinds = (torch.float64, torch.float16, torch.bool, torch.complex64)
        others = [torch.zeros(3, 0), state[key].float() * torch.nan, state[key].reshape(-1)[:1]]
        state[key] = draw.choice([*others, *(state[key].to(kind) for kind in kinds)])
    form, path = draw.random(), Path(draw.choice(("w.safetensors", "w.pth", "w")))
    if form < 0.5:
        content = safetensors.torch.save({k: v.clone().contiguous() for k, v in state.items()})
    else:
        inner = wild.changed({"state_dict": state, "epoch": 3}, draw) if form < 0.7 else state
        torch.save(inner, path, _use_new_zipfile_serialization=form < 0.9)
        content = path.read_bytes()
    path.write_bytes(wild.damaged(content, draw) if draw.random() < 0.8 else content)
    sizes = {"num_classes": 10, "in_channels": 1}
    return _checked(lambda: load_weights(sandbox.network, str(path), "wrn10_0.5", **sizes))


def run_files(draw: Random, sandbox: Sandbox) -> Case:
    """A run's folder in which somebody changed a file."""
    folder = Path(shutil.copytree(sandbox.finished, sandbox.out))
    name = draw.choice(_FILES)
    path = folder / name
    if draw.random() < 0.4:
        path.write_bytes(wild.damaged(path.read_bytes(), draw))
    elif name == "checkpoint.pt":
        checkpoint.save(folder, wild.changed(checkpoint.read(path), draw))
        (folder / "checkpoint.prev.pt").unlink(missing_ok=True)
    elif name == "model.safetensors":
        _rewrite(path, draw)
    else:
        _edited(path.read_text().splitlines(), path, draw)
    if draw.random() < 0.1:
        path.unlink()
        path.mkdir()
    if name == "model.safetensors":
        for other in ("checkpoint.pt", "checkpoint.prev.pt"):
            (folder / other).unlink(missing_ok=True)
    small = ["--corruptions", "none", "--device", "cpu", "--threads", "1"]
    if draw.random() < 0.05:
        return lambda: evaluate.main([str(folder), *small])
    if draw.random() < 0.1:
        return lambda: report.main([str(folder), *small[2:]])
    if name == "config.toml" or (name == "summary.json" and draw.random() < 0.7):
        saved = recipe.resolve(sandbox.finished / run_folder.CONFIG, out=str(folder))

        def look() -> None:
            finished_summary(Run("entprop", 0, saved))

        return lambda: command_line.run_command(look)
    if name == "summary.json" or draw.random() < 0.2:
        again = [*_SMALL, "--epochs", "2", *small, "--out", str(folder), "--resume"]
        return lambda: train.main(again)
    return _checked(lambda: load_network(folder, say=lambda text: None))


def _rewrite(path: Path, draw: Random) -> None:
    """The same tensors, under another description of the network."""
    with safe_open(path, framework="pt") as file:
        (key, said), *_ = (file.metadata() or {}).items()
    if draw.random() < 0.7:
        said = json.dumps(wild.changed(json.loads(said), draw))
    else:
        said = wild.damaged(said.encode(), draw).decode(errors="replace")
    path.write_bytes(safetensors.torch.save(safetensors.torch.load_file(path), {key: said}))


KINDS: dict[str, tuple[int, Callable[[Random, Sandbox], Case]]] = {  # share of the cases
    "command lines": (25, words_of_command),
    "recipes": (20, a_recipe),
    "list files": (15, list_files),
    "weights": (20, weights),
    "run folders": (20, run_files),
}


def case(number: int, seed: int, sandbox: Sandbox) -> tuple[str, Callable[[], Case]]:
    """Case `number` of a seed: the name of its kind, and how it is prepared."""
    draw = Random(f"{seed}-{number}")
    (name,) = draw.choices(list(KINDS), [share for share, _ in KINDS.values()])
    return name, lambda: KINDS[name][1](draw, sandbox)
