// The second passes of dual_batch_norm: normalise (forward) and input gradient (backward).
// Rows of channels have a vector of every parameter for each vector of values, planes one value of
// every parameter for all.
#pragma once

#include <type_traits>

#include "norm_small_planes.h"

namespace ENTPROP_ISA {

// Rows that share one load of the parameters. What streams through the caches is taken row by row
// instead: prefetchers follow memory in its order and lose four rows of one page.
inline constexpr int kRowsAtOnce = 4;

ENTPROP_INLINE int64_t rows_together(const Extent& rows) {
  return rows.streams ? 0 : rows.outer / kRowsAtOnce * kRowsAtOnce;
}

template <class A>
ENTPROP_INLINE Affine<A> at_channel(const Affine<A>& affine, int64_t channel) {
  return {affine.mean + channel, affine.scale + channel, affine.shift + channel};
}

// (x - mean) * scale + shift: the one expression from which both directions take the ReLU's sign.
template <class V>
ENTPROP_INLINE V normalised(V x, V mean, V scale, V shift) {
  return (x - mean) * scale + shift;
}

// n elements from `at`, whose bits of the mask start at `bits`.
template <class T, Mode mode, class V>
ENTPROP_INLINE void forward_vector(const NormForward<T>& job, int64_t at, uint8_t* bits, V mean,
                                   V scale, V shift, int64_t n) {
  V v = normalised(load<T>(job.x + at, n), mean, scale, shift);
  if constexpr (mode == Mode::add || mode == Mode::add_relu) v += load<T>(job.residual + at, n);
  // NaN stays: the comparison that replaces a value is false for it.
  if constexpr (mode == Mode::relu || mode == Mode::add_relu) v = v < 0 ? V{} : v;
  store<T>(job.y + at, v, n);
  if constexpr (mode == Mode::add_relu) Simd<T>::store_bits(bits, ~(v <= 0), n);
}

template <class T, Sign sign, class V>
ENTPROP_INLINE V masked(V g, V x, V mean, V scale, V shift, const uint8_t* bits, int64_t n) {
  // As ReLU's own backward: no gradient where y <= 0, the gradient where y is NaN.
  if constexpr (sign == Sign::recompute) return normalised(x, mean, scale, shift) <= 0 ? V{} : g;
  if constexpr (sign == Sign::mask) return Simd<T>::load_bits(bits, n) ? g : V{};
  return g;
}

// The gradient of y: of both its readers, summed as autograd would, where it has two.
template <class T>
ENTPROP_INLINE typename Simd<T>::V incoming(const NormBackward<T>& job, int64_t at, int64_t n) {
  const typename Simd<T>::V g = load<T>(job.grad + at, n);
  return job.again ? rounded<T>(g + load<T>(job.again + at, n)) : g;
}

template <class T, Sign sign, class V>
ENTPROP_INLINE void backward_vector(const NormBackward<T>& job, int64_t at, const uint8_t* bits,
                                    V mean, V scale, V shift, V offset, V slope, int64_t n) {
  const V value = load<T>(job.x + at, n);
  V g = masked<T, sign>(incoming(job, at, n), value, mean, scale, shift, bits, n);
  if (job.dresidual) store<T>(job.dresidual + at, g, n);
  if (!job.dx) return;
  if (job.slope) g = g - offset - (value - mean) * slope;
  V dx = g * scale;
  if (job.dtotal) dx = rounded<T>(dx) + load<T>(job.dtotal + at, n);
  store<T>(job.dx + at, dx, n);
}

template <class T, Mode mode, int R>
ENTPROP_INLINE void forward_rows(const NormForward<T> job, int64_t row) {
  using A = Accumulator<T>;
  using V = typename Simd<T>::V;
  vectorwise<T>(job.extent.inner, [=](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
    const V m = load<A>(job.affine.mean + i, n), s = load<A>(job.affine.scale + i, n);
    const V b = load<A>(job.affine.shift + i, n);
    for (int64_t r = row; r < row + R; ++r)
      forward_vector<T, mode>(job, r * job.extent.stride + i,
                              job.mask + r * job.mask_stride + i / 8, m, s, b, n);
  });
}

template <class T, Mode mode>
void forward_all_rows(const NormForward<T>& job) {
  int64_t row = 0;
  for (; row < rows_together(job.extent); row += kRowsAtOnce)
    forward_rows<T, mode, kRowsAtOnce>(job, row);
  for (; row < job.extent.outer; ++row) forward_rows<T, mode, 1>(job, row);
}

template <class T, Sign sign, int R>
ENTPROP_INLINE void backward_rows(const NormBackward<T> job, int64_t row) {
  using A = Accumulator<T>;
  using V = typename Simd<T>::V;
  vectorwise<T>(job.extent.inner, [=](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
    const V m = load<A>(job.affine.mean + i, n), s = load<A>(job.affine.scale + i, n);
    const V b = load<A>(job.affine.shift + i, n);
    const V offset = job.slope ? load<A>(job.offset + i, n) : V{};
    const V slope = job.slope ? load<A>(job.slope + i, n) : V{};
    for (int64_t r = row; r < row + R; ++r)
      backward_vector<T, sign>(job, r * job.extent.stride + i,
                               job.mask + r * job.mask_stride + i / 8, m, s, b, offset, slope, n);
  });
}

template <class T, Sign sign>
void backward_all_rows(const NormBackward<T>& job) {
  int64_t row = 0;
  for (; row < rows_together(job.extent); row += kRowsAtOnce)
    backward_rows<T, sign, kRowsAtOnce>(job, row);
  for (; row < job.extent.outer; ++row) backward_rows<T, sign, 1>(job, row);
}

template <class Job>
ENTPROP_INLINE int64_t mask_offset(const Job& job, int64_t outer, int64_t side) {
  return outer * job.mask_stride + side * ((job.extent.inner + 7) / 8);
}

// f(image, channel) over the planes of a job. What outgrows the second-level cache is walked from
// the last image back, whose values the first pass has just left there; rows of channels are not:
// measured, walking those backwards costs more in prefetching than it saves.
template <class T, class F>
ENTPROP_INLINE void for_planes(const Extent& extent, F f) {
  constexpr int64_t kCacheBytes = 1 << 18;
  const int64_t bytes = extent.outer * extent.side * extent.inner * (int64_t)sizeof(T);
  for (int64_t step = 0; step < extent.outer; ++step) {
    const int64_t image = bytes > kCacheBytes ? extent.outer - 1 - step : step;
    for (int64_t channel = 0; channel < extent.side; ++channel) f(image, channel);
  }
}

template <class T, Mode mode>
void forward_all_planes(const NormForward<T>& job) {
  using S = Simd<T>;
  using V = typename S::V;
  for_planes<T>(job.extent, [job](int64_t image, int64_t channel) ENTPROP_INLINE_LAMBDA {
    const int64_t at = image * job.extent.stride + channel * job.extent.inner;
    uint8_t* bits = job.mask + mask_offset(job, image, channel);
    const V m = S::broadcast(job.affine.mean[channel]), s = S::broadcast(job.affine.scale[channel]);
    const V b = S::broadcast(job.affine.shift[channel]);
    vectorwise<T>(job.extent.inner, [=](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
      forward_vector<T, mode>(job, at + i, bits + i / 8, m, s, b, n);
    });
  });
}

template <class T, Sign sign>
void backward_all_planes(const NormBackward<T>& job) {
  using S = Simd<T>;
  using V = typename S::V;
  for_planes<T>(job.extent, [job](int64_t image, int64_t channel) ENTPROP_INLINE_LAMBDA {
    const int64_t at = image * job.extent.stride + channel * job.extent.inner;
    const uint8_t* bits = job.mask + mask_offset(job, image, channel);
    const V m = S::broadcast(job.affine.mean[channel]), s = S::broadcast(job.affine.scale[channel]);
    const V b = S::broadcast(job.affine.shift[channel]);
    const V offset = job.slope ? S::broadcast(job.offset[channel]) : V{};
    const V slope = job.slope ? S::broadcast(job.slope[channel]) : V{};
    vectorwise<T>(job.extent.inner, [=](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
      backward_vector<T, sign>(job, at + i, bits + i / 8, m, s, b, offset, slope, n);
    });
  });
}

// The function that `of` names for a mode, or for a sign, which it is given as a constant.
template <class F>
auto* by_mode(Mode mode, F of) {
  auto* found = of(std::integral_constant<Mode, Mode::plain>());
  if (mode == Mode::relu) found = of(std::integral_constant<Mode, Mode::relu>());
  if (mode == Mode::add) found = of(std::integral_constant<Mode, Mode::add>());
  if (mode == Mode::add_relu) found = of(std::integral_constant<Mode, Mode::add_relu>());
  return found;
}

template <class F>
auto* by_sign(Sign sign, F of) {
  auto* found = of(std::integral_constant<Sign, Sign::none>());
  if (sign == Sign::recompute) found = of(std::integral_constant<Sign, Sign::recompute>());
  if (sign == Sign::mask) found = of(std::integral_constant<Sign, Sign::mask>());
  return found;
}

template <class T>
void row_forward(const NormForward<T>& job) {
  by_mode(job.mode, [](auto mode) { return forward_all_rows<T, mode()>; })(job);
}

template <class T>
void plane_forward(const NormForward<T>& job) {
  if (are_columns<T>(job.extent)) {
    SpreadAffine<Accumulator<T>> affine;
    NormForward<T> rows = job;
    rows.affine = affine.set(job.affine, job.extent);
    rows.extent = as_rows(job.extent);
    return row_forward(rows);
  }
  by_mode(job.mode, [](auto mode) { return forward_all_planes<T, mode()>; })(job);
}

template <class T>
void row_backward(const NormBackward<T>& job) {
  by_sign(job.sign, [](auto sign) { return backward_all_rows<T, sign()>; })(job);
}

template <class T>
void plane_backward(const NormBackward<T>& job) {
  if (are_columns<T>(job.extent)) {
    SpreadAffine<Accumulator<T>> affine;
    Spread<Accumulator<T>> offset, slope;
    NormBackward<T> rows = job;
    rows.affine = affine.set(job.affine, job.extent);
    rows.offset = offset.set(job.offset, job.extent);
    rows.slope = slope.set(job.slope, job.extent);
    rows.extent = as_rows(job.extent);
    return row_backward(rows);
  }
  by_sign(job.sign, [](auto sign) { return backward_all_planes<T, sign()>; })(job);
}

}  // namespace ENTPROP_ISA
