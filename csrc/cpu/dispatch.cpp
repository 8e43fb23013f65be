// Chooses the table of loops for the machine this runs on.

#include "kernels.h"

namespace entprop {

namespace portable {
template <class T>
const Kernels<T>& table();
const WinogradKernels& winograd_table();
}  // namespace portable
namespace avx2 {
template <class T>
const Kernels<T>& table();
const WinogradKernels& winograd_table();
}  // namespace avx2
namespace avx512 {
template <class T>
const Kernels<T>& table();
const WinogradKernels& winograd_table();
}  // namespace avx512

namespace {

enum class Isa { portable, avx2, avx512 };

Isa best() {
#ifdef ENTPROP_HAVE_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return Isa::avx512;
#endif
#ifdef ENTPROP_HAVE_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::portable;
}

const Isa kIsa = best();

}  // namespace

template <class T>
const Kernels<T>& kernels() {
#ifdef ENTPROP_HAVE_AVX512
  if (kIsa == Isa::avx512) return avx512::table<T>();
#endif
#ifdef ENTPROP_HAVE_AVX2
  if (kIsa == Isa::avx2) return avx2::table<T>();
#endif
  return portable::table<T>();
}

const WinogradKernels& winograd_kernels() {
#ifdef ENTPROP_HAVE_AVX512
  if (kIsa == Isa::avx512) return avx512::winograd_table();
#endif
#ifdef ENTPROP_HAVE_AVX2
  if (kIsa == Isa::avx2) return avx2::winograd_table();
#endif
  return portable::winograd_table();
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();
template const Kernels<Bf16>& kernels<Bf16>();

}  // namespace entprop
