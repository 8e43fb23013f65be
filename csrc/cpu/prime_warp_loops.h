// PRIME's warp of one image: see entprop_fast/ops/prime_primitives.py.
#pragma once

#include "prime.h"
#include "prime_random.h"

namespace ENTPROP_ISA {

struct Field {
  float *dx, *dy;              // [height, padded(width)]
  float *modes_dx, *modes_dy;  // [modes_y, padded(modes_x)]
  float* partial;              // [modes_y, padded(width)]
};

// The variance of modes (i, j) with j in `column` and all that look alike on these pixels.
ENTPROP_INLINE F variance(int64_t row, F column, int64_t turn_y, int64_t turn_x, int64_t cut) {
  const float limit = ((float)cut + 0.5f) * ((float)cut + 0.5f);
  F total = {};
  for (int64_t around_y = 0; around_y <= cut + row; around_y += turn_y)
    for (int64_t i = around_y - row; i <= around_y + row; i += 2 * row) {
      if (i <= 0 || i > cut) continue;
      const float ii = (float)(i * i);
      const auto add = [&](F j) ENTPROP_INLINE_LAMBDA {
        const F squared = j * j + ii;
        total += squared < limit ? 1 / squared : F{};
      };
      add(column);
      for (int64_t around_x = turn_x; around_x - turn_x / 2 <= cut; around_x += turn_x) {
        add((float)around_x - column);
        add((float)around_x + column);
      }
    }
  return total;
}

// How many of the modes of a row lie within the disc; all where others look alike.
ENTPROP_INLINE int64_t reach(int64_t row, int64_t cut, int64_t modes, bool alike) {
  if (alike) return modes;
  const double limit = ((double)cut + 0.5) * ((double)cut + 0.5) - (double)(row * row);
  const int64_t last = limit <= 0 ? 0 : (int64_t)__builtin_sqrt(limit);
  return last < modes ? last : modes;
}

// out [rows, columns] = a [rows, inner] b [inner, columns], a row's stride in a being stride_a.
// `columns` is a whole number of vectors, and each row of b and out has so many elements.
template <int height>
ENTPROP_INLINE void product_rows(const float* a, int64_t stride_a, const float* b, int64_t inner,
                                 int64_t columns, float* out) {
  using S = Simd<float>;
  int64_t x = 0;
  for (; x + 2 * S::lanes <= columns; x += 2 * S::lanes) {
    F sum[height][2] = {};
    for (int64_t k = 0; k < inner; ++k) {
      const F b0 = S::load(b + k * columns + x), b1 = S::load(b + k * columns + x + S::lanes);
      for (int r = 0; r < height; ++r) {
        const F value = broadcast(a[r * stride_a + k]);
        sum[r][0] += value * b0;
        sum[r][1] += value * b1;
      }
    }
    for (int r = 0; r < height; ++r) {
      S::store(out + r * columns + x, sum[r][0]);
      S::store(out + r * columns + x + S::lanes, sum[r][1]);
    }
  }
  for (; x < columns; x += S::lanes) {
    F sum[height] = {};
    for (int64_t k = 0; k < inner; ++k) {
      const F value = S::load(b + k * columns + x);
      for (int r = 0; r < height; ++r) sum[r] += broadcast(a[r * stride_a + k]) * value;
    }
    for (int r = 0; r < height; ++r) S::store(out + r * columns + x, sum[r]);
  }
}

template <class Inner>
ENTPROP_INLINE void product(const float* a, int64_t stride_a, const float* b, Inner inner,
                            int64_t rows, int64_t columns, float* out) {
  constexpr int kRows = 4;
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    product_rows<kRows>(a + r * stride_a, stride_a, b, inner(r), columns, out + r * columns);
  for (; r < rows; ++r)
    product_rows<1>(a + r * stride_a, stride_a, b, inner(r), columns, out + r * columns);
}

inline void displacements(const PrimeShape& shape, uint64_t key, int64_t cut, float scale,
                          const Field& field) {
  using S = Simd<float>;
  const int64_t stride = padded(shape.modes_x), columns = padded(shape.width);
  const int64_t turn_y = 2 * (shape.height - 1), turn_x = 2 * (shape.width - 1);
  const bool alike = 2 * cut >= turn_y || 2 * cut >= turn_x;
  const int64_t rows = alike || cut > shape.modes_y ? shape.modes_y : cut;
  for (int64_t row = 1; row <= rows; ++row) {
    const int64_t used = reach(row, cut, shape.modes_x, alike);
    float* dx = field.modes_dx + (row - 1) * stride;
    float* dy = field.modes_dy + (row - 1) * stride;
    for (int64_t j = 0; j < stride; j += S::lanes) {
      F x = {}, y = {};
      if (j < used) {
        normal_pairs(key, (row - 1) * shape.modes_x + j, &x, &y);
        const F column = to_float(S::index()) + (float)(j + 1);
        const F spread = root(variance(row, column, turn_y, turn_x, cut)) * scale;
        x *= spread * (float)shape.width;
        y *= spread * (float)shape.height;
      }
      S::store(dx + j, x);
      S::store(dy + j, y);
    }
  }
  for (int axis = 0; axis < 2; ++axis) {
    const float* modes = axis == 0 ? field.modes_dx : field.modes_dy;
    product(
        modes, stride, shape.sines_x,
        [&](int64_t row) { return reach(row + 1, cut, shape.modes_x, alike); }, rows, columns,
        field.partial);
    product(
        shape.sines_y, padded(shape.modes_y), field.partial, [&](int64_t) { return rows; },
        shape.height, columns, axis == 0 ? field.dx : field.dy);
  }
}

// NaN becomes the lower bound: it is about to be a place in memory.
ENTPROP_INLINE F within(F x, F hi) {
  x = x >= 0 ? x : F{};
  return x <= hi ? x : hi;
}

// Samples the planes of `from` at (x - dx, y - dy). One beyond the last pixel of a row or of an
// image is read, and counts nothing.
inline void remap(const PrimeShape& shape, const Field& field, const float* from, float* to) {
  using S = Simd<float>;
  const int64_t width = shape.width, plane = shape.plane();
  const F last_x = broadcast((float)(width - 1)), last_y = broadcast((float)(shape.height - 1));
  for (int64_t y = 0; y < shape.height; ++y)
    for (int64_t x = 0; x < width; x += S::lanes) {
      const int64_t at = y * padded(width) + x, lanes = width - x < S::lanes ? width - x : S::lanes;
      const F from_x = within(to_float(S::index()) + (float)x - S::load(field.dx + at), last_x);
      const F from_y = within((float)y - S::load(field.dy + at), last_y);
      const I left = to_int(from_x), top = to_int(from_y);
      const F tx = from_x - to_float(left), ty = from_y - to_float(top);
      const I places = top * (int32_t)width + left;
      int32_t place[S::lanes];
      __builtin_memcpy(place, &places, sizeof places);
      for (int64_t c = 0; c < shape.channels; ++c) {
        const float* p = from + c * plane;
        float corner[4][S::lanes];
        for (int i = 0; i < S::lanes; ++i) {
          const int32_t o = place[i];
          corner[0][i] = p[o];
          corner[1][i] = p[o + 1];
          corner[2][i] = p[o + width];
          corner[3][i] = p[o + width + 1];
        }
        const F a = S::load(corner[0]), b = S::load(corner[1]), d = S::load(corner[2]),
                e = S::load(corner[3]);
        const F upper = a + tx * (b - a), lower = d + tx * (e - d);
        store(to + c * plane + y * width + x, upper + ty * (lower - upper), lanes);
      }
    }
}

}  // namespace ENTPROP_ISA
