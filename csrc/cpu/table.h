// Defines, for the instruction set of the including file, the tables of kernels.h. The includer
// sets ENTPROP_ISA to the namespace that keeps its copies of the loops apart from the others'.
#pragma once

#include "loss_loops.h"
#include "norm_moments_loops.h"
#include "norm_reduce_loops.h"
#include "perturb_loops.h"
#include "winograd_loops.h"

namespace ENTPROP_ISA {

template <class T>
const Kernels<T>& table() {
  static constexpr Kernels<T> kernels = {
      row_moments<T>,    plane_moments<T>, add_up<T>,       row_forward<T>,
      plane_forward<T>,  row_reduce<T>,    plane_reduce<T>, row_backward<T>,
      plane_backward<T>, loss_row<T>,      perturb<T>,
  };
  return kernels;
}

const WinogradKernels& winograd_table() {
  static constexpr WinogradKernels kernels = {winograd_forward, winograd_weight_grad};
  return kernels;
}

template const Kernels<float>& table<float>();
template const Kernels<double>& table<double>();
template const Kernels<Bf16>& table<Bf16>();

}  // namespace ENTPROP_ISA
