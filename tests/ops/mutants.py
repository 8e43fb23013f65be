"""Deliberately broken copies of the C++ kernels, and the tests that must notice each.

Every mutant changes one expression or statement. All stand in one library, compiled once, without
vector extensions (they share all sources): the variable `entprop_mutant` says which one is wrong,
0 none. mutant_process.py runs each one's tests, with the library in `entprop_fast._C`'s place.
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[2]
CPU = ROOT / "csrc" / "cpu"


class Mutant(NamedTuple):
    """Where `file` holds `old`, once, its part in «» (or all) is `new`; `tests` of `module` fail.

    The part is an expression, or a statement where it ends in a semicolon.
    """

    file: str
    old: str
    new: str
    module: str
    tests: str

    def written(self, text: str, number: int) -> str:
        """Return the file's text with both, of which `entprop_mutant` chooses."""
        old = self.old.replace("«", "").replace("»", "")
        assert text.count(old) == 1, f"{self.file} no longer holds {old!r} once"
        before, _, rest = self.old.rpartition("«")
        part, _, after = rest.partition("»")
        both = f"(entprop_mutant == {number} ? ({self.new}) : ({part}))"
        if part.endswith(";"):
            both = f"if (entprop_mutant == {number}) {{ {self.new} }} else {{ {part} }}"
        return text.replace(old, before + both + after)


MUTANTS = {
    "variance without its correction": Mutant(
        "norm_moments_loops.h", "«(double)s2[c] - (double)s1[c] * offset» +", "(double)s2[c]",
        "test_dual_batch_norm", "test_values and contiguous and float32",
    ),
    "a tail of a plane left out": Mutant(
        "norm_sum_loops.h", "if (i < inner) add(i, inner - i, 1);", "",
        "test_dual_batch_norm", "test_values and contiguous and float32",
    ),
    "far shift not corrected": Mutant(
        "norm_moments_loops.h", "return «far != 0»;", "false",
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
        "norm_elementwise_loops.h", "g = «g - offset» -", "g",
        "test_dual_batch_norm", "test_values and float32",
    ),
    "columns of small planes added to the first channel": Mutant(
        "norm_small_planes.h", "sums[«c»] += S::sum", "0",
        "test_dual_batch_norm", "test_values and contiguous and float32",
    ),
    "biased running variance": Mutant(
        "dual_batch_norm.cpp", "1 / (count - 1)", "1 / count",
        "test_dual_batch_norm", "test_values and float32",
    ),
    "auxiliary rows from main's start": Mutant(
        "norm.h", "const int64_t run = «group.first * view.pixels + begin»;", "begin",
        "test_dual_batch_norm", "test_values and channels_last and float32",
    ),
    "sums of the frozen backward unscaled": Mutant(
        "dual_batch_norm_backward.cpp", "(A)(«r * sum_gx[c]»)", "sum_gx[c]",
        "test_dual_batch_norm", "test_values and float32",
    ),
    "a second gradient left out": Mutant(
        "norm_elementwise_loops.h", "«rounded<T>(g + load<T>(job.again + at, n))» : g", "g",
        "test_dual_batch_norm_sums", "test_sums_have_the_bits and channels_last and float32",
    ),
    "a skip path's gradient left out": Mutant(
        "norm_elementwise_loops.h", "rounded<T>(dx) + load<T>(job.dtotal + at, n)", "dx",
        "test_dual_batch_norm_sums", "test_sums_have_the_bits and contiguous and float32",
    ),
    "sums of later tiles not written": Mutant(
        "norm_moments_loops.h", "if (row > 0) add_up_tile(in, row, row + rows, inner, inner);", "",
        "test_dual_batch_norm_sums", "test_sums_have_the_bits and channels_last and float32",
    ),
    "a batch not counted": Mutant(
        "dual_batch_norm.cpp", "if (norm.num_batches) ++*data<int64_t>(*norm.num_batches);", "",
        "test_dual_batch_norm_sums", "test_sums_have_the_bits and channels_last and float32",
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
        "dual_batch_norm_moments.cpp", "if («!training[group.which]») continue;", "false",
        "test_dual_batch_norm_processes", "test_a_half_that_stands_still",
    ),
    "entropy without its second sum": Mutant(
        "loss_loops.h", "log_total - total_of<T>(sum_de) / total", "log_total",
        "test_loss_and_entropy", "test_values and float32",
    ),
    "unguarded label": Mutant(
        "loss_loops.h", "if («valid») {", "scorable",
        "test_loss_and_entropy", "test_label_out_of_range and 1-5",
    ),
    "ties to the higher index": Mutant(
        "select_topk.cpp", "return «a < b»;", "a > b",
        "test_select_topk", "test_any_scores",
    ),
    "clip to the radius left out": Mutant(
        "perturb_loops.h", "x + clamp<V>(step, -eps, eps)", "x + step",
        "test_perturb", "test_values and float32",
    ),
    "sign of zero is one": Mutant(
        "perturb_loops.h", "«g > 0» ? alpha", "g >= 0",
        "test_perturb", "test_values and float32",
    ),
    "start row not gathered": Mutant(
        "perturb.cpp", "«chosen[row]» * per_row + channel", "row",
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
        "conv3x3.cpp", "if («!turned») return;", "true",
        "test_conv3x3", "test_values",
    ),
    "only the last sum of the weights' gradient": Mutant(
        "conv3x3.cpp", "to[i] += from[i];", "to[i] = from[i];",
        "test_conv3x3", "test_values",
    ),
    "equalize from the level itself": Mutant(
        "image_chains_tone_loops.h", "int64_t n = «step / 2»;", "0",
        "test_image_chains", "kernel and mixture-wide",
    ),
    "a threshold that is a level": Mutant(
        "image_chains_tone_loops.h", "(Wide)(«v >= low»)", "v > low",
        "test_image_chains", "kernel and solarize",
    ),
    "a bilinear weight too large by one": Mutant(
        "image_chains_geometry_loops.h", "+ (second - first) * «weight»;", "weight + 1",
        "test_image_chains", "kernel and rotate",
    ),
    "a mixture rounded down": Mutant(
        "image_chains_loops.h", "as_levels(«mixed + 0.5f»)", "mixed",
        "test_image_chains", "kernel and mixture-odd",
    ),
    "a chain's first operation for all": Mutant(
        "image_chains_loops.h", "image.steps[w * image.depth + «d»]", "0 * d",
        "test_image_chains", "kernel and mixture-odd",
    ),
    "a strength that is no number": Mutant(
        "image_chains.cpp", "«strength == strength» ? strength", "true",
        "test_image_chains", "kernel and wild",
    ),
    "strengths without bounds": Mutant(
        "image_chains.cpp", "std::min(std::max(number, -kLargestStrength), kLargestStrength)",
        "number", "test_image_chains", "kernel and wild",
    ),
    "a filter's values not clamped": Mutant(
        "prime_loops.h", "«clamp(sum, F{}, F{} + 1)», lanes", "sum",
        "test_prime_chains", "filter",
    ),
    "a primitive's key for the whole chain": Mutant(
        "prime_loops.h", "key = (uint64_t)«image.keys[slot]»;", "image.keys[number * shape.depth]",
        "test_prime_chains", "chains-",
    ),
    "a colour of the untouched levels": Mutant(
        "prime_loops.h", "«from == room.start», room", "true",
        "test_prime_chains", "warp-color",
    ),
    "only the last chain": Mutant(
        "prime_loops.h", "room.mixed[i] += weight * result[i];",
        "room.mixed[i] = weight * result[i];", "test_prime_chains", "color",
    ),
    "a warp of rows by columns' share": Mutant(
        "prime_warp_loops.h", "(float)y - S::load(«field.dy + at»)", "field.dx + at",
        "test_prime_chains", "warp",
    ),
    "a power of black": Mutant(
        "pixmix_loops.h", "«value > smallest ? within_unit(power) : Floats{}»",
        "within_unit(power)", "test_pixmix_rounds", "test_values",
    ),
    "a sum around black": Mutant(
        "pixmix_loops.h", "shift = «(1 - a - b) / 2»;", "0",
        "test_pixmix_rounds", "test_values",
    ),
    "a mixture without what is over of a block": Mutant(
        "pixmix_loops.h", "image.others[r] + «first»", "0",
        "test_pixmix_rounds", "test_values",
    ),
}  # fmt: skip

