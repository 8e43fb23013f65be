// The first pass of dual_batch_norm's backward: sum g and sum g (x - mean) of every channel.
#pragma once

#include "norm_sum_loops.h"

namespace ENTPROP_ISA {

template <class T, Sign sign, int R>
ENTPROP_INLINE void reduce_rows(const NormBackward<T> job, int64_t row, Accumulator<T>* s_g,
                                Accumulator<T>* s_gx) {
  using A = Accumulator<T>;
  using V = typename Simd<T>::V;
  const int64_t next = (row + R) * job.extent.stride;
  vectorwise<T>(job.extent.inner, [=](int64_t c, int64_t n) ENTPROP_INLINE_LAMBDA {
    const V m = load<A>(job.affine.mean + c, n), s = load<A>(job.affine.scale + c, n);
    const V b = load<A>(job.affine.shift + c, n);
    V sum{}, products{};
    for (int64_t r = row; r < row + R; ++r) {
      const int64_t at = r * job.extent.stride + c;
      if (job.extent.streams) {
        __builtin_prefetch(job.x + next + in_order<T, R>(c, r - row));
        __builtin_prefetch(job.grad + next + in_order<T, R>(c, r - row));
        if (job.again) __builtin_prefetch(job.again + next + in_order<T, R>(c, r - row));
      }
      const V value = load<T>(job.x + at, n);
      const V g = masked<T, sign>(incoming(job, at, n), value, m, s, b,
                                  job.mask + r * job.mask_stride + c / 8, n);
      sum += g;
      products += g * (value - m);
    }
    store<A>(s_g + c, load<A>(s_g + c, n) + sum, n);
    store<A>(s_gx + c, load<A>(s_gx + c, n) + products, n);
  });
}

// Calls take() with s_g and s_gx holding the sums of every column over a tile of rows.
template <class T, Sign sign, class Take>
ENTPROP_INLINE void reduce_tiles(const NormBackward<T>& job, Accumulator<T>* s_g,
                                 Accumulator<T>* s_gx, Take take) {
  const int64_t inner = job.extent.inner, rows = job.extent.outer;
  for (int64_t row = 0; row < rows;) {
    const int64_t end = row + kTileRows < rows ? row + kTileRows : rows;
    for (int64_t c = 0; c < inner; ++c) s_g[c] = s_gx[c] = 0;
    for (; row + kRowsAtOnce <= end; row += kRowsAtOnce)
      reduce_rows<T, sign, kRowsAtOnce>(job, row, s_g, s_gx);
    for (; row < end; ++row) reduce_rows<T, sign, 1>(job, row, s_g, s_gx);
    take();
  }
}

template <class T, Sign sign>
void reduce_all_rows(const NormBackward<T>& job, Accumulator<T>* scratch, double* sum_g,
                     double* sum_gx) {
  const int64_t inner = job.extent.inner;
  auto *s_g = scratch, *s_gx = scratch + inner;
  reduce_tiles<T, sign>(job, s_g, s_gx, [=]() ENTPROP_INLINE_LAMBDA {
    for (int64_t c = 0; c < inner; ++c) {
      sum_g[c] += s_g[c];
      sum_gx[c] += s_gx[c];
    }
  });
}

template <class T, Sign sign>
void reduce_columns(const NormBackward<T>& job, double* sum_g, double* sum_gx) {
  using A = Accumulator<T>;
  SpreadAffine<A> affine;
  NormBackward<T> rows = job;
  rows.affine = affine.set(job.affine, job.extent);
  rows.extent = as_rows(job.extent);
  A s_g[kMaxColumns], s_gx[kMaxColumns];
  reduce_tiles<T, sign>(rows, s_g, s_gx, [&]() ENTPROP_INLINE_LAMBDA {
    fold<A>(s_g, job.extent, sum_g);
    fold<A>(s_gx, job.extent, sum_gx);
  });
}

template <class T, Sign sign>
void reduce_all_planes(const NormBackward<T>& job, double* sum_g, double* sum_gx) {
  using S = Simd<T>;
  using V = typename S::V;
  if (are_columns<T>(job.extent)) return reduce_columns<T, sign>(job, sum_g, sum_gx);
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
                      g = masked<T, sign>(incoming(job, at, n), value, m, s, b, bits, n);
                      product = g * (value - m);
                    });
}

template <class T>
void row_reduce(const NormBackward<T>& job, Accumulator<T>* scratch, double* sum_g,
                double* sum_gx) {
  by_sign(job.sign, [](auto sign) { return reduce_all_rows<T, sign()>; })(job, scratch, sum_g,
                                                                          sum_gx);
}

template <class T>
void plane_reduce(const NormBackward<T>& job, double* sum_g, double* sum_gx) {
  by_sign(job.sign, [](auto sign) { return reduce_all_planes<T, sign()>; })(job, sum_g, sum_gx);
}

}  // namespace ENTPROP_ISA
