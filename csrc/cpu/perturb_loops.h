// The sign step of gather_perturb and perturb_.
#pragma once

#include "vector.h"

namespace ENTPROP_ISA {

template <class T, bool Onward>
ENTPROP_INLINE typename Simd<T>::V stepped(typename Simd<T>::V x, typename Simd<T>::V x_adv,
                                           typename Simd<T>::V g, typename Simd<T>::V alpha,
                                           typename Simd<T>::V eps, typename Simd<T>::V lo,
                                           typename Simd<T>::V hi) {
  using V = typename Simd<T>::V;
  V step = g > 0 ? alpha : (g < 0 ? -alpha : V{});
  if constexpr (Onward) step = x_adv - x + step;
  return clamp<V>(x + clamp<V>(step, -eps, eps), lo, hi);
}

template <class T, bool Onward>
ENTPROP_INLINE void perturb_stretch(T* out, const T* x_adv, const T* grad, const T* x,
                                    int64_t count, const Bounds<Accumulator<T>>& bounds) {
  using S = Simd<T>;
  using V = typename S::V;
  using SA = Simd<typename S::A>;
  const bool one = bounds.period == 1;
  auto bound = [&](const typename S::A* values, int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
    if (one) return S::broadcast(values[0]);
    return n == S::lanes ? SA::load(values + i) : SA::load_some(values + i, n, V{});
  };
  auto at = [&](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
    auto load = [&](const T* p) ENTPROP_INLINE_LAMBDA {
      return n == S::lanes ? S::load(p + i) : S::load_some(p + i, n, V{});
    };
    const V result = stepped<T, Onward>(load(x), Onward ? load(x_adv) : V{}, load(grad),
                                        bound(bounds.alpha, i, n), bound(bounds.eps, i, n),
                                        bound(bounds.lo, i, n), bound(bounds.hi, i, n));
    if (n == S::lanes)
      S::store(out + i, result);
    else
      S::store_some(out + i, n, result);
  };
  int64_t i = 0;
  for (; i + S::lanes <= count; i += S::lanes) at(i, S::lanes);
  if (i < count) at(i, count - i);
}

template <class T>
void perturb(T* out, const T* x_adv, const T* grad, const T* x, int64_t count,
             const Bounds<Accumulator<T>>& bounds) {
  const int64_t stretch = bounds.period == 1 ? count : bounds.period;
  for (int64_t i = 0; i < count; i += stretch) {
    const int64_t n = count - i < stretch ? count - i : stretch;
    if (x_adv == nullptr)
      perturb_stretch<T, false>(out + i, nullptr, grad + i, x + i, n, bounds);
    else
      perturb_stretch<T, true>(out + i, x_adv + i, grad + i, x + i, n, bounds);
  }
}

}  // namespace ENTPROP_ISA