CHOICE = 'extern "C" { extern int entprop_mutant; }\n'


def compiled(folder: Path) -> Path:
    """Return the library of all mutants, for `torch.ops.load_library`; a compiler for each core."""
    copy = Path(shutil.copytree(CPU, folder / "cpu"))
    for number, mutant in enumerate(MUTANTS.values(), 1):
        file = copy / mutant.file
        file.write_text(mutant.written(file.read_text(), number))
    (copy / "choice.h").write_text(CHOICE)
    (copy / "choice.cpp").write_text("int entprop_mutant = 0;\n")
    sources = [p for p in sorted(copy.glob("*.cpp")) if not p.stem.endswith(("_avx2", "_avx512"))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [*pool.map(_object, sorted(sources, key=lambda p: "portable" not in p.stem))]
    library, torch_lib = folder / "mutants.so", Path(torch.__file__).parent / "lib"
    files = [*map(str, objects), "-o", str(library)]
    subprocess.run(["g++", "-shared", *files, f"-L{torch_lib}", "-ltorch_cpu"], check=True)
    return library


def _object(source: Path) -> Path:
    """Compile a source, hardly optimising."""
    flags = ["-std=c++20", "-O1", "-fPIC", "-w", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    include = Path(torch.__file__).parent / "include"
    headers = ["-include", str(source.parent / "choice.h"), "-isystem", str(include)]
    output = source.with_suffix(".o")
    subprocess.run(["g++", *flags, *headers, "-c", str(source), "-o", str(output)], check=True)
    return output


class Ran(NamedTuple):
    """How the tests of a mutant, or of a module without one, ended."""

    code: int
    said: str


def outcomes_of(library: Path, folder: Path) -> dict[str, Ran]:
    """Run the C++ cases of each mutant's tests, and all of a module's on what is right, by name."""
    whole: dict[str, list[str]] = {}
    for mutant in MUTANTS.values():
        whole.setdefault(mutant.module, []).append(f"({mutant.tests})")
    jobs = [(name, 0, name, " or ".join(tests)) for name, tests in whole.items()]
    for number, (name, mutant) in enumerate(MUTANTS.items(), 1):
        jobs.append((name, number, mutant.module, mutant.tests))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.ops.mutant_process",
            str(library),
            str(folder),
            json.dumps(jobs),
        ],
        cwd=ROOT,
        # As many processes as cores run at a time.
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    return {
        job[0]: Ran(int((folder / f"{n}.code").read_text()), (folder / f"{n}.txt").read_text())
        for n, job in enumerate(jobs)
    }
