// Chooses the table of loops: ENTPROP_CPU_KERNELS=portable, avx2 or avx512, by default the best
// that the machine this runs on has. entprop_fast/build.py refuses a choice that is not to be had.

#include <cstdlib>
#include <string>

#include "image_chains.h"
#include "kernels.h"

namespace entprop {

namespace portable {
template <class T>
const Kernels<T>& table();
const WinogradKernels& winograd_table();
const ChainKernels& chain_table();
}  // namespace portable
namespace avx2 {
template <class T>
const Kernels<T>& table();
const WinogradKernels& winograd_table();
const ChainKernels& chain_table();
}  // namespace avx2
namespace avx512 {
template <class T>
const Kernels<T>& table();
const WinogradKernels& winograd_table();
const ChainKernels& chain_table();
}  // namespace avx512

namespace {

enum class Isa { portable, avx2, avx512 };

bool has(Isa isa) {
  switch (isa) {
#ifdef ENTPROP_HAVE_AVX512
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
#ifdef ENTPROP_HAVE_AVX2
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    default:
      return isa == Isa::portable;
  }
}

constexpr const char* kNames[] = {"portable", "avx2", "avx512"};

Isa chosen() {
  const char* given = std::getenv("ENTPROP_CPU_KERNELS");
  const std::string wanted = given ? given : "";
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::portable})
    if (has(isa) && (wanted.empty() || wanted == kNames[(int)isa])) return isa;
  return Isa::portable;
}

const Isa kIsa = chosen();

}  // namespace

const char* instruction_set() { return kNames[(int)kIsa]; }

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

const ChainKernels& chain_kernels() {
#ifdef ENTPROP_HAVE_AVX512
  if (kIsa == Isa::avx512) return avx512::chain_table();
#endif
#ifdef ENTPROP_HAVE_AVX2
  if (kIsa == Isa::avx2) return avx2::chain_table();
#endif
  return portable::chain_table();
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();
template const Kernels<Bf16>& kernels<Bf16>();

}  // namespace entprop
