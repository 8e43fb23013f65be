// Chooses the table of loops for the machine this runs on.

#include "kernels.h"

namespace entprop {

namespace portable {
template <class T>
const Kernels<T>& table();
}
namespace avx2 {
template <class T>
const Kernels<T>& table();
}
namespace avx512 {
template <class T>
const Kernels<T>& table();
}

template <class T>
const Kernels<T>& kernels() {
#ifdef ENTPROP_HAVE_AVX512
  static const bool has_avx512 =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (has_avx512) return avx512::table<T>();
#endif
#ifdef ENTPROP_HAVE_AVX2
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2) return avx2::table<T>();
#endif
  return portable::table<T>();
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();
template const Kernels<Bf16>& kernels<Bf16>();

}  // namespace entprop
