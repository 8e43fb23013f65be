"""Describe a network as Hugging Face's model cards do: what was measured, and what was not."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

from entprop_fast.lab.evaluation.attacks import NO_DEFENCE
from entprop_fast.lab.publish.scores import Scores
from entprop_fast.lab.report.numbers import number
from entprop_fast.lab.report.text import markdown, markdown_table
from entprop_fast.lab.training.deploy import NetworkSpec

CARD = "README.md"
UNMEASURED = "unmeasured"
UNKNOWN = "not recorded"

_TASK = "image-classification"
_LISTED = 20  # classes that the card names

_CITATION = """\
@inproceedings{enomoto2024entprop,
  title     = {{EntProp}: High Entropy Propagation for Improving Accuracy and Robustness},
  author    = {Enomoto, Shohei},
  booktitle = {Proceedings of the Fortieth Conference on Uncertainty in Artificial Intelligence},
  series    = {Proceedings of Machine Learning Research},
  volume    = {244},
  pages     = {1257--1270},
  year      = {2024}
}"""


def model_card(spec: NetworkSpec, scores: Scores) -> str:
    """Return the card, Markdown behind a YAML front matter."""
    title = f"{spec.arch or 'A network'} trained on {spec.dataset or 'images'}"
    parts = [
        f"---\n{_front_matter(spec, scores)}\n---",
        f"# {markdown(title)}",
        _what(spec),
        "## Scores",
        _scores_table(scores),
        _how_measured(scores),
        "## Training",
        _training_table(spec, scores),
        "## Limits",
        _limits(scores),
        "## Use",
        _use(spec),
        "## Citation",
        f"```bibtex\n{_CITATION}\n```",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _what(spec: NetworkSpec) -> str:
    size = spec.preprocessing
    named = ", ".join(map(markdown, spec.classes[:_LISTED]))
    more = f", and {spec.num_classes - _LISTED:,} more" if spec.num_classes > _LISTED else ""
    inside = "" if spec.normalize == "none" else "; the network normalises them itself"
    values = f"with values in [0, 1]{inside}"
    if spec.mean:
        values = (
            f"that are normalised: their values in [0, 1], minus mean `{list(spec.mean)}`, divided "
            f"by std `{list(spec.std)}`, channel by channel; it does not do that itself"
        )
    return (
        f"An image classifier of {spec.num_classes:,} classes: {named}{more}. It takes images "
        f"`[N, {size.channels}, {size.height}, {size.width}]` {values}. It gives "
        "logits. Its norms are plain ones: what the training added to them is dropped."
    )


def _scores_table(scores: Scores) -> str:
    def shown(value: float | None) -> str:
        return UNMEASURED if value is None else f"{number(value)} %"

    source = scores.corruption_source
    rows = [
        ("score", "value", "what it is"),
        ("SA", shown(scores.sa), "accuracy on clean test images"),
        (
            "RA",
            shown(scores.ra),
            f"mean accuracy on corrupted test images{f': {source}' if source else ''}",
        ),
        ("Hscore", shown(scores.hscore), "harmonic mean of the two"),
        *(
            (f"shift {name}", shown(accuracy), "accuracy on a further test set of the same classes")
            for name, accuracy in scores.shifts.items()
        ),
        ("accuracy under attack", UNMEASURED, "of an attacker who knows the network"),
    ]
    return markdown_table(rows)


def _how_measured(scores: Scores) -> str:
    if scores.sa is None:
        return "No file of a run with scores was beside the network."
    seed = "" if scores.seed is None else f" (seed {scores.seed})"
    return f"Measured once{seed}, by the run that trained the network."


def _training_table(spec: NetworkSpec, scores: Scores) -> str:
    def shown(value: float | str | None, form: str = "") -> str:
        return UNKNOWN if value in (None, "") else format(value, form)

    rows = [
        ("what", "value"),
        ("network", shown(spec.arch)),
        ("data set", shown(spec.dataset)),
        ("method", shown(scores.method)),
        ("epochs", shown(scores.epochs)),
        ("training images", shown(scores.train_size, ",")),
        ("cost, in passes over the training images", shown(scores.cost, ".2f")),
    ]
    return markdown_table(rows)


def _limits(scores: Scores) -> str:
    lines = [
        f"{NO_DEFENCE[0].upper()}{NO_DEFENCE[1:].rstrip('.')}.",
        "The scores are those of one run on the test sets named. They say nothing about images of "
        "another kind, or about groups of people in them.",
    ]
    if scores.ra is not None:
        lines.append(
            "RA is about the corruptions named above alone. Numbers stand beside published ones "
            "only where the corrupted images are the published ones."
        )
    return "\n".join(f"- {line}" for line in lines)


def _use(spec: NetworkSpec) -> str:
    own = ", model=your_network" if spec.own else ""
    code = (
        "import entprop_fast\n\n"
        f'network, spec = entprop_fast.from_pretrained("this_folder"{own})\n'
        'image = spec.preprocessing("photo.jpg")\n'
        "print(spec.classes[network(image[None]).argmax()])"
    )
    return f"```python\n{code}\n```"


def _front_matter(spec: NetworkSpec, scores: Scores) -> str:
    """Return the YAML that Hugging Face reads, by its own library where that is installed."""
    data: dict[str, Any] = {
        "library_name": "timm" if spec.arch.startswith("timm:") else "entprop_fast",
        "pipeline_tag": _TASK,
        "tags": [_TASK, "entprop", "robustness"],
    }
    if results := _results(spec, scores):
        data["model-index"] = [{"name": spec.arch or "network", "results": results}]
    if find_spec("huggingface_hub") is None:  # JSON is YAML
        return "\n".join(f"{name}: {json.dumps(value)}" for name, value in data.items())
    from huggingface_hub import ModelCardData

    return ModelCardData(**data).to_yaml()


def _results(spec: NetworkSpec, scores: Scores) -> list[dict[str, Any]]:
    """Return what was measured, as a model index lists it."""
    name = spec.dataset or "unknown"
    shifts = {f"shift {shift}": value for shift, value in scores.shifts.items()}
    found = [
        ("accuracy", "SA", scores.sa, "clean"),
        ("accuracy", "RA", scores.ra, f"corrupted: {scores.corruption_source}"),
        ("hscore", "Hscore", scores.hscore, "clean and corrupted"),
        *(("accuracy", one, value, one) for one, value in shifts.items()),
    ]
    return [
        {
            "task": {"type": _TASK},
            "dataset": {"type": name, "name": name, "config": images},
            "metrics": [{"type": kind, "value": round(value, 2), "name": score}],
        }
        for kind, score, value, images in found
        if value is not None
    ]
