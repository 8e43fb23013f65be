"""Run within a clean environment: what was installed computes what the formulas say."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

import entprop_fast
from entprop_fast import ops, reference

folder = Path(sys.argv[1])
assert folder in Path(entprop_fast.__file__).parents, entprop_fast.__file__
info = entprop_fast.build_info()
assert info.extension is not None and folder in Path(info.extension).parents, info
assert (info.python_target, info.torch_target, info.backends) == ("3.11", "2.11", ("cpu",)), info
wanted = os.environ.get("ENTPROP_CPU_KERNELS")
assert wanted in (None, info.instruction_set), info
assert ops.backends()["cpu"]["loss_and_entropy"] == "cpp", ops.backends()

torch.manual_seed(0)
logits, labels = torch.randn(33, 7), torch.randint(7, (33,))
found = ops.loss_and_entropy(logits, labels)
exact = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
torch.testing.assert_close(found.loss.double(), exact, rtol=1e-6, atol=1e-6)
torch.testing.assert_close(
    found.entropy.double(), reference.entropy(logits.double()), rtol=1e-6, atol=1e-6
)

# The sets that this processor has, for whoever calls again with each.
flags = set(Path("/proc/cpuinfo").read_text().split())
has = {"avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"}}
print("portable", *(name for name in info.instruction_sets if has[name] <= flags))
