// Small planes as rows: the planes of some channels side by side are one row of columns, so that
// vectors run across planes instead of ending short in each.
#pragma once

#include "vector.h"

namespace ENTPROP_ISA {

// Planes of whole vectors need no help.
template <class T>
ENTPROP_INLINE bool are_columns(const Extent& planes) {
  return planes.inner < kSmallPlane && planes.inner % Simd<T>::lanes != 0;
}

// Not `streams`: the rows of a block of channels do not follow each other in memory.
ENTPROP_INLINE Extent as_rows(const Extent& planes) {
  return {planes.outer, 1, planes.side * planes.inner, planes.stride, false};
}

// A value per channel, repeated over the pixels of its plane.
template <class A>
struct Spread {
  A values[kMaxColumns];

  const A* set(const A* per_channel, const Extent& planes) {
    if (!per_channel) return nullptr;
    for (int64_t c = 0; c < planes.side; ++c) {
      const typename Simd<A>::V value = Simd<A>::broadcast(per_channel[c]);
      A* to = values + c * planes.inner;
      vectorwise<A>(planes.inner, [=](int64_t i, int64_t n)
                                      ENTPROP_INLINE_LAMBDA { store<A>(to + i, value, n); });
    }
    return values;
  }
};

template <class A>
struct SpreadAffine {
  Spread<A> mean, scale, shift;

  Affine<A> set(const Affine<A>& per_channel, const Extent& planes) {
    return {mean.set(per_channel.mean, planes), scale.set(per_channel.scale, planes),
            shift.set(per_channel.shift, planes)};
  }
};

// Adds every channel's columns to its sum.
template <class A>
ENTPROP_INLINE void fold(const A* columns, const Extent& planes, double* sums) {
  using S = Simd<A>;
  for (int64_t c = 0; c < planes.side; ++c) {
    typename S::V total{};
    vectorwise<A>(planes.inner, [&](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
      total += load<A>(columns + c * planes.inner + i, n);
    });
    sums[c] += S::sum(S::widen(total));
  }
}

}  // namespace ENTPROP_ISA
