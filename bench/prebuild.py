"""Build the extension for a lent GPU machine: ``python -m bench.prebuild PATH_TO_PYTHON``.

A build there takes 100 of the 900 seconds that it is lent for. The module is for another Python
than this one, and for a torch with CUDA that is not installed here: its stable ABI is the same, and
of ``libtorch_cuda`` only the name is linked. Carry the file whose name is printed.
"""

import argparse
import json
import subprocess
import sysconfig
from dataclasses import replace
from pathlib import Path

from csrc import build
from csrc.toolchain import Toolchain, find_cuda, find_toolchain

ASK = "import json, sysconfig as s; print(json.dumps([s.get_path('include'), "
ASK += "s.get_config_var('EXT_SUFFIX')]))"


def main() -> None:
    """Compile and link; nothing is loaded, since nothing here could."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", help="an interpreter of that machine's version, with its headers")
    parser.add_argument("--torch", default="2.11.0", help="release there (default: %(default)s)")
    parser.add_argument("--cuda", default="13.0", help="its CUDA (default: %(default)s)")
    arguments = parser.parse_args()
    asked = subprocess.run([arguments.python, "-c", ASK], check=True, capture_output=True)
    include, suffix = json.loads(asked.stdout)

    here = find_toolchain("cpu")
    cuda = find_cuda(arguments.torch, arguments.cuda, here.cxx)
    toolchain = replace(here, torch_version=arguments.torch, cuda=cuda, why_no_cuda=None)
    folder = build.ROOT / "build" / f"prebuilt{suffix}"
    module = build.ROOT / "entprop_fast" / f"_C{suffix}"
    build.run_steps(*steps(toolchain, include, folder, module), folder)
    print(module.relative_to(build.ROOT))


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
