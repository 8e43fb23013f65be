"""List the commands, each in a sentence.

Without imports: ``entprop --help`` reads this file alone, and prints before torch would be there.
"""

COMMANDS = {
    "train": "train one network with one method; digits without arguments",
    "evaluate": "measure networks on clean, corrupted and attacked test images",
    "compare": "train several methods with several seeds, and compare them fairly",
    "study": "train what answers one question, and end in a table and a sentence",
    "predict": "print classes and probabilities of images",
    "export": "write a run's network as safetensors, torch.export, ONNX, with a model card",
    "report": "write runs as one HTML file: curves, corruptions, mistakes, norms, speed",
    "corrupt": "write a corrupted copy of a test set, in the published layout",
    "data": "look at data sets before training: what would stop a run; make fractals",
    "init": "write a commented recipe for a folder of images",
    "completion": "print a script with which a shell completes commands and flags",
    "env_report": "print what a bug report should hold: versions, machine, kernels",
}


def typed(name: str) -> str:
    """Return a command's name as it is typed: ``env-report``."""
    return name.replace("_", "-")


def overview(program: str) -> str:
    """Return what ``--help`` prints; `program` is what the user typed before a command."""
    width = max(map(len, COMMANDS))
    lines = (f"  {typed(name):<{width}}  {text}" for name, text in COMMANDS.items())
    return "\n".join((f"{program} COMMAND, --help after it:", *lines))
