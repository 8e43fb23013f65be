// One row of logits: loss, entropy, score and gradient, with one exponential per class.
#pragma once

#include <cmath>

#include "vector.h"

namespace ENTPROP_ISA {

// exp(x) for x <= 0: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial in r, n into the exponent.
// Below the normal range the result is 0; NaN goes through.
ENTPROP_INLINE Lanes<float>::V exp_nonpositive(Lanes<float>::V x) {
  using V = Lanes<float>::V;
  using M = Lanes<float>::M;
  const V clamped = x > -87.0f ? x : (V{} - 87.0f);
  const V magic = V{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const V n = (clamped * 1.44269504f + magic) - magic;
  const V r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  V p = V{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const M exponent = __builtin_convertvector(n, M) << 23;
  const V result = (V)((M)p + exponent);
  return x > -87.0f ? result : (x == x ? V{} : x);
}

ENTPROP_INLINE Lanes<double>::V exp_nonpositive(Lanes<double>::V x) {
  for (int i = 0; i < Lanes<double>::count; ++i) x[i] = std::exp(x[i]);
  return x;
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

template <class T>
void loss_row(const LossRow<T>& row) {
  using S = Simd<T>;
  using A = typename S::A;
  using V = typename S::V;
  const int64_t classes = row.classes;
  const V lowest = S::broadcast((A)-INFINITY);

  V highest[4] = {lowest, lowest, lowest, lowest};
  int64_t i = 0;
  for (; i + 4 * S::lanes <= classes; i += 4 * S::lanes) {
    for (int u = 0; u < 4; ++u) {
      const V z = S::load(row.logits + i + u * S::lanes);
      highest[u] = z > highest[u] ? z : highest[u];
    }
  }
  A maximum = (A)-INFINITY;
  for (; i < classes; ++i) {
    const A z = scalar<T>(row.logits + i);
    maximum = z > maximum ? z : maximum;
  }
  for (int u = 0; u < 4; ++u)
    for (int lane = 0; lane < S::lanes; ++lane)
      maximum = highest[u][lane] > maximum ? highest[u][lane] : maximum;

  // With d = z - max: S = sum e^d, T = sum d e^d (both of one sign, nothing cancels), D = sum d.
  V sum_e{}, sum_de{}, sum_d{};
  vectorwise<T>(classes, [&](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
    const bool whole = n == S::lanes;
    const V d =
        (whole ? S::load(row.logits + i) : S::load_some(row.logits + i, n, lowest)) - maximum;
    const V e = exp_nonpositive(d);
    sum_e += e;
    sum_de += e * (e == 0 ? V{} : d);
    if (whole)
      sum_d += d;
    else
      sum_d += S::first(n) ? d : V{};
    store<A>(row.scratch + i, e, n);
  });
  const double total = S::sum(S::widen(sum_e));
  const double log_total = std::log(total);
  const double entropy = log_total - S::sum(S::widen(sum_de)) / total;
  *row.entropy = (A)entropy;

  const bool valid =
      row.label >= 0 && row.label < classes && row.label_b >= 0 && row.label_b < classes;
  const bool scorable = row.label >= 0 && row.label < classes;
  auto distance = [&](int64_t label) { return (double)(scalar<T>(row.logits + label) - maximum); };
  const double on = 1 - row.smoothing, off = row.smoothing / (double)classes;
  if (valid) {
    double expected = weighted(on * row.lam, distance(row.label)) +
                      weighted(on * (1 - row.lam), distance(row.label_b));
    // The targets sum to one, so log S enters the loss once.
    *row.loss = (A)(log_total - (expected + weighted(off, S::sum(S::widen(sum_d)))));
    const A scale = (A)(1 / total), floor = (A)off;
    vectorwise<T>(classes, [&](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
      store<T>(row.dlogits + i, load<A>(row.scratch + i, n) * scale - floor, n);
    });
    const bool same = row.label == row.label_b;
    auto patch = [&](int64_t label, double target) {
      narrow((A)(row.scratch[label] / total - (on * target + off)), row.dlogits + label);
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
      A wrong = (A)-INFINITY;
      for (int64_t i = 0; i < classes; ++i)
        wrong = i != row.label && row.scratch[i] > wrong ? row.scratch[i] : wrong;
      *row.score = scorable ? (A)((wrong - row.scratch[row.label]) / total) : (A)NAN;
    }
  }
}

}  // namespace ENTPROP_ISA
