// The first passes of dual_batch_norm: statistics (forward) and the two sums of the backward.
// Partial sums in the accumulator type over a bounded tile, tiles merged in double.
#pragma once

#include "norm_elementwise_loops.h"

namespace ENTPROP_ISA {

constexpr int64_t kTileRows = 64;        // rows that a channel's partial sum covers
constexpr int64_t kTileElements = 8192;  // values of a channel under one shift, where it has planes

// Rounding of the variance grows by 1 + (mean - shift)^2 / variance with the distance of the shift.
// Beyond this the tile, still in cache, is summed again with its own mean as the shift.
constexpr double kFar = 1;

// At least one: a very large plane is a tile of its own.
ENTPROP_INLINE int64_t images_per_tile(int64_t inner) {
  return kTileElements / inner > 0 ? kTileElements / inner : 1;
}

template <class A>
ENTPROP_INLINE A finite_or_zero(A value) {
  return value - value == 0 ? value : 0;
}

// Whether a shift of the tile is further from the mean than the deviation (NaN is not).
template <class S>
ENTPROP_INLINE bool is_far(const S* s1, const S* s2, int64_t channels, double per_n) {
  int far = 0;
  for (int64_t c = 0; c < channels; ++c) {
    const double square = (double)s1[c] * s1[c] * per_n;
    far |= square > kFar * ((double)s2[c] - square);
  }
  return far != 0;
}

// Chan's update of the moments with a tile of n values, given as sums around `shift`; the new mean
// is the next tile's shift.
template <class A, class S>
ENTPROP_INLINE void absorb(A* shift, const S* s1, const S* s2, int64_t channels, double n,
                           Moments* out) {
  const double per_n = 1 / n, share = n / ((double)out->count + n);
  const double product = (double)out->count * share;
  double *mean = out->mean, *m2 = out->m2;
  for (int64_t c = 0; c < channels; ++c) {
    const double offset = (double)s1[c] * per_n, delta = shift[c] + offset - mean[c];
    mean[c] += delta * share;
    m2[c] += (double)s2[c] - (double)s1[c] * offset + delta * delta * product;
    shift[c] = finite_or_zero((A)mean[c]);
  }
  out->count += (int64_t)n;
}

// s1 += sum d, s2 += sum d^2 with d = x - shift, over R rows.
template <class T, int R>
ENTPROP_INLINE void add_rows(const T* x, int64_t inner, const Accumulator<T>* shift,
                             Accumulator<T>* s1, Accumulator<T>* s2) {
  using A = Accumulator<T>;
  using V = typename Simd<T>::V;
  vectorwise<T>(inner, [=](int64_t c, int64_t n) ENTPROP_INLINE_LAMBDA {
    const V k = load<A>(shift + c, n);
    V sum{}, squares{};
    for (int r = 0; r < R; ++r) {
      const V d = load<T>(x + r * inner + c, n) - k;
      sum += d;
      squares += d * d;
    }
    store<A>(s1 + c, load<A>(s1 + c, n) + sum, n);
    store<A>(s2 + c, load<A>(s2 + c, n) + squares, n);
  });
}

template <class T>
void row_moments(const T* x, Extent extent, Accumulator<T>* scratch, Moments* out) {
  using A = Accumulator<T>;
  const int64_t inner = extent.inner;
  A *shift = scratch, *s1 = shift + inner, *s2 = s1 + inner;
  for (int64_t c = 0; c < inner; ++c) shift[c] = finite_or_zero(scalar<T>(x + c));
  for (int64_t row = 0; row < extent.outer; row += kTileRows) {
    const int64_t rows = extent.outer - row < kTileRows ? extent.outer - row : kTileRows;
    const T* tile = x + row * inner;
    const double n = (double)rows;
    for (int attempt = 0;; ++attempt) {
      for (int64_t c = 0; c < inner; ++c) s1[c] = s2[c] = 0;
      int64_t r = 0;
      for (; r + 4 <= rows; r += 4) add_rows<T, 4>(tile + r * inner, inner, shift, s1, s2);
      for (; r < rows; ++r) add_rows<T, 1>(tile + r * inner, inner, shift, s1, s2);
      if (attempt == 1 || !is_far(s1, s2, inner, 1 / n)) break;
      for (int64_t c = 0; c < inner; ++c)
        shift[c] = finite_or_zero((A)(shift[c] + (double)s1[c] / n));
    }
    absorb(shift, s1, s2, inner, n, out);
  }
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
  for (int64_t image = first, held = 0; image < last; ++image) {
    for (int64_t c = 0; c < side; ++c) {
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

template <class T>
void plane_moments(const T* x, Extent extent, Moments* out) {
  using S = Simd<T>;
  using A = Accumulator<T>;
  using V = typename S::V;
  const auto [outer, side, inner, stride] = extent;
  A shift[kMaxSide];
  for (int64_t c = 0; c < side; ++c) shift[c] = finite_or_zero(scalar<T>(x + c * inner));
  for (int64_t first = 0; first < outer;) {
    const int64_t images = images_per_tile(inner);
    const int64_t last = first + images < outer ? first + images : outer;
    const double n = (double)((last - first) * inner), per_n = 1 / n;
    double s1[kMaxSide], s2[kMaxSide];
    for (int attempt = 0;; ++attempt) {
      for (int64_t c = 0; c < side; ++c) s1[c] = s2[c] = 0;
      sum_planes<T>(first, last, side, inner, s1, s2,
                    [=, &shift, inner = inner, stride = stride](int64_t image, int64_t c, int64_t i,
                                                                int64_t count, V& d, V& square)
                        ENTPROP_INLINE_LAMBDA {
                          const T* at = x + image * stride + c * inner + i;
                          const V k = S::broadcast(shift[c]);
                          d = (count == S::lanes ? S::load(at) : S::load_some(at, count, k)) - k;
                          square = d * d;
                        });
      if (attempt == 1 || !is_far(s1, s2, side, per_n)) break;
      for (int64_t c = 0; c < side; ++c) shift[c] = finite_or_zero((A)(shift[c] + s1[c] * per_n));
    }
    absorb(shift, s1, s2, side, n, out);
    first = last;
  }
}

template <class T, Sign sign, int R>
ENTPROP_INLINE void reduce_rows(const NormBackward<T>& job, int64_t row, Accumulator<T>* s_g,
                                Accumulator<T>* s_gx) {
  using A = Accumulator<T>;
  using V = typename Simd<T>::V;
  const int64_t inner = job.extent.inner, at = row * inner;
  const T *grad = job.grad + at, *x = job.x + at;
  const int64_t mask_stride = job.mask_stride;
  const uint8_t* mask = sign == Sign::mask ? job.mask + row * mask_stride : nullptr;
  const auto [mean, scale, shift] = job.affine;
  vectorwise<T>(inner, [=](int64_t c, int64_t n) ENTPROP_INLINE_LAMBDA {
    const V m = load<A>(mean + c, n);
    const V s = load<A>(scale + c, n), b = load<A>(shift + c, n);
    V sum{}, products{};
    for (int r = 0; r < R; ++r) {
      const V value = load<T>(x + r * inner + c, n);
      const V g = masked<T, sign>(load<T>(grad + r * inner + c, n), value, m, s, b,
                                  mask + r * mask_stride + c / 8, n);
      sum += g;
      products += g * (value - m);
    }
    store<A>(s_g + c, load<A>(s_g + c, n) + sum, n);
    store<A>(s_gx + c, load<A>(s_gx + c, n) + products, n);
  });
}

template <class T, Sign sign>
void reduce_all_rows(const NormBackward<T>& job, Accumulator<T>* scratch, double* sum_g,
                     double* sum_gx) {
  const int64_t inner = job.extent.inner, rows = job.extent.outer;
  auto *s_g = scratch, *s_gx = scratch + inner;
  for (int64_t row = 0; row < rows;) {
    const int64_t end = row + kTileRows < rows ? row + kTileRows : rows;
    for (int64_t c = 0; c < inner; ++c) s_g[c] = s_gx[c] = 0;
    for (; row + 4 <= end; row += 4) reduce_rows<T, sign, 4>(job, row, s_g, s_gx);
    for (; row < end; ++row) reduce_rows<T, sign, 1>(job, row, s_g, s_gx);
    for (int64_t c = 0; c < inner; ++c) {
      sum_g[c] += s_g[c];
      sum_gx[c] += s_gx[c];
    }
  }
}

template <class T, Sign sign>
void reduce_all_planes(const NormBackward<T>& job, double* sum_g, double* sum_gx) {
  using S = Simd<T>;
  using V = typename S::V;
  sum_planes<T>(0, job.extent.outer, job.extent.side, job.extent.inner, sum_g, sum_gx,
                [job](int64_t image, int64_t c, int64_t i, int64_t n, V& g, V& product)
                    ENTPROP_INLINE_LAMBDA {
                      const int64_t at = image * job.extent.stride + c * job.extent.inner + i;
                      const V m = S::broadcast(job.affine.mean[c]);
                      const V s = S::broadcast(job.affine.scale[c]);
                      const V b = S::broadcast(job.affine.shift[c]);
                      // Past the end g = 0, and x = mean keeps the product from being 0 * NaN.
                      const V value =
                          n == S::lanes ? S::load(job.x + at) : S::load_some(job.x + at, n, m);
                      const uint8_t* bits = job.mask + mask_offset(job, image, c) + i / 8;
                      g = masked<T, sign>(load<T>(job.grad + at, n), value, m, s, b, bits, n);
                      product = g * (value - m);
                    });
}

template <class T>
void row_reduce(const NormBackward<T>& job, Accumulator<T>* scratch, double* sum_g,
                double* sum_gx) {
  auto* reduce = reduce_all_rows<T, Sign::none>;
  if (job.sign == Sign::recompute) reduce = reduce_all_rows<T, Sign::recompute>;
  if (job.sign == Sign::mask) reduce = reduce_all_rows<T, Sign::mask>;
  reduce(job, scratch, sum_g, sum_gx);
}

template <class T>
void plane_reduce(const NormBackward<T>& job, double* sum_g, double* sum_gx) {
  auto* reduce = reduce_all_planes<T, Sign::none>;
  if (job.sign == Sign::recompute) reduce = reduce_all_planes<T, Sign::recompute>;
  if (job.sign == Sign::mask) reduce = reduce_all_planes<T, Sign::mask>;
  reduce(job, sum_g, sum_gx);
}

}  // namespace ENTPROP_ISA
