// The first passes of dual_batch_norm: statistics (forward) and the two sums of the backward.
// Partial sums in the accumulator type over a bounded tile, tiles merged in double.
#pragma once

#include "norm_elementwise_loops.h"

namespace ENTPROP_ISA {

constexpr int64_t kTileRows = 256;       // rows a channel's partial sum covers
constexpr int64_t kTileElements = 8192;  // the same for the planes of one channel

// Shifted sums lose about (mean - shift)^2 / variance in relative accuracy of the variance: beyond
// this the tile is read again with its own mean as the shift.
constexpr double kFar = 64;

template <class A>
ENTPROP_INLINE A finite_or_zero(A value) {
  return value - value == 0 ? value : 0;
}

// Chan's update of (count, mean, m2) with a tile of n values.
ENTPROP_INLINE void merge(double& mean, double& m2, double tile_mean, double tile_m2, double n,
                          double count) {
  const double delta = tile_mean - mean;
  mean += delta * (n / (count + n));
  m2 += tile_m2 + delta * delta * (count * n / (count + n));
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
      if (attempt == 1) break;
      int far = 0;
      for (int64_t c = 0; c < inner; ++c) {
        const double square = (double)s1[c] * s1[c] / n;
        far |= square > kFar * ((double)s2[c] - square);
      }
      if (!far) break;
      for (int64_t c = 0; c < inner; ++c)
        shift[c] = finite_or_zero((A)(shift[c] + (double)s1[c] / n));
    }
    for (int64_t c = 0; c < inner; ++c) {
      const double m2 = (double)s2[c] - (double)s1[c] * s1[c] / n;
      merge(out->mean[c], out->m2[c], shift[c] + (double)s1[c] / n, m2, n, (double)out->count);
      shift[c] = finite_or_zero((A)out->mean[c]);
    }
    out->count += rows;
  }
}

template <class T>
void plane_moments(const T* x, Extent extent, Moments* out) {
  using S = Simd<T>;
  using A = Accumulator<T>;
  using V = typename S::V;
  const int64_t inner = extent.inner;
  // Whole planes a tile, at least one; a very large plane is a tile of its own.
  const int64_t planes = kTileElements / inner > 0 ? kTileElements / inner : 1;
  A shift = finite_or_zero(scalar<T>(x));
  for (int64_t first = 0; first < extent.outer; first += planes) {
    const int64_t last = first + planes < extent.outer ? first + planes : extent.outer;
    const double n = (double)((last - first) * inner);
    double s1, s2;
    for (int attempt = 0;; ++attempt) {
      V sum[4] = {}, squares[4] = {};
      const V k = S::broadcast(shift);
      for (int64_t p = first; p < last; ++p) {
        const T* plane = x + p * extent.stride;
        int64_t i = 0;
        for (; i + 4 * S::lanes <= inner; i += 4 * S::lanes) {
          for (int u = 0; u < 4; ++u) {
            const V d = S::load(plane + i + u * S::lanes) - k;
            sum[u] += d;
            squares[u] += d * d;
          }
        }
        for (; i < inner; i += S::lanes) {
          const int64_t left = inner - i;
          const V d = (left >= S::lanes ? S::load(plane + i) : S::load_some(plane + i, left, k)) - k;
          sum[0] += d;
          squares[0] += d * d;
        }
      }
      s1 = S::sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
      s2 = S::sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
      if (attempt == 1 || !(s1 * s1 / n > kFar * (s2 - s1 * s1 / n))) break;
      shift = finite_or_zero((A)(shift + s1 / n));
    }
    merge(out->mean[0], out->m2[0], shift + s1 / n, s2 - s1 * s1 / n, n, (double)out->count);
    out->count += (int64_t)n;
    shift = finite_or_zero((A)out->mean[0]);
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
  const int64_t inner = job.extent.inner;
  const int64_t planes = kTileElements / inner > 0 ? kTileElements / inner : 1;
  const V m = S::broadcast(job.affine.mean[0]);
  const V s = S::broadcast(job.affine.scale[0]), b = S::broadcast(job.affine.shift[0]);
  for (int64_t first = 0; first < job.extent.outer; first += planes) {
    const int64_t last = first + planes < job.extent.outer ? first + planes : job.extent.outer;
    V sum[2] = {}, products[2] = {};
    for (int64_t p = first; p < last; ++p) {
      const T* grad = job.grad + p * job.extent.stride;
      const T* x = job.x + p * job.extent.stride;
      const uint8_t* mask = sign == Sign::mask ? job.mask + p * job.mask_stride : nullptr;
      auto add = [&](int64_t i, int64_t n, int u) ENTPROP_INLINE_LAMBDA {
        // Lanes past the end: x = mean there, and g = 0.
        const V value = n == S::lanes ? S::load(x + i) : S::load_some(x + i, n, m);
        const V g = masked<T, sign>(load<T>(grad + i, n), value, m, s, b, mask + i / 8, n);
        sum[u] += g;
        products[u] += g * (value - m);
      };
      int64_t i = 0;
      for (; i + 2 * S::lanes <= inner; i += 2 * S::lanes) {
        add(i, S::lanes, 0);
        add(i + S::lanes, S::lanes, 1);
      }
      for (; i + S::lanes <= inner; i += S::lanes) add(i, S::lanes, 0);
      if (i < inner) add(i, inner - i, 1);
    }
    sum_g[0] += S::sum(sum[0] + sum[1]);
    sum_gx[0] += S::sum(products[0] + products[1]);
  }
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
