// Tensors through PyTorch's stable ABI: layouts, dtypes, threads, and the way to the reference.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "huge_pages.h"
#include "kernels.h"

namespace entprop {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// What the last failed call said. Part of torch since 2.13; null on the older ones that this build
// also runs on, where torch prints it to stderr itself.
extern "C" __attribute__((weak, visibility("default"))) const char*
torch_exception_get_what_without_backtrace();

// Calls the op in plain PyTorch, for what the kernels do not cover.
template <class... Out, class... In>
std::tuple<Out...> call_reference(const char* name, const char* overload, const In&... in) {
  namespace detail = torch::stable::detail;
  std::array<StableIValue, std::max(sizeof...(In), sizeof...(Out))> stack{detail::from(in)...};
  const auto error = torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION);
  auto* const what = torch_exception_get_what_without_backtrace;
  STD_TORCH_CHECK(error == 0, name, ": ",
                  what ? what() : "failed; torch has printed the reason to stderr");
  return [&]<size_t... I>(std::index_sequence<I...>) {
    return std::tuple<Out...>(detail::to<Out>(stack[I])...);
  }(std::index_sequence_for<Out...>{});
}

// Exactly the strides of torch.channels_last; entprop_fast/ops/layout.py has the same rule.
inline bool is_channels_last(const Tensor& x) {
  if (x.dim() != 4) return false;
  const int64_t c = x.size(1), h = x.size(2), w = x.size(3);
  return x.stride(0) == h * w * c && x.stride(1) == 1 && x.stride(2) == w * c && x.stride(3) == c;
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t d = 0; d < a.dim(); ++d)
    if (a.size(d) != b.size(d)) return false;
  return true;
}

// Both contiguous, or both channels_last: element i of the memory is the same element.
inline bool same_layout(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  return (a.is_contiguous() && b.is_contiguous()) || (is_channels_last(a) && is_channels_last(b));
}

inline bool is_dense(const Tensor& x) { return x.is_contiguous() || is_channels_last(x); }

// An uninitialised tensor beside `like`. Not torch::stable::new_empty: looking the op up by name
// costs microseconds a call, as much as a small kernel.
inline Tensor fresh(const Tensor& like, const int64_t* sizes, const int64_t* strides, int64_t dim,
                    ScalarType dtype) {
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      dim, sizes, strides, torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
      aoti_torch_device_type_cpu(), like.get_device_index(), &handle));
  Tensor result(handle);
  if (!getenv("NOHUGE"))
    advise_huge_pages(result.mutable_data_ptr(), (size_t)result.numel() * result.element_size());
  return result;
}

// Contiguous, of the given sizes.
inline Tensor fresh(const Tensor& like, std::vector<int64_t> sizes, ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size(); d-- > 1;)
    strides[d - 1] = strides[d] * std::max<int64_t>(sizes[d], 1);
  return fresh(like, sizes.data(), strides.data(), (int64_t)sizes.size(), dtype);
}

// As torch.empty_like of a dense tensor.
inline Tensor fresh_like(const Tensor& x) {
  return fresh(x, x.sizes().data(), x.strides().data(), x.dim(), x.scalar_type());
}

// `a` in the layout of `like`, copied only if it has another one.
inline Tensor in_layout_of(const Tensor& a, const Tensor& like) {
  if (same_layout(a, like)) return a;
  Tensor copy = fresh_like(like);
  torch::stable::copy_(copy, a);
  return copy;
}

template <class T>
T* data(const Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// The kernels' element types: float, double, Bf16.
inline bool has_kernel_dtype(const Tensor& x) {
  const ScalarType dtype = x.scalar_type();
  return dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::BFloat16;
}

// f(T{}) for the element type of x, one of the kernels'.
template <class F>
auto with_dtype(const Tensor& x, F f) {
  switch (x.scalar_type()) {
    case ScalarType::Double:
      return f(double{});
    case ScalarType::BFloat16:
      return f(Bf16{});
    default:
      return f(float{});
  }
}

template <class A>
inline constexpr ScalarType kScalarType =
    std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float;

inline double widen(float v) { return v; }
inline double widen(double v) { return v; }
inline double widen(Bf16 v) {
  const uint32_t bits = (uint32_t)v.bits << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline void narrow(double v, float& out) { out = (float)v; }
inline void narrow(double v, double& out) { out = v; }
inline void narrow(double v, Bf16& out) {
  const float value = (float)v;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  out.bits = value == value ? (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) : 0x7fc0;
}

// The n values of a small tensor of kernel dtype, in any stride, as accumulators.
template <class A>
std::vector<A> values(const Tensor& x) {
  const int64_t n = x.numel(), stride = x.dim() == 0 ? 1 : x.stride(0);
  std::vector<A> result(n);
  with_dtype(x, [&](auto type) {
    const auto* p = data<decltype(type)>(x);
    for (int64_t i = 0; i < n; ++i) result[i] = (A)widen(p[i * stride]);
  });
  return result;
}

// How many pieces a loop over `count` items of `bytes` each is worth cutting into.
inline int64_t pieces(int64_t count, int64_t bytes) {
  constexpr int64_t kWorthAThread = 1 << 16;
  const int64_t worth = std::max<int64_t>(1, count * bytes / kWorthAThread);
  return std::min<int64_t>({count, worth, torch::stable::get_num_threads()});
}

// f(piece, begin, end) for every piece of [0, count), on as many threads.
template <class F>
void in_pieces(int64_t pieces, int64_t count, const F& f) {
  const auto run = [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) f(p, count * p / pieces, count * (p + 1) / pieces);
  };
  if (pieces == 1)
    run(0, 1);
  else
    torch::stable::parallel_for(0, pieces, 1, run);
}

}  // namespace entprop
