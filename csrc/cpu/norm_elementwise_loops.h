// The second passes of dual_batch_norm: normalise (forward) and input gradient (backward).
// A stretch is a run of memory: a row of channels, or the plane of one channel (Broadcast).
#pragma once

#include "vector.h"

namespace ENTPROP_ISA {

template <class T, bool Broadcast, class A>
ENTPROP_INLINE typename Simd<T>::V parameter(const A* p, int64_t i, int64_t n) {
  if constexpr (Broadcast) return Simd<T>::broadcast(p[0]);
  return load<A>(p + i, n);
}

template <class A>
ENTPROP_INLINE Affine<A> at_channel(const Affine<A>& affine, int64_t channel) {
  return {affine.mean + channel, affine.scale + channel, affine.shift + channel};
}

template <class Job>
ENTPROP_INLINE int64_t mask_offset(const Job& job, int64_t outer, int64_t side) {
  return outer * job.mask_stride + side * ((job.extent.inner + 7) / 8);
}

// (x - mean) * scale + shift: the one expression from which both directions take the ReLU's sign.
template <class V>
ENTPROP_INLINE V normalised(V x, V mean, V scale, V shift) {
  return (x - mean) * scale + shift;
}

template <class T, Mode mode, bool Broadcast>
void forward_stretch(const NormForward<T>& job, int64_t outer, int64_t side) {
  using V = typename Simd<T>::V;
  constexpr bool relu = mode == Mode::relu || mode == Mode::add_relu;
  constexpr bool add = mode == Mode::add || mode == Mode::add_relu;
  const int64_t offset = outer * job.extent.stride + side * job.extent.inner;
  const T* x = job.x + offset;
  T* y = job.y + offset;
  const T* residual = add ? job.residual + offset : nullptr;
  uint8_t* mask = mode == Mode::add_relu ? job.mask + mask_offset(job, outer, side) : nullptr;
  const auto [mean, scale, shift] = at_channel(job.affine, side);
  vectorwise<T>(job.extent.inner, [=](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
    V v = normalised(load<T>(x + i, n), parameter<T, Broadcast>(mean, i, n),
                     parameter<T, Broadcast>(scale, i, n), parameter<T, Broadcast>(shift, i, n));
    if constexpr (add) v += load<T>(residual + i, n);
    // NaN stays: the comparison that replaces a value is false for it.
    if constexpr (relu) v = v < 0 ? V{} : v;
    store<T>(y + i, v, n);
    if constexpr (mode == Mode::add_relu) Simd<T>::store_bits(mask + i / 8, ~(v <= 0), n);
  });
}

template <class T, Sign sign>
ENTPROP_INLINE typename Simd<T>::V masked(typename Simd<T>::V g, typename Simd<T>::V x,
                                          typename Simd<T>::V mean, typename Simd<T>::V scale,
                                          typename Simd<T>::V shift, const uint8_t* mask,
                                          int64_t n) {
  using V = typename Simd<T>::V;
  if constexpr (sign == Sign::recompute) {
    // As ReLU's own backward: no gradient where y <= 0, the gradient where y is NaN.
    return normalised(x, mean, scale, shift) <= 0 ? V{} : g;
  }
  if constexpr (sign == Sign::mask) return Simd<T>::load_bits(mask, n) ? g : V{};
  return g;
}

template <class T, Sign sign, bool Broadcast>
void backward_stretch(const NormBackward<T>& job, int64_t outer, int64_t side) {
  using V = typename Simd<T>::V;
  const int64_t at = outer * job.extent.stride + side * job.extent.inner;
  const T *grad = job.grad + at, *x = job.x + at;
  const uint8_t* mask = sign == Sign::mask ? job.mask + mask_offset(job, outer, side) : nullptr;
  T* dx = job.dx ? job.dx + at : nullptr;
  T* dresidual = job.dresidual ? job.dresidual + at : nullptr;
  const auto [mean, scale, shift] = at_channel(job.affine, side);
  const bool corrects = job.slope != nullptr;
  const auto *offset = job.offset + side, *slope = job.slope + side;
  vectorwise<T>(job.extent.inner, [=](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
    const V value = load<T>(x + i, n);
    const V m = parameter<T, Broadcast>(mean, i, n);
    const V s = parameter<T, Broadcast>(scale, i, n);
    const V b = parameter<T, Broadcast>(shift, i, n);
    V g = masked<T, sign>(load<T>(grad + i, n), value, m, s, b, mask + i / 8, n);
    if (dresidual) store<T>(dresidual + i, g, n);
    if (!dx) return;
    if (corrects)
      g = g - parameter<T, Broadcast>(offset, i, n) -
          (value - m) * parameter<T, Broadcast>(slope, i, n);
    store<T>(dx + i, g * s, n);
  });
}

// f(outer, side) over a job. Planes that outgrow the second-level cache are walked from the last
// image back, whose values the first pass has just left there; rows of channels are not: measured,
// walking those backwards costs more in prefetching than it saves.
template <class T, bool Broadcast, class F>
ENTPROP_INLINE void walk(const Extent& extent, F f) {
  constexpr int64_t kCacheBytes = 1 << 18;
  const int64_t bytes = extent.outer * extent.side * extent.inner * (int64_t)sizeof(T);
  const bool backwards = Broadcast && bytes > kCacheBytes;
  for (int64_t step = 0; step < extent.outer; ++step) {
    const int64_t outer = backwards ? extent.outer - 1 - step : step;
    for (int64_t side = 0; side < extent.side; ++side) f(outer, side);
  }
}

template <class T, bool Broadcast>
void norm_forward(const NormForward<T>& job) {
  auto* stretch = forward_stretch<T, Mode::plain, Broadcast>;
  if (job.mode == Mode::relu) stretch = forward_stretch<T, Mode::relu, Broadcast>;
  if (job.mode == Mode::add) stretch = forward_stretch<T, Mode::add, Broadcast>;
  if (job.mode == Mode::add_relu) stretch = forward_stretch<T, Mode::add_relu, Broadcast>;
  walk<T, Broadcast>(job.extent, [&](int64_t outer, int64_t side) { stretch(job, outer, side); });
}

template <class T, bool Broadcast>
void norm_backward(const NormBackward<T>& job) {
  auto* stretch = backward_stretch<T, Sign::none, Broadcast>;
  if (job.sign == Sign::recompute) stretch = backward_stretch<T, Sign::recompute, Broadcast>;
  if (job.sign == Sign::mask) stretch = backward_stretch<T, Sign::mask, Broadcast>;
  walk<T, Broadcast>(job.extent, [&](int64_t outer, int64_t side) { stretch(job, outer, side); });
}

}  // namespace ENTPROP_ISA
