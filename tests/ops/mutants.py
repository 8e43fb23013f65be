"""Deliberately broken copies of the C++ kernels, and the tests that must notice each.

Every mutant changes one line. It is compiled without vector extensions (they share all sources) and
tested in a process of its own, where it stands in for `entprop_fast._C`.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[2]
CPU = ROOT / "csrc" / "cpu"


class Mutant(NamedTuple):
    """Replace `old` by `new`, once, in `file`; then `tests` of `module` must fail."""

    file: str
    old: str
    new: str
    module: str
    tests: str


MUTANTS = {
    "variance without its correction": Mutant(
        "norm_moments_loops.h", "- (double)s1[c] * offset +", "+",
        "test_dual_batch_norm", "test_values and contiguous and float32",
    ),
    "a tail of a plane left out": Mutant(
        "norm_sum_loops.h", "if (i < inner) add(i, inner - i, 1);", "",
        "test_dual_batch_norm", "test_values and contiguous and float32",
    ),
    "far shift not corrected": Mutant(
        "norm_moments_loops.h", "return far != 0;", "return false;",
        "test_dual_batch_norm", "test_first_image_far",
    ),
    "products around zero": Mutant(
        "norm_reduce_loops.h", "products += g * (value - m);", "products += g * value;",
        "test_dual_batch_norm", "test_values and channels_last and float32",
    ),
    "ReLU mask inverted": Mutant(
        "norm_elementwise_loops.h", "~(v <= 0)", "v <= 0",
        "test_dual_batch_norm", "test_values and float32 and True-True",
    ),
    "gradient without the mean's part": Mutant(
        "norm_elementwise_loops.h", "g = g - offset -", "g = g -",
        "test_dual_batch_norm", "test_values and float32",
    ),
    "columns of small planes added to the first channel": Mutant(
        "norm_small_planes.h", "sums[c] += S::sum", "sums[0] += S::sum",
        "test_dual_batch_norm", "test_values and contiguous and float32",
    ),
    "biased running variance": Mutant(
        "dual_batch_norm.cpp", "1 / (count - 1)", "1 / count",
        "test_dual_batch_norm", "test_values and float32",
    ),
    "auxiliary rows from main's start": Mutant(
        "norm.h", "const int64_t run = group.first * view.pixels + begin;",
        "const int64_t run = begin;",
        "test_dual_batch_norm", "test_values and channels_last and float32",
    ),
    "sums of the frozen backward unscaled": Mutant(
        "dual_batch_norm_backward.cpp", "(A)(r * sum_gx[c])", "(A)sum_gx[c]",
        "test_dual_batch_norm", "test_values and float32",
    ),
    "sums of this process alone": Mutant(
        "dual_batch_norm_backward.cpp", "(corrects && !given.sum_g)", "corrects",
        "test_dual_batch_norm_processes", "test_values and float32 and contiguous",
    ),
    "values of the last process alone": Mutant(
        "dual_batch_norm_merge.cpp", "total += count;", "total = count;",
        "test_dual_batch_norm_processes", "test_values and float32 and contiguous",
    ),
    "moments of a half that stands still": Mutant(
        "dual_batch_norm_moments.cpp", "if (!training[group.which]) continue;", "",
        "test_dual_batch_norm_processes", "test_a_half_that_stands_still",
    ),
    "entropy without its second sum": Mutant(
        "loss_loops.h", "log_total - total_of<T>(sum_de) / total", "log_total",
        "test_loss_and_entropy", "test_values and float32",
    ),
    "unguarded label": Mutant(
        "loss_loops.h", "if (valid) {", "if (scorable) {",
        "test_loss_and_entropy", "test_label_out_of_range and 1-5",
    ),
    "ties to the higher index": Mutant(
        "select_topk.cpp", "return a < b;", "return a > b;",
        "test_select_topk", "test_any_scores",
    ),
    "clip to the radius left out": Mutant(
        "perturb_loops.h", "x + clamp<V>(step, -eps, eps)", "x + step",
        "test_perturb", "test_values and float32",
    ),
    "sign of zero is one": Mutant(
        "perturb_loops.h", "g > 0 ? alpha", "g >= 0 ? alpha",
        "test_perturb", "test_values and float32",
    ),
    "start row not gathered": Mutant(
        "perturb.cpp", "chosen[row] * per_row + channel", "row * per_row + channel",
        "test_perturb", "test_values and float32",
    ),
    "negative rows not wrapped": Mutant(
        "perturb.cpp", "row < 0 ? row + available : row", "row < 0 ? 0 : row",
        "test_perturb", "test_negative_index",
    ),
    "class of probability 0 counted": Mutant(
        "loss_loops.h", "d = d < vanishing ? vanishing : d;", "",
        "test_loss_and_entropy", "test_impossible_classes",
    ),
    "smoothing without its sum": Mutant(
        "loss_loops.h", "expected += off * total_of<T>(sum_d);", "",
        "test_loss_and_entropy", "test_values and float32 and 100 and 0.1",
    ),
    "margin against itself": Mutant(
        "loss_loops.h", "row.scratch[row.label] = (A)-INFINITY;", "",
        "test_loss_and_entropy", "test_values and float32",
    ),
    "a transform with a sign turned": Mutant(
        "winograd_loops.h", "half[2][s] = d2 - d1;", "half[2][s] = d1 - d2;",
        "test_conv3x3", "test_values",
    ),
    "the last tiles of a block left out": Mutant(
        "winograd_loops.h", "(count + kProductRows - 1) / kProductRows", "count / kProductRows",
        "test_conv3x3", "test_values",
    ),
    "weights of the input's gradient not rotated": Mutant(
        "conv3x3.cpp", "if (!turned) return;", "return;",
        "test_conv3x3", "test_values",
    ),
    "only the last sum of the weights' gradient": Mutant(
        "conv3x3.cpp", "to[i] += from[i];", "to[i] = from[i];",
        "test_conv3x3", "test_values",
    ),
}  # fmt: skip

RUNNER = """
import collections, sys, types, pytest, torch
torch.ops.load_library(sys.argv[1])
stand_in = sys.modules["entprop_fast._C"] = types.ModuleType("entprop_fast._C")
stand_in.__file__ = sys.argv[1]
stand_in.build_info = lambda: collections.defaultdict(str, backends="cpu")
options = ["-xq", "-p", "no:cacheprovider", "--import-mode=importlib"]
sys.exit(pytest.main([sys.argv[2], "-k", f"cpp and ({sys.argv[3]})", *options]))
"""


def command(source: Path, output: Path, folder: Path) -> list[str]:
    """Return the compiler's command, hardly optimising; headers of `folder` come first."""
    include = Path(torch.__file__).parent / "include"
    flags = [
        "-std=c++20",
        "-O1",
        "-fPIC",
        "-w",
        "-Wno-psabi",
        "-DTORCH_TARGET_VERSION=0x020b000000000000",
    ]
    headers = [f"-I{folder}", "-isystem", str(include)]
    return ["g++", *flags, *headers, "-c", str(source), "-o", str(output)]


def sources(folder: Path) -> list[Path]:
    """Return the portable translation units."""
    return [p for p in sorted(folder.glob("*.cpp")) if not p.stem.endswith(("_avx2", "_avx512"))]


def link(objects: list[Path], output: Path) -> None:
    """Objects to a library that `torch.ops.load_library` takes."""
    torch_lib = Path(torch.__file__).parent / "lib"
    files = [*map(str, objects), "-o", str(output)]
    subprocess.run(["g++", "-shared", *files, f"-L{torch_lib}", "-ltorch_cpu"], check=True)


def run_tests(library: Path, module: str, tests: str) -> subprocess.CompletedProcess[str]:
    """Run the C++ cases of `tests` against `library`."""
    arguments = [str(library), f"tests/ops/{module}.py", tests]
    return subprocess.run(
        [sys.executable, "-c", RUNNER, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as many processes as cores run at a time
        capture_output=True,
        text=True,
        check=False,
    )
