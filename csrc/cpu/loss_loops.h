// One row of logits: loss, entropy, score and gradient, with one exponential per class.
#pragma once

#include <cmath>

#include "vector.h"

namespace ENTPROP_ISA {

// At or below this the exponential counts as 0: float's normal range ends, double's ends
// altogether.
template <class A>
inline constexpr A kVanishing = -746;
template <>
inline constexpr float kVanishing<float> = -87;

// exp(x) for kVanishing <= x <= 0: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial in r, n into the
// exponent. NaN goes through.
ENTPROP_INLINE Lanes<float>::V exp_bounded(Lanes<float>::V x) {
  using V = Lanes<float>::V;
  const V magic = V{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const V n = (x * 1.44269504f + magic) - magic;
  const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  V p = V{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
#if defined(__AVX512F__)
  const __m512 vanishing = _mm512_set1_ps(kVanishing<float>);
  const __mmask16 counts = _mm512_cmp_ps_mask((__m512)x, vanishing, _CMP_NLE_UQ);
  return (V)_mm512_maskz_scalef_ps(counts, (__m512)p, (__m512)n);
#else
  using M = Lanes<float>::M;
  const V result = (V)((M)p + (__builtin_convertvector(n, M) << 23));
  return x <= kVanishing<float> ? V{} : result;
#endif
}

ENTPROP_INLINE Lanes<double>::V exp_bounded(Lanes<double>::V x) {
  for (int i = 0; i < Lanes<double>::count; ++i) x[i] = std::exp(x[i]);
  return x;
}

template <class E, int N>
struct Vector {
  typedef E type __attribute__((vector_size(N * sizeof(E))));
};

// f over all lanes, half with half: a chain of log2 N steps, not of N.
template <class E, int N, class F>
ENTPROP_INLINE E fold(const typename Vector<E, N>::type& v, F f) {
  if constexpr (N == 1) {
    return v[0];
  } else {
    typename Vector<E, N / 2>::type halves[2];
    __builtin_memcpy(halves, &v, sizeof v);
    return fold<E, N / 2>(f(halves[0], halves[1]), f);
  }
}

template <class T>
ENTPROP_INLINE Accumulator<T> largest(typename Simd<T>::V v) {
  const auto larger = [](const auto& a, const auto& b)
                          ENTPROP_INLINE_LAMBDA { return a > b ? a : b; };
  return fold<Accumulator<T>, Simd<T>::lanes>(v, larger);
}

template <class T>
ENTPROP_INLINE double total_of(typename Simd<T>::V v) {
  const auto added = [](const auto& a, const auto& b) ENTPROP_INLINE_LAMBDA { return a + b; };
  return fold<double, Simd<T>::lanes>(Simd<T>::widen(v), added);
}

// The largest of `count` values; NaN is passed over.
template <class T>
ENTPROP_INLINE Accumulator<T> largest(const T* values, int64_t count) {
  using S = Simd<T>;
  using V = typename S::V;
  const V lowest = S::broadcast((Accumulator<T>)-INFINITY);
  V highest[4] = {lowest, lowest, lowest, lowest};
  int64_t i = 0;
  for (; i + 4 * S::lanes <= count; i += 4 * S::lanes) {
    for (int u = 0; u < 4; ++u) {
      const V z = S::load(values + i + u * S::lanes);
      highest[u] = z > highest[u] ? z : highest[u];
    }
  }
  for (; i + S::lanes <= count; i += S::lanes) {
    const V z = S::load(values + i);
    highest[0] = z > highest[0] ? z : highest[0];
  }
  if (i < count) {
    const V z = S::load_some(values + i, count - i, lowest);
    highest[1] = z > highest[1] ? z : highest[1];
  }
  for (int u = 1; u < 4; ++u) highest[0] = highest[u] > highest[0] ? highest[u] : highest[0];
  return largest<T>(highest[0]);
}

// A term of weight zero is zero, however unlikely its class.
ENTPROP_INLINE double weighted(double weight, double value) {
  return weight == 0 ? 0 : weight * value;
}

template <class T>
ENTPROP_INLINE void fill_nan(const LossRow<T>& row) {
  using S = Simd<T>;
  const typename S::V nan = S::broadcast(__builtin_nanf(""));
  vectorwise<T>(row.classes, [&](int64_t i, int64_t n)
                                 ENTPROP_INLINE_LAMBDA { store<T>(row.dlogits + i, nan, n); });
}

// Plain parameter on purpose: a store through one of its pointers cannot change a copy.
template <class T>
ENTPROP_INLINE void loss_row_of(const LossRow<T> row) {
  using S = Simd<T>;
  using A = typename S::A;
  using V = typename S::V;
  const int64_t classes = row.classes;
  const A maximum = largest<T>(row.logits, classes);

  // With d = z - max: S = sum e^d, T = sum d e^d (both of one sign, nothing cancels).
  const V lowest = S::broadcast((A)-INFINITY), vanishing = S::broadcast(kVanishing<A>);
  V sum_e{}, sum_de{};
  vectorwise<T>(classes, [&](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
    const V z = n == S::lanes ? S::load(row.logits + i) : S::load_some(row.logits + i, n, lowest);
    V d = z - maximum;
    d = d < vanishing ? vanishing : d;  // finite where e is 0
    const V e = exp_bounded(d);
    sum_e += e;
    sum_de += e * d;
    Simd<A>::store(row.scratch + i, e);
  });
  const double total = total_of<T>(sum_e);
  const double log_total = std::log(total);
  const double entropy = log_total - total_of<T>(sum_de) / total;
  *row.entropy = (A)entropy;

  const bool scorable = row.label >= 0 && row.label < classes;
  const bool valid = scorable && row.label_b >= 0 && row.label_b < classes;
  const auto distance = [&](int64_t label) {
    return (double)(scalar<T>(row.logits + label) - maximum);
  };
  const double on = 1 - row.smoothing, off = row.smoothing / (double)classes;
  if (valid) {
    // The targets sum to one, so log S enters the loss once.
    double expected = weighted(on * row.lam, distance(row.label)) +
                      weighted(on * (1 - row.lam), distance(row.label_b));
    if (off != 0) {
      V sum_d{};
      vectorwise<T>(classes, [&](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
        const V z = n == S::lanes ? S::load(row.logits + i)
                                  : S::load_some(row.logits + i, n, S::broadcast(maximum));
        sum_d += z - maximum;
      });
      expected += off * total_of<T>(sum_d);
    }
    *row.loss = (A)(log_total - expected);
    const double scale = 1 / total;
    vectorwise<T>(classes, [&](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
      store<T>(row.dlogits + i, Simd<A>::load(row.scratch + i) * (A)scale - (A)off, n);
    });
    const bool same = row.label == row.label_b;
    const auto patch = [&](int64_t label, double target) {
      narrow((A)(row.scratch[label] * scale - (on * target + off)), row.dlogits + label);
    };
    patch(row.label, same ? 1.0 : row.lam);
    if (!same) patch(row.label_b, 1 - row.lam);
  } else {
    *row.loss = (A)NAN;
    fill_nan(row);
  }

  switch (row.score_kind) {
    case Score::entropy:
      *row.score = (A)entropy;
      break;
    case Score::confidence:
      *row.score = (A)(-1 / total);
      break;
    case Score::cross_entropy:
      *row.score = scorable ? (A)(log_total - distance(row.label)) : (A)NAN;
      break;
    case Score::margin: {
      *row.score = (A)NAN;
      if (!scorable) break;
      const A right = row.scratch[row.label];
      row.scratch[row.label] = (A)-INFINITY;
      *row.score = (A)((largest<A>(row.scratch, classes) - right) / total);
    }
  }
}

template <class T>
void loss_row(const LossRow<T>& row) {
  loss_row_of<T>(row);
}

}  // namespace ENTPROP_ISA
