// The first pass of dual_batch_norm's forward: mean and variance of every channel.
#pragma once

#include "norm_sum_loops.h"

namespace ENTPROP_ISA {

constexpr int64_t kTileElements = 8192;  // values of a channel under one shift, where it has planes

// The first shift is the mean of so many rows or pixels: a single value is far too often.
constexpr int64_t kSampleRows = 8;
constexpr int64_t kSamplePixels = 256;

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
ENTPROP_INLINE void add_rows(const T* x, const Extent& extent, const Accumulator<T>* shift,
                             Accumulator<T>* s1, Accumulator<T>* s2) {
  using A = Accumulator<T>;
  using V = typename Simd<T>::V;
  const int64_t stride = extent.stride;
  const T* next = extent.streams ? x + R * stride : nullptr;
  vectorwise<T>(extent.inner, [=](int64_t c, int64_t n) ENTPROP_INLINE_LAMBDA {
    const V k = load<A>(shift + c, n);
    V sum{}, squares{};
    for (int r = 0; r < R; ++r) {
      if (next) __builtin_prefetch(next + in_order<T, R>(c, r));
      const V d = load<T>(x + r * stride + c, n) - k;
      sum += d;
      squares += d * d;
    }
    store<A>(s1 + c, load<A>(s1 + c, n) + sum, n);
    store<A>(s2 + c, load<A>(s2 + c, n) + squares, n);
  });
}

template <class T>
ENTPROP_INLINE void sum_rows(const T* x, int64_t rows, const Extent& extent,
                             const Accumulator<T>* shift, Accumulator<T>* s1, Accumulator<T>* s2) {
  for (int64_t c = 0; c < extent.inner; ++c) s1[c] = s2[c] = 0;
  int64_t r = 0;
  for (; r + kRowsAtOnce <= rows; r += kRowsAtOnce)
    add_rows<T, kRowsAtOnce>(x + r * extent.stride, extent, shift, s1, s2);
  for (; r < rows; ++r) add_rows<T, 1>(x + r * extent.stride, extent, shift, s1, s2);
}

// total = x + addend, of `count` elements; as every sum that is stored, rounded to their type.
template <class T>
void add_up(const Summands<T>& in, int64_t count) {
  vectorwise<T>(count, [=](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
    store<T>(in.total + i, load<T>(in.x + i, n) + load<T>(in.addend + i, n), n);
  });
}

// Where there is an addend: a tile's sums, of `count` elements in each of its rows or images, just
// before its moments are taken, while they are in cache.
template <class T>
ENTPROP_INLINE void add_up_tile(const Summands<T>& in, int64_t first, int64_t last, int64_t count,
                                int64_t stride) {
  if (!in.addend) return;
  for (int64_t at = first * stride; at < last * stride; at += stride)
    add_up<T>({in.x + at, in.addend + at, in.total + at}, count);
}

template <class T>
void row_moments(const Summands<T>& in, Extent extent, Accumulator<T>* scratch, Moments* out) {
  using A = Accumulator<T>;
  const int64_t inner = extent.inner;
  const T* x = in.addend ? in.total : in.x;
  A *shift = scratch, *s1 = shift + inner, *s2 = s1 + inner;
  auto recentre = [=](int64_t rows) ENTPROP_INLINE_LAMBDA {
    const double per_n = 1 / (double)rows;
    for (int64_t c = 0; c < inner; ++c)
      shift[c] = finite_or_zero((A)(shift[c] + (double)s1[c] * per_n));
  };
  add_up_tile(in, 0, extent.outer < kTileRows ? extent.outer : kTileRows, inner, inner);
  for (int64_t c = 0; c < inner; ++c) shift[c] = finite_or_zero(scalar<T>(x + c));
  const int64_t sample = extent.outer < kSampleRows ? extent.outer : kSampleRows;
  sum_rows(x, sample, extent, shift, s1, s2);
  recentre(sample);
  for (int64_t row = 0; row < extent.outer; row += kTileRows) {
    const int64_t rows = extent.outer - row < kTileRows ? extent.outer - row : kTileRows;
    const double n = (double)rows;
    if (row > 0) add_up_tile(in, row, row + rows, inner, inner);
    for (int attempt = 0;; ++attempt) {
      sum_rows(x + row * inner, rows, extent, shift, s1, s2);
      if (attempt == 1 || !is_far(s1, s2, inner, 1 / n)) break;
      recentre(rows);
    }
    absorb(shift, s1, s2, inner, n, out);
  }
}

// Mean of the first pixels of a plane, zero if it is not finite.
template <class T>
ENTPROP_INLINE Accumulator<T> sample_mean(const T* plane, int64_t inner) {
  using S = Simd<T>;
  using V = typename S::V;
  const int64_t count = inner < kSamplePixels ? inner : kSamplePixels;
  const V first = S::broadcast(finite_or_zero(scalar<T>(plane)));
  V sum{};
  vectorwise<T>(count, [&](int64_t i, int64_t n) ENTPROP_INLINE_LAMBDA {
    sum += (n == S::lanes ? S::load(plane + i) : S::load_some(plane + i, n, first)) - first;
  });
  return finite_or_zero((Accumulator<T>)(first[0] + S::sum(S::widen(sum)) / (double)count));
}

template <class T>
void plane_moments(const Summands<T>& in, Extent extent, Moments* out) {
  using S = Simd<T>;
  using A = Accumulator<T>;
  using V = typename S::V;
  const auto [outer, side, inner, stride, streams] = extent;
  const bool columns = are_columns<T>(extent);
  const int64_t images = columns ? kTileRows : images_per_tile(inner);
  const T* x = in.addend ? in.total : in.x;
  add_up_tile(in, 0, images < outer ? images : outer, side * inner, stride);
  A shift[kMaxSide];
  for (int64_t c = 0; c < side; ++c) shift[c] = sample_mean(x + c * inner, inner);
  for (int64_t first = 0; first < outer; first += images) {
    const int64_t last = first + images < outer ? first + images : outer;
    const double n = (double)((last - first) * inner), per_n = 1 / n;
    double s1[kMaxSide], s2[kMaxSide];
    if (first > 0) add_up_tile(in, first, last, side * inner, stride);
    for (int attempt = 0;; ++attempt) {
      for (int64_t c = 0; c < side; ++c) s1[c] = s2[c] = 0;
      if (columns) {
        Spread<A> shifts;
        A s1_columns[kMaxColumns], s2_columns[kMaxColumns];
        sum_rows(x + first * stride, last - first, as_rows(extent), shifts.set(shift, extent),
                 s1_columns, s2_columns);
        fold(s1_columns, extent, s1);
        fold(s2_columns, extent, s2);
      } else {
        sum_planes<T>(first, last, side, inner, s1, s2,
                      [=, &shift, inner = inner, stride = stride](
                          int64_t image, int64_t c, int64_t i, int64_t count, V& d, V& square)
                          ENTPROP_INLINE_LAMBDA {
                            const T* at = x + image * stride + c * inner + i;
                            const V k = S::broadcast(shift[c]);
                            d = (count == S::lanes ? S::load(at) : S::load_some(at, count, k)) - k;
                            square = d * d;
                          });
      }
      if (attempt == 1 || !is_far(s1, s2, side, per_n)) break;
      for (int64_t c = 0; c < side; ++c) shift[c] = finite_or_zero((A)(shift[c] + s1[c] * per_n));
    }
    absorb(shift, s1, s2, side, n, out);
  }
}

}  // namespace ENTPROP_ISA
