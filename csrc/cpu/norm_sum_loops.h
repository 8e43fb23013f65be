// What the first passes of dual_batch_norm share: partial sums in the accumulator type over a
// bounded tile, tiles merged in double.
#pragma once

#include "norm_elementwise_loops.h"

namespace ENTPROP_ISA {

constexpr int64_t kTileRows = 64;  // rows that a column's partial sum covers

// Counts the vectors of R rows in the order of memory, while they are taken column by column: what
// to prefetch, of the next R rows, for prefetchers to follow.
template <class T, int R>
ENTPROP_INLINE int64_t in_order(int64_t c, int64_t r) {
  return c * R + r * Simd<T>::lanes;
}

// Adds up two terms over the planes of `side` channels in the images [first, last): terms(image,
// channel, i, n, p, q) gives those of n elements from i. Vectors of accumulators are emptied into
// double as they fill.
template <class T, class Terms>
ENTPROP_INLINE void sum_planes(int64_t first, int64_t last, int64_t side, int64_t inner,
                               double* sum_p, double* sum_q, Terms terms) {
  using S = Simd<T>;
  using V = typename S::V;
  constexpr int64_t kFull = 16;  // additions to an accumulator
  V p[kMaxSide], q[kMaxSide];
  typename S::Wide total_p[kMaxSide], total_q[kMaxSide];
  for (int64_t c = 0; c < side; ++c) p[c] = q[c] = V{};
  for (int64_t c = 0; c < side; ++c) total_p[c] = total_q[c] = typename S::Wide{};
  auto empty = [&](int64_t c) ENTPROP_INLINE_LAMBDA {
    total_p[c] += S::widen(p[c]);
    total_q[c] += S::widen(q[c]);
    p[c] = q[c] = V{};
  };
  const int64_t vectors = (inner + S::lanes - 1) / S::lanes;
  const int64_t images = vectors >= 4 * kFull ? 1 : (4 * kFull + vectors - 1) / vectors;
  auto add_short_plane = [&](int64_t image, int64_t c) ENTPROP_INLINE_LAMBDA {
    V a{}, b{};
    vectorwise<T>(inner, [&](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
      V term_a, term_b;
      terms(image, c, i, n, term_a, term_b);
      a += term_a;
      b += term_b;
    });
    p[c] += a;
    q[c] += b;
  };
  auto add_long_plane = [&](int64_t image, int64_t c) ENTPROP_INLINE_LAMBDA {
    V a[4] = {}, b[4] = {};
    auto add = [&](int64_t i, int64_t n, int u) ENTPROP_INLINE_LAMBDA {
      V term_a, term_b;
      terms(image, c, i, n, term_a, term_b);
      a[u] += term_a;
      b[u] += term_b;
    };
    int64_t i = 0;
    while (i + 4 * S::lanes <= inner) {
      const int64_t room = i + kFull * 4 * S::lanes, stop = room < inner ? room : inner;
      for (; i + 4 * S::lanes <= stop; i += 4 * S::lanes)
        for (int u = 0; u < 4; ++u) add(i + u * S::lanes, S::lanes, u);
      p[c] += (a[0] + a[1]) + (a[2] + a[3]);
      q[c] += (b[0] + b[1]) + (b[2] + b[3]);
      for (int u = 0; u < 4; ++u) a[u] = b[u] = V{};
      if (i + 4 * S::lanes <= inner) empty(c);
    }
    for (; i + S::lanes <= inner; i += S::lanes) add(i, S::lanes, 0);
    if (i < inner) add(i, inner - i, 1);
    p[c] += a[0] + a[1];
    q[c] += b[0] + b[1];
  };
  for (int64_t image = first, held = 0; image < last; ++image) {
    for (int64_t c = 0; c < side; ++c) {
      if (inner < kSmallPlane)
        add_short_plane(image, c);
      else
        add_long_plane(image, c);
    }
    if (++held < images) continue;
    for (int64_t c = 0; c < side; ++c) empty(c);
    held = 0;
  }
  for (int64_t c = 0; c < side; ++c) {
    empty(c);
    sum_p[c] += S::sum(total_p[c]);
    sum_q[c] += S::sum(total_q[c]);
  }
}

}  // namespace ENTPROP_ISA
