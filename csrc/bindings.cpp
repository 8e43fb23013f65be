// The module entprop_fast._C. Loading it registers the ops that the other files of csrc/ implement;
// it exports build_info() alone.

// torch 2.11's copy of pybind11 refuses files that keep to the stable ABI, as the others here do;
// this one sees nothing else of torch.
#undef TORCH_TARGET_VERSION
#include <pybind11/pybind11.h>

#include <string>

#include "build_config.h"  // written by csrc/build.py
#include "cpu/kernels.h"

namespace {

std::string compiler() {
#if defined(__clang__)
  return __VERSION__;
#else
  return "g++ " __VERSION__;
#endif
}

// Keys as the fields of entprop_fast.build.BuildInfo; lists are space-separated.
pybind11::dict build_info() {
  pybind11::dict info;
  info["backends"] = ENTPROP_BACKENDS;
  info["instruction_sets"] = ENTPROP_INSTRUCTION_SETS;
  info["instruction_set"] = entprop::instruction_set();
  info["compiler"] = compiler();
  info["flags"] = ENTPROP_FLAGS;
  info["torch_version"] = ENTPROP_TORCH_VERSION;
  info["torch_target"] = ENTPROP_TORCH_TARGET;
  info["cuda_version"] = ENTPROP_CUDA_VERSION;
  info["cuda_archs"] = ENTPROP_CUDA_ARCHS;
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled kernels of entprop_fast.";
  module.def("build_info", &build_info, "What this module was compiled from and with.");
}
