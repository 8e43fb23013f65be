// The module entprop_fast._C. Loading it registers the ops that the other files of csrc/ implement;
// it exports build_info() alone.

// csrc/build.py defines Py_LIMITED_API where the interpreter has a stable ABI: one file then serves
// the oldest Python that the package supports and all later ones.
#include <Python.h>

#include "build_config.h"  // written by csrc/build.py
#include "cpu/kernels.h"

#if defined(__clang__)
#define ENTPROP_COMPILER __VERSION__
#else
#define ENTPROP_COMPILER "g++ " __VERSION__
#endif

namespace {

// Keys as the fields of entprop_fast.build.BuildInfo; lists are space-separated.
PyObject* build_info(PyObject*, PyObject*) {
  const char* const entries[][2] = {
      {"backends", ENTPROP_BACKENDS},
      {"instruction_sets", ENTPROP_INSTRUCTION_SETS},
      {"instruction_set", entprop::instruction_set()},
      {"compiler", ENTPROP_COMPILER},
      {"flags", ENTPROP_FLAGS},
      {"python_target", ENTPROP_PYTHON_TARGET},
      {"torch_version", ENTPROP_TORCH_VERSION},
      {"torch_target", ENTPROP_TORCH_TARGET},
      {"cuda_version", ENTPROP_CUDA_VERSION},
      {"cuda_archs", ENTPROP_CUDA_ARCHS},
  };
  PyObject* info = PyDict_New();
  if (info == nullptr) return nullptr;
  for (const auto& [key, text] : entries) {
    PyObject* value = PyUnicode_FromString(text);
    const int failed = value == nullptr ? -1 : PyDict_SetItemString(info, key, value);
    Py_XDECREF(value);
    if (failed != 0) {
      Py_DECREF(info);
      return nullptr;
    }
  }
  return info;
}

PyMethodDef methods[] = {
    {"build_info", build_info, METH_NOARGS, "What this module was compiled from and with."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_C",
                          "Compiled kernels of entprop_fast.",
                          0,
                          methods,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

// With PyModuleDef_Init the interpreter makes the module: nothing here is to be undone on failure.
PyMODINIT_FUNC PyInit__C() { return PyModuleDef_Init(&definition); }
