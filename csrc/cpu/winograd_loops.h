// 3x3 convolution by Winograd's F(2x2, 3x3), float, channels innermost: a tile of 2x2 outputs costs
// 16 products a pair of channels where the plain sum takes 36.
#pragma once

#include "vector.h"

namespace ENTPROP_ISA {

using WinogradVector = Simd<float>::V;
inline constexpr int64_t kFrequencies = 16;
// Accumulators of the product in registers: rows by vectors.
#if defined(__AVX512F__)
inline constexpr int kProductRows = 8;
#else
inline constexpr int kProductRows = 4;
#endif

// Per tile of a block and channel, 16 values; consecutive frequencies do not share a cache set.
ENTPROP_INLINE int64_t frequency_stride(int64_t channels) {
  return kTilesPerBlock * channels + kScratchPadding;
}

// Where a tile's pixels lie: `side` x `side` from (2 i - before, 2 j - before), zeros outside.
template <int side>
ENTPROP_INLINE void tile_pixels(const float* image, const WinogradShape& shape, int64_t channels,
                                int64_t tile, int before, const float* zeros,
                                const float* pixels[side][side]) {
  const int64_t across = (shape.width + 1) / 2, down = (shape.height + 1) / 2;
  const int64_t j = tile % across, i = tile / across % down, n = tile / (across * down);
  for (int r = 0; r < side; ++r)
    for (int s = 0; s < side; ++s) {
      const int64_t h = 2 * i + r - before, w = 2 * j + s - before;
      const bool inside = h >= 0 && h < shape.height && w >= 0 && w < shape.width;
      pixels[r][s] = inside ? image + ((n * shape.height + h) * shape.width + w) * channels : zeros;
    }
}

// V = B^T d B of every tile.
inline void winograd_input(const float* x, const WinogradShape& shape, int64_t first, int64_t count,
                           const float* zeros, float* v) {
  using S = Simd<float>;
  using V = WinogradVector;
  const int64_t channels = shape.in, stride = frequency_stride(channels);
  for (int64_t t = 0; t < count; ++t) {
    const float* d[4][4];
    tile_pixels<4>(x, shape, channels, first + t, 1, zeros, d);
    float* out = v + t * channels;
    for (int64_t c = 0; c < channels; c += S::lanes) {
      V half[4][4];
      for (int s = 0; s < 4; ++s) {
        const V d0 = S::load(d[0][s] + c), d1 = S::load(d[1][s] + c), d2 = S::load(d[2][s] + c),
                d3 = S::load(d[3][s] + c);
        half[0][s] = d0 - d2;
        half[1][s] = d1 + d2;
        half[2][s] = d2 - d1;
        half[3][s] = d1 - d3;
      }
      for (int r = 0; r < 4; ++r) {
        float* at = out + 4 * r * stride + c;
        S::store(at, half[r][0] - half[r][2]);
        S::store(at + stride, half[r][1] + half[r][2]);
        S::store(at + 2 * stride, half[r][2] - half[r][1]);
        S::store(at + 3 * stride, half[r][1] - half[r][3]);
      }
    }
  }
}

// y = A^T M A of every tile.
inline void winograd_output(const float* m, const WinogradShape& shape, int64_t first,
                            int64_t count, float* y) {
  using S = Simd<float>;
  using V = WinogradVector;
  const int64_t channels = shape.out, stride = frequency_stride(channels);
  for (int64_t t = 0; t < count; ++t) {
    const float* at[2][2];
    tile_pixels<2>(y, shape, channels, first + t, 0, nullptr, at);
    const float* in = m + t * channels;
    for (int64_t c = 0; c < channels; c += S::lanes) {
      V half[2][4];
      for (int s = 0; s < 4; ++s) {
        const float* from = in + s * stride + c;
        const V m0 = S::load(from), m1 = S::load(from + 4 * stride),
                m2 = S::load(from + 8 * stride), m3 = S::load(from + 12 * stride);
        half[0][s] = m0 + m1 + m2;
        half[1][s] = m1 - m2 - m3;
      }
      for (int r = 0; r < 2; ++r) {
        const V left = half[r][0] + half[r][1] + half[r][2];
        const V right = half[r][1] - half[r][2] - half[r][3];
        if (at[r][0]) S::store(const_cast<float*>(at[r][0]) + c, left);
        if (at[r][1]) S::store(const_cast<float*>(at[r][1]) + c, right);
      }
    }
  }
}

// dM = A dY A^T of every tile.
inline void winograd_grad(const float* grad, const WinogradShape& shape, int64_t first,
                          int64_t count, const float* zeros, float* m) {
  using S = Simd<float>;
  using V = WinogradVector;
  const int64_t channels = shape.out, stride = frequency_stride(channels);
  for (int64_t t = 0; t < count; ++t) {
    const float* g[2][2];
    tile_pixels<2>(grad, shape, channels, first + t, 0, zeros, g);
    float* out = m + t * channels;
    for (int64_t c = 0; c < channels; c += S::lanes) {
      V half[4][2];
      for (int s = 0; s < 2; ++s) {
        const V g0 = S::load(g[0][s] + c), g1 = S::load(g[1][s] + c);
        half[0][s] = g0;
        half[1][s] = g0 + g1;
        half[2][s] = g0 - g1;
        half[3][s] = -g1;
      }
      for (int r = 0; r < 4; ++r) {
        float* at = out + 4 * r * stride + c;
        S::store(at, half[r][0]);
        S::store(at + stride, half[r][0] + half[r][1]);
        S::store(at + 2 * stride, half[r][0] - half[r][1]);
        S::store(at + 3 * stride, -half[r][1]);
      }
    }
  }
}

// A row-major product: c [rows, columns] = or += sum_k a(row, k) b(k, column).
struct Product {
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_step;
  float* c;
  int64_t c_row, depth;
};

template <int vectors, bool accumulates>
ENTPROP_INLINE void product_tile(const Product& p) {
  using S = Simd<float>;
  using V = WinogradVector;
  V sum[kProductRows][vectors];
#pragma GCC unroll 16
  for (int r = 0; r < kProductRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v)
      sum[r][v] = accumulates ? S::load(p.c + r * p.c_row + v * S::lanes) : V{};
  const float *a = p.a, *b = p.b;
  for (int64_t k = 0; k < p.depth; ++k, a += p.a_step, b += p.b_step) {
    V right[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) right[v] = S::load(b + v * S::lanes);
#pragma GCC unroll 16
    for (int r = 0; r < kProductRows; ++r) {
      const V left = S::broadcast(a[r * p.a_row]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] += left * right[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kProductRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) S::store(p.c + r * p.c_row + v * S::lanes, sum[r][v]);
}

// rows a multiple of kProductRows, columns of a vector.
template <bool accumulates>
ENTPROP_INLINE void product(const Product& whole, int64_t rows, int64_t columns) {
  constexpr int64_t lanes = Simd<float>::lanes;
  for (int64_t column = 0; column < columns;) {
    const bool wide = column + 2 * lanes <= columns;
    for (int64_t row = 0; row < rows; row += kProductRows) {
      Product part = whole;
      part.a += row * whole.a_row;
      part.b += column;
      part.c += row * whole.c_row + column;
      if (wide)
        product_tile<2, accumulates>(part);
      else
        product_tile<1, accumulates>(part);
    }
    column += wide ? 2 * lanes : lanes;
  }
}

// Tiles [first, first + count) of y; u [16, in, out]; scratch as winograd_scratch says.
inline void winograd_forward(const float* x, const float* u, const WinogradShape& shape,
                             int64_t first, int64_t count, float* scratch, float* y) {
  const int64_t v_stride = frequency_stride(shape.in), m_stride = frequency_stride(shape.out);
  float *v = scratch + shape.in, *m = v + kFrequencies * v_stride;
  for (int64_t c = 0; c < shape.in; ++c) scratch[c] = 0;
  winograd_input(x, shape, first, count, scratch, v);
  const int64_t rows = (count + kProductRows - 1) / kProductRows * kProductRows;
  for (int64_t f = 0; f < kFrequencies; ++f)
    product<false>({v + f * v_stride, shape.in, 1, u + f * shape.in * shape.out, shape.out,
                    m + f * m_stride, shape.out, shape.in},
                   rows, shape.out);
  winograd_output(m, shape, first, count, y);
}

// Adds the tiles' part of dU [16, in, out].
inline void winograd_weight_grad(const float* x, const float* grad, const WinogradShape& shape,
                                 int64_t first, int64_t count, float* scratch, float* du) {
  const int64_t v_stride = frequency_stride(shape.in), m_stride = frequency_stride(shape.out);
  const int64_t most = shape.in > shape.out ? shape.in : shape.out;
  float *v = scratch + most, *m = v + kFrequencies * v_stride;
  for (int64_t c = 0; c < most; ++c) scratch[c] = 0;
  winograd_input(x, shape, first, count, scratch, v);
  winograd_grad(grad, shape, first, count, scratch, m);
  for (int64_t f = 0; f < kFrequencies; ++f)
    product<true>({v + f * v_stride, 1, shape.in, m + f * m_stride, shape.out,
                   du + f * shape.in * shape.out, shape.out, count},
                  shape.in, shape.out);
}

}  // namespace ENTPROP_ISA
