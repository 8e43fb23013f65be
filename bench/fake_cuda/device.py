"""A CUDA device that nothing runs on, for a process that loads `library()` before torch.

What knows torch's private names for it stands here.
"""

import contextlib
import hashlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.pages import ROOT
from csrc.toolchain import find_toolchain, shared_library

SOURCE = Path(__file__).parent / "no_cuda.cpp"
FOLDER = ROOT / "build" / "fake_cuda"
CUDA = torch.device("cuda", 0)
FUSED = ("_fused_sgd_", "_fused_adam_", "_fused_adamw_")  # they change their arguments in place
LIBRARIES: list[torch.library.Library] = []


def library() -> Path | None:
    """Compile no_cuda.cpp for this torch unless that is done; None where torch has a CUDA.

    Raises:
        Unavailable: there is no compiler.
    """
    if torch.version.cuda is not None or torch.version.hip is not None:
        return None
    content = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    path = FOLDER / f"{torch.__version__}-{content}.so"
    if not path.exists():
        compiler = find_toolchain("cpu")
        torch_lib = compiler.torch_root / "lib"
        flags = ["-isystem", str(compiler.torch_root / "include"), f"-L{torch_lib}"]
        flags += [f"-Wl,-rpath,{torch_lib}", "-ltorch_cpu", "-lc10"]
        FOLDER.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=FOLDER) as folder:  # of several processes the last one wins
            os.replace(shared_library(SOURCE, Path(folder), compiler, *flags), path)
    return path


def fake_tensors() -> contextlib.AbstractContextManager[object]:
    """Make every tensor of the block one without values."""
    return FakeTensorMode(allow_non_fake_inputs=False)


def prepare() -> None:
    """Give torch the shapes that it has not, and autocast a device of which it asks nothing."""
    added = torch.library.Library("aten", "IMPL", "Meta")
    added.impl("_sample_dirichlet", lambda concentration, generator=None: concentration + 0)
    for name in FUSED:
        for overload in (name, f"{name}.tensor_lr"):
            # In 2.11 what torch has of them stays unless this is said.
            added.impl(overload, lambda *arguments, **settings: None, allow_override=True)
    LIBRARIES.append(added)
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *arguments, **settings: True
