"""Prepare what a lent GPU machine lacks: ``python -m bench.prebuild PATH_TO_PYTHON``.

A build there takes 100 of the 900 seconds that it is lent for, and nothing can be fetched. The
module is for another Python than this one, and for a torch with CUDA that is not installed here:
its stable ABI is the same, and of ``libtorch_cuda`` only the name is linked. Beside it come the
wheels of what the commands need and that machine has not, and Fashion-MNIST where it is here. What
is to be carried is printed, and the commands of a campaign in calls of less than ten minutes.
"""

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from csrc import build
from csrc.toolchain import Toolchain, find_cuda, find_toolchain
from entprop_fast.lab.cli.env_report import git_revision
from entprop_fast.lab.data.fashion_mnist import DEBIAN

ASK = "import json, sysconfig as s; print(json.dumps([s.get_path('include'), "
ASK += "s.get_config_var('EXT_SUFFIX'), s.get_python_version()]))"
# All in Python alone, so that one wheel serves every machine.
LACKING = ("tomli_w", "tyro", "docstring_parser", "typeguard")
WHEELS, SITE = ".whl", "/tmp/site"
DATA = "data/fashion-mnist"
SECONDS = 560  # of a call, which ends at 600 whatever it does
MOST_BYTES = 64 * 2**20  # of what travels: what git does not ignore, and what is carried


def main() -> None:
    """Compile, link and fetch; nothing is loaded, since nothing here could."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", help="an interpreter of that machine's version, with its headers")
    parser.add_argument("--torch", default="2.11.0", help="release there (default: %(default)s)")
    parser.add_argument("--cuda", default="13.0", help="its CUDA (default: %(default)s)")
    arguments = parser.parse_args()
    asked = subprocess.run([arguments.python, "-c", ASK], check=True, capture_output=True)
    include, suffix, version = json.loads(asked.stdout)

    here = find_toolchain("cpu")
    cuda = find_cuda(arguments.torch, arguments.cuda, here.cxx)
    toolchain = replace(here, torch_version=arguments.torch, cuda=cuda, why_no_cuda=None)
    folder = build.ROOT / "build" / f"prebuilt{suffix}"
    module = build.ROOT / "entprop_fast" / f"_C{suffix}"
    build.run_steps(*steps(toolchain, include, folder, module), folder)
    shutil.rmtree(build.ROOT / WHEELS, ignore_errors=True)  # pip refuses two releases of one
    subprocess.run(download(version), cwd=build.ROOT, check=True)
    carried = [str(module.relative_to(build.ROOT)), WHEELS]
    if DEBIAN.is_dir():
        shutil.copytree(DEBIAN, build.ROOT / DATA, dirs_exist_ok=True)
        carried.append(DATA)
    print(instructions(carried, git_revision() or "unknown"))
    if suffix in EXTENSION_SUFFIXES:
        print(f"delete {carried[0]} afterwards: this Python, too, would import it")
    travels = bytes_of(build.ROOT, carried)
    print(f"travels: {travels / 2**20:.0f} MiB of at most {MOST_BYTES / 2**20:.0f}")
    if travels > MOST_BYTES:
        raise SystemExit("that is too much: leave the last one out, or have git ignore a file")


def bytes_of(root: Path, carried: list[str]) -> int:
    """Return how much travels: what git has or would add, and what is carried."""
    asked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(asked, cwd=root, check=True, capture_output=True, text=True).stdout
    files = {root / name for name in listed.split("\0") if name}
    for one in (root / name for name in carried):
        files |= set(one.rglob("*")) if one.is_dir() else {one}
    return sum(file.lstat().st_size for file in files if file.is_file() or file.is_symlink())


def download(version: str) -> list[str]:
    """Return pip's command for the wheels of `LACKING`, in the releases that are installed here."""
    wanted = [f"{name}=={metadata.version(name)}" for name in LACKING]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", WHEELS]
    return [*command, "--only-binary=:all:", "--python-version", version, *wanted]


def instructions(carried: list[str], commit: str) -> str:
    """Say what to carry, and how to call the campaign so that each call ends in its time."""
    install = "python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade"
    # Without the budget it would take 840 seconds, and lose what runs at the call's end.
    before = f"{install} --target {SITE} {WHEELS}/*.whl || exit; export PYTHONPATH={SITE} "
    before += f"ENTPROP_GIT={commit} "
    campaign = "bash bench/gpu_campaign.sh"
    return "\n".join(
        (
            f"carry: {' '.join(carried)}",
            f"first call: {before}BUDGET={SECONDS}; {campaign} all-in-14-minutes",
            "then at once, with the pieces that it left out (SECONDS: what the loan has left, "
            f"less 40, at most {SECONDS}): {before}BUDGET=SECONDS; {campaign} PIECE...",
            f"here, after each call: {campaign} collect FOLDER",
        )
    )


def steps(
    toolchain: Toolchain, include: str, folder: Path, module: Path
) -> tuple[list[build.Step], build.Step]:
    """Return what `csrc.build` would run, with the other Python's headers and a stand-in."""
    compiles, link = build.build_steps(toolchain, folder, module)
    stand_in = folder / "libtorch_cuda.so"
    shared = [*toolchain.cxx, "-shared", "-x", "c++", "/dev/null"]
    soname = f"-Wl,-soname,{stand_in.name}"
    subprocess.run([*shared, soname, "-o", str(stand_in)], check=True)
    own = sysconfig.get_path("include")
    compiles = [
        replace(step, command=[include if word == own else word for word in step.command])
        for step in compiles
    ]
    *command, last = link.command
    assert last == "-ltorch_cuda"
    # Nothing in the stand-in is used, and the linker would leave its name out.
    command += [f"-L{folder}", "-Xlinker", "--no-as-needed", last]
    return compiles, replace(link, command=command)


if __name__ == "__main__":
    main()
